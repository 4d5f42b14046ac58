"""Next film on MovieLens-100K: leave-last-out, full ranking of films not rated before, beside popularity and SASRec.

    python benchmarks/next_item.py

Each user's last rating is the test item, the one before it validates: early stopping looks at that alone. Ties in time
keep the order of the log (stable sorts). SASRec with softmax loss is that of RecTools, which needs numpy<2: it is
installed into a virtual environment of its own under ``$RECGYM_HOME/cache/sasrec`` and runs there on the same split.
The last line is one JSON object: ``{"preference": {"ndcg@10": .., "recall@10": ..}, "sasrec": {..}, ..}``.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

import numpy as np
import pandas as pd
import torch

import recgym.data
from recgym.commands.progress import stage_progress
from recgym.data.interactions import Interactions
from recgym.errors import DataError, RecGymError
from recgym.evaluation import statistics
from recgym.paths import recgym_home
from recgym.user_models.preference.config import ModelConfig, NetworkConfig, NextItemConfig
from recgym.user_models.preference.next_item import Events, rank, train
from recgym.user_models.preference.sides import Sides, indicator_columns
from recgym.user_models.preference.text import encode_texts

TOP = 10
REQUIREMENTS = ("rectools[torch]==0.19.0", "numpy<2")


def as_events(log: Interactions) -> Events:
    """The log's events, which a log keeps by user and time.

    Raises:
        DataError: a user has fewer than three events: nothing to train on, to validate and to test.
    """
    count = np.bincount(log.user_rows, minlength=len(log.users))
    short = log.users.index[count < 3]
    if len(short):
        raise DataError(f"{len(short)} users have fewer than 3 events, user {short[0]} the first of them")
    return Events(
        user=log.user_rows.astype(np.int64),
        item=log.item_rows.astype(np.int64),
        feedback=np.rint(log["rating"]).astype(np.int64),
        time=log["time"].astype("datetime64[s]").astype(np.int64),
        num_users=len(log.users),
        num_items=len(log.items),
    )


def side_information(log: Interactions, described: bool) -> Sides:
    """Texts and attributes of the log's items and users; all zero where ``described`` is off."""
    return Sides(
        text=encode_texts(log.items["text"].tolist()) if described else torch.zeros(len(log.items), 1),
        items=indicator_columns(log.items, ["genres", "release_year"] if described else []),
        users=indicator_columns(log.users, ["age", "gender", "occupation"] if described else []),
    )


def preference(events: Events, sides: Sides, config: ModelConfig, seed: int) -> np.ndarray:
    """The preference model's scores [U, N] of what each user does last, from all that comes before."""
    before = events.before_last(1)
    with stage_progress() as progress:
        chosen = train(sides, events.before_last(2), config, seed, held_out=before.last(), progress=progress)
    for row in chosen.history:
        print(f"epoch {row['epoch']}: validation NDCG@10 {row['ndcg@10']:.4f}, {row['seconds']} s", file=sys.stderr)
    best = max(row["ndcg@10"] for row in chosen.history)
    print(f"preference: {chosen.epochs} epochs, chosen on validation (NDCG@10 {best:.4f}), then trained on that too")
    with stage_progress() as progress:
        model = train(sides, before, config, seed, epochs=chosen.epochs, progress=progress).model
    return rank(model, sides, before).numpy()


def popularity(events: Events) -> np.ndarray:
    """Scores [U, N]: how often each item was rated before the last events."""
    counts = np.bincount(events.before_last(1).item, minlength=events.num_items).astype(np.float64)
    return np.broadcast_to(counts, (events.num_users, events.num_items))


def top_items(scores: np.ndarray, events: Events) -> np.ndarray:
    """The top 10 items [U, 10] of scores [U, N] among those that the user did not rate before; ties by item row."""
    scores, before = np.array(scores, np.float64), events.before_last(1)
    scores[before.user, before.item] = -np.inf
    return np.argsort(-scores, axis=1, kind="stable")[:, :TOP]


def sasrec(events: Events, seed: int, epochs: int) -> np.ndarray:
    """The top 10 items [U, 10] of RecTools' SASRec with softmax loss; -1 where it recommends fewer.

    Raises:
        DataError: its virtual environment cannot be built, or it fails; with the end of its output.
    """
    home = recgym_home() / "cache" / "sasrec"
    python, done = home / "bin" / "python", home / "installed"
    if not done.is_file():
        print(f"installing {', '.join(REQUIREMENTS)} into {home}", file=sys.stderr)
        venv.create(home, with_pip=True, clear=True)
        _run([str(python), "-m", "pip", "install", "--quiet", *REQUIREMENTS])
        done.touch()
    with tempfile.TemporaryDirectory() as directory:
        log, top = Path(directory) / "log.csv", Path(directory) / "top.csv"
        left = events.starts[events.user + 1] - 1 - np.arange(len(events))
        pd.DataFrame({"user": events.user, "item": events.item, "left": left}).to_csv(log, index=False)
        script = Path(__file__).with_name("sasrec.py")
        print(_run([str(python), str(script), str(log), str(top), str(seed), str(epochs)]).strip())
        found = pd.read_csv(top)
    ranks = np.full((events.num_users, TOP), -1)
    ranks[found["user"], found["rank"] - 1] = found["item"]
    return ranks


def _run(command: list[str]) -> str:
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        raise DataError(f"{' '.join(command[:4])} failed: {(result.stderr or result.stdout)[-1500:]}")
    return result.stdout


def gains(top: np.ndarray, events: Events) -> np.ndarray:
    """NDCG@10 of each user, [U]: 1 / log2(1 + rank) of the last item, 0 beyond the top 10."""
    return ((top == events.last()[:, None]) / np.log2(np.arange(2, top.shape[1] + 2))).sum(1)


def report(tops: dict[str, np.ndarray], events: Events) -> dict[str, dict[str, float]]:
    """Prints NDCG@10 with intervals over users, paired differences; returns NDCG@10 and Recall@10."""
    ndcg = {name: gains(top, events) for name, top in tops.items()}
    users, out = np.arange(events.num_users), {}
    for name, values in ndcg.items():
        each = statistics.mean(values, users, np.random.default_rng(0), draws=1000)
        out[name] = {"ndcg@10": round(each.value, 4), "recall@10": round(float((values > 0).mean()), 4)}
        print(f"{name:12} NDCG@10 {each.value:.4f} ({each.low:.4f} to {each.high:.4f})  {out[name]['recall@10']:.4f}")
    for name in (name for name in ndcg if name != "preference"):
        each = statistics.mean(ndcg["preference"] - ndcg[name], users, np.random.default_rng(0), draws=1000)
        print(f"preference - {name}: {each.value:+.4f} ({each.low:+.4f} to {each.high:+.4f})")
    return out


def default_config() -> ModelConfig:
    """The preference model for next films; chosen on validation events alone."""
    return ModelConfig(network=NetworkConfig(dropout=0.3))


def main(arguments: list[str] | None = None) -> int:
    """The command line; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--no-baselines", action="store_true", help="the preference model alone")
    parser.add_argument("--no-text", action="store_true", help="events alone: no titles, genres, people")
    parser.add_argument("--epochs", type=int, help="length of the preference model's learning-rate schedule")
    parser.add_argument("--sasrec-epochs", type=int, default=100, help="most epochs of SASRec")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    try:
        log = recgym.data.load("ml-100k")
        events = as_events(log)
        config = default_config()
        if options.epochs:
            config = config.model_copy(update={"next_item": NextItemConfig(epochs=options.epochs)})
        started = time.perf_counter()
        scores = preference(events, side_information(log, not options.no_text), config, options.seed)
        print(f"preference: trained and scored in {time.perf_counter() - started:.0f} s")
        tops = {"preference": top_items(scores, events)}
        if not options.no_baselines:
            tops["popularity"] = top_items(popularity(events), events)
            tops["sasrec"] = sasrec(events, options.seed, options.sasrec_epochs)
        result = report(tops, events)
    except RecGymError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.exit(main())
