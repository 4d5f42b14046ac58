"""Rating prediction: the agents' scorers beside SVD and SVD++ on one split, test ratings read once.

    python benchmarks/scorers.py --train u2.base --test u2.test

Both files are in MovieLens ``u.data`` format: user, item, rating and time (seconds) in four tab-separated columns. Of
every scorer the weight decay and the number of epochs are chosen on a validation part of the training file; then it is
trained on the whole file for as many epochs. Scorers read ids, genres and years, age, gender and occupation, 16
principal components of the item's text (all from MovieLens-100K, ``--no-text`` does without), what the user rated
before, and how those ratings were against the items' means. The baselines need ``scikit-surprise``.
``--page`` adds the table to a Markdown file, under the name of the test file.
The last line is one JSON object: ``{"svdpp_agent": {"rmse": .., "mae": ..}, "fm": {..}, .., "svdpp": {..}, ..}``.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from recgym.agents.features.columns import initialise
from recgym.agents.features.inputs import Batch, ScoringModel, Sizes
from recgym.agents.features.learning import Examples, Schedule, learn, predict
from recgym.agents.features.pairs import Pairs
from recgym.agents.protocol import agent_class
from recgym.agents.scoring import ScoringAgent
from recgym.agents.svdpp import SVDppConfig, learn_ratings
from recgym.benchmark.options import at_least
from recgym.benchmark.ratings import BASELINES, Errors, baseline, read_split, side_information
from recgym.errors import RecGymError

NETWORKS = ("scorer", "fm", "nfm", "ncf", "multiway", "two_tower", "sasrec")
VALIDATION = 0.1  # of the training ratings
DECAYS = (0.3, 1.0, 3.0)  # weight decay of the networks
PENALTIES = (0.03, 0.06, 0.12)  # factor penalty of SVD++
HISTORY = 30  # ratings before
TITLE = """# Ratings of MovieLens-100K: the agents' scorers beside SVD and SVD++

Written by `python benchmarks/scorers.py --train SPLIT.base --test SPLIT.test --page benchmarks/scorers.md`, which says
what each of them reads and how its settings are chosen. Intervals are over users, for one training.
"""
MOODS = (3, 20)  # ratings before, over which residuals are averaged
TEXT_SIZE = 16


def history(rows: pd.DataFrame, seen: pd.DataFrame, num_items: int) -> tuple[Tensor, Tensor]:
    """What each of ``rows`` had before it among the ratings ``seen``: newest items [Q, H] and context [Q, 4].

    The context is the logs of one plus the ratings and the days before, and the mean residuals of the last few.
    """
    sums = np.bincount(seen["item"], seen["rating"] - seen["rating"].mean(), minlength=num_items)
    means = seen["rating"].mean() + sums / (np.bincount(seen["item"], minlength=num_items) + 5.0)
    seen = seen.sort_values(["user", "time"], kind="stable")
    items, times = seen["item"].to_numpy(), seen["time"].to_numpy()
    residuals = seen["rating"].to_numpy() - means[items]
    sums = np.concatenate([[0.0], np.cumsum(residuals)])
    users = seen["user"].to_numpy()
    newest, context = np.full((len(rows), HISTORY), -1), np.zeros((len(rows), 2 + len(MOODS)), np.float32)
    for at, (user, moment) in enumerate(zip(rows["user"], rows["time"], strict=True)):
        first = np.searchsorted(users, user)
        last = np.searchsorted(users, user, side="right")
        place = first + np.searchsorted(times[first:last], moment)  # strictly earlier: a rating never sees itself
        before = items[max(first, place - HISTORY) : place][::-1]
        newest[at, : len(before)] = before
        days = (moment - times[first]) / 86_400 if place > first else 0.0
        moods = [(sums[place] - sums[max(first, place - n)]) / (min(n, place - first) + 1.0) for n in MOODS]
        context[at] = [np.log1p(place - first), np.log1p(days), *moods]
    return torch.from_numpy(newest), torch.from_numpy(context)


class Table:
    """Ratings with users and items as rows, ready for networks."""

    def __init__(self, train: pd.DataFrame, test: pd.DataFrame, described: bool) -> None:
        users = pd.Index(np.union1d(train["user"], test["user"]))
        items = pd.Index(np.union1d(train["item"], test["item"]))
        sides = side_information(users, items, described)
        text = sides.text - sides.text.mean(0)
        directions = torch.linalg.svd(text, full_matrices=False).Vh[:TEXT_SIZE]
        self.items = torch.cat([text @ directions.T, sides.items], dim=1)
        self.users = sides.users
        self.sizes = Sizes(len(users), len(items), self.users.shape[1], self.items.shape[1], 2 + len(MOODS), self.items)
        self.train, self.test = (
            frame.assign(user=users.get_indexer(frame["user"]), item=items.get_indexer(frame["item"]))
            for frame in (train, test)
        )

    def examples(self, rows: pd.DataFrame, seen: pd.DataFrame) -> Examples:
        """``rows`` as inputs and targets, given the ratings ``seen``: ids without any rating there are unknown."""
        newest, context = history(rows, seen, self.sizes.num_items)
        user, item, rating = (torch.tensor(rows[name].to_numpy()) for name in ("user", "item", "rating"))
        known_users, known_items = (torch.tensor(rows[name].isin(seen[name]).to_numpy()) for name in ("user", "item"))
        batch = Batch(
            user_id=user.masked_fill(~known_users, -1),
            user=self.users[user],
            history=newest,
            item_id=item.masked_fill(~known_items, -1)[:, None],
            item=self.items[item][:, None],
            context=context[:, None],
        )
        target = rating.float()[:, None]
        return Examples(batch, target, torch.ones_like(target, dtype=torch.bool))

    def pairs(self, rows: pd.DataFrame) -> Pairs:
        """``rows`` as pairs."""
        columns = (torch.tensor(rows[name].to_numpy()) for name in ("user", "item", "rating"))
        return Pairs.of(*columns, self.sizes.num_users, self.sizes.num_items)


def network(name: str, table: Table, kept: pd.DataFrame, held: pd.DataFrame, seed: int, epochs: int) -> np.ndarray:
    """Ratings predicted for the test rows by the network of agent ``name``."""
    cls = agent_class(name)
    assert issubclass(cls, ScoringAgent)
    learning, checking = table.examples(kept, kept), table.examples(held, kept)

    def fitted(examples: Examples, held_out: Examples | None, decay: float, stop: int | None) -> tuple:
        model = ScoringModel(cls.network(table.sizes, cls.Config()), table.sizes)
        initialise(model, torch.Generator().manual_seed(seed))
        schedule = Schedule(epochs, 4, 256, 3e-3, decay, id_dropout=0.05)
        fit = learn(model, examples, held_out, "squared", schedule, torch.Generator().manual_seed(seed), stop)
        return fit, min((row["loss"] for row in fit.history), default=0.0) if held_out else 0.0

    tried = {decay: fitted(learning, checking, decay, None) for decay in DECAYS}
    decay = min(tried, key=lambda value: tried[value][1])
    stop, error = tried[decay][0].epochs, tried[decay][1] ** 0.5
    print(f"{name}: weight decay {decay}, {stop} epochs, chosen on validation (RMSE {error:.4f} there)", flush=True)
    model = fitted(table.examples(table.train, table.train), None, decay, stop)[0].model
    return predict(model, table.examples(table.test.assign(rating=1), table.train).batch)[:, 0].clamp(1, 5).numpy()


def svdpp(table: Table, kept: pd.DataFrame, held: pd.DataFrame, seed: int, epochs: int) -> np.ndarray:
    """Ratings predicted for the test rows by SVD++ as the agent has it."""
    configs = [SVDppConfig(factor_penalty=penalty, rating_epochs=epochs) for penalty in PENALTIES]
    tried = [(learn_ratings(table.pairs(kept), table.pairs(held), config, seed), config) for config in configs]
    fit, config = min(tried, key=lambda pair: min(row["rmse"] for row in pair[0].history))
    error = min(row["rmse"] for row in fit.history)
    print(f"svdpp_agent: penalty {config.factor_penalty}, {fit.epochs} epochs (RMSE {error:.4f} on validation)")
    model = learn_ratings(table.pairs(table.train), None, config, seed, fit.epochs).model
    user, item = (torch.tensor(table.test[name].to_numpy()) for name in ("user", "item"))
    with torch.no_grad():
        return model(user, item).clamp(1, 5).numpy()


def markdown(split: str, found: dict[str, Errors], options: argparse.Namespace) -> Iterator[str]:
    """A section of the page, best first."""
    yield f"## Split {split}"
    yield ""
    yield f"`--epochs {options.epochs} --seed {options.seed}{' --no-text' if options.no_text else ''}`"
    yield ""
    yield "| scorer | RMSE [95%] | MAE |"
    yield "|---|---:|---:|"
    for name, errors in sorted(found.items(), key=lambda pair: pair[1].summary()["rmse"]):
        label = f"{name} (scikit-surprise)" if name in BASELINES else name
        summary = errors.summary()
        interval = errors.interval().replace(" to ", ", ")
        yield f"| {label} | {summary['rmse']:.4f} [{interval}] | {summary['mae']:.4f} |"


def main(arguments: list[str] | None = None) -> int:
    """The command line; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=Path, required=True, help="training ratings, u.data format")
    parser.add_argument("--test", type=Path, required=True, help="test ratings, u.data format")
    parser.add_argument("--agents", default=",".join(("svdpp_agent", *NETWORKS)), help="which scorers, by comma")
    parser.add_argument("--no-baselines", action="store_true", help="the scorers alone")
    parser.add_argument("--no-text", action="store_true", help="ratings and times alone: no titles, genres, people")
    parser.add_argument("--epochs", type=at_least(1), default=25, help="length of the learning-rate schedules")
    parser.add_argument("--seed", type=at_least(0), default=0)
    parser.add_argument("--page", type=Path, help="Markdown file that the table is added to")
    options = parser.parse_args(arguments)
    try:
        train, test = read_split(options.train, options.test, baselines=not options.no_baselines)
        table = Table(train, test, described=not options.no_text)
        held = np.random.default_rng(options.seed).random(len(train)) < VALIDATION
        kept_rows, held_rows = table.train[~held], table.train[held]
        predicted = {}
        for name in options.agents.split(","):
            started = time.perf_counter()
            if name == "svdpp_agent":
                predicted[name] = svdpp(table, kept_rows, held_rows, options.seed, options.epochs)
            else:
                predicted[name] = network(name, table, kept_rows, held_rows, options.seed, options.epochs)
            print(f"{name}: {time.perf_counter() - started:.0f} s", flush=True)
        for name in () if options.no_baselines else BASELINES:
            predicted[name] = baseline(name, train, test, options.seed)
    except RecGymError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    real, users = test["rating"].to_numpy(float), test["user"].to_numpy()
    found = {name: Errors(values - real, users) for name, values in predicted.items()}
    print(f"{'':12}{'RMSE':>8}  {'95% interval':18}{'MAE':>8}   (intervals over users, one training run)")
    for name, errors in found.items():
        print(f"{name:12}{errors.summary()['rmse']:8.4f}  {errors.interval():18}{errors.summary()['mae']:8.4f}")
    print(json.dumps({name: errors.summary() for name, errors in found.items()}))
    if options.page is not None:
        before = options.page.read_text(encoding="utf-8") if options.page.is_file() else TITLE
        section = "\n".join(markdown(options.test.stem, found, options))
        options.page.write_text(f"{before}\n{section}\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    torch.set_num_threads(1)  # rows of 32 numbers: more threads cost more than they bring
    sys.exit(main())
