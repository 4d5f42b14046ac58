"""Next-basket ranking on The Complete Journey: the preference model beside three baselines, on the same split.

    python benchmarks/next_basket.py --predictions out.parquet
    python benchmarks/next_basket.py --log log.parquet --at at.parquet --predictions out.parquet

Without ``--log``, the whole year is taken: items bought by at least 20 households, households with at least 5 baskets,
each household's last basket held out. It is scored once, at the end; the second-last basket is for validation, which
stops the training of the model and tunes the baselines. With ``--log``, the file (the data set's transaction columns)
holds no held-out basket: its last baskets are for validation, and the predictions are written for others to score.
``--at`` gives household_id and transaction_timestamp of the baskets to predict, at most a year after the log; a
household that it leaves out, or without the file every household, is predicted on the day of its last basket plus its
median gap.

The output holds household, item (both as in the log) and score for the 100 best items of every household, best first.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy import sparse

from recgym.benchmark.baskets import read_log, read_times
from recgym.benchmark.options import at_least
from recgym.data.interactions import Interactions
from recgym.data.sources import completejourney
from recgym.errors import DataError, RecGymError
from recgym.evaluation.store import atomically
from recgym.user_models.preference.metrics import ndcg_and_recall
from recgym.user_models.preference.training import Trainer
from recgym.user_models.preference.trips import Trips
from recgym.worlds.build import item_texts, training_data
from recgym.worlds.prepare import Prepared, prepare
from recgym.worlds.recipes import ecommerce

MIN_ITEM_USERS, MIN_BASKETS = 20, 5
TOP = 100


# ---------------------------------------------------------------------- the log


def expected_times(log: pd.DataFrame) -> pd.Series:
    """Each household's last basket plus its median gap between baskets; a week where it made one basket alone."""
    baskets = log.groupby(["household_id", "basket_id"])["transaction_timestamp"].min().reset_index()
    baskets = baskets.sort_values(["household_id", "transaction_timestamp"])
    baskets["gap"] = baskets.groupby("household_id")["transaction_timestamp"].diff()
    told = baskets.groupby("household_id").agg({"transaction_timestamp": "max", "gap": "median"})
    return told["transaction_timestamp"] + told["gap"].fillna(pd.Timedelta(days=7))


def hold_out(transactions: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The filtered log without, and alone with, each household's last basket."""
    kept = transactions[transactions["quantity"] > 0]
    buyers = kept.groupby("product_id")["household_id"].nunique()
    kept = kept[kept["product_id"].isin(buyers.index[buyers >= MIN_ITEM_USERS])]
    made = kept.groupby("household_id")["basket_id"].nunique()
    kept = kept[kept["household_id"].isin(made.index[made >= MIN_BASKETS])]
    if kept.empty:
        raise DataError("no household is left after the filters")
    order = kept.sort_values(["household_id", "transaction_timestamp", "basket_id"], kind="stable")
    last = order.groupby("household_id")["basket_id"].transform("last") == order["basket_id"]
    return order[~last], order[last]


def prepared_log(log: pd.DataFrame, times: pd.Series, min_item_users: int) -> Prepared:
    """The log as the world build prepares it, with the trips to predict at the end of each history."""
    directory = completejourney.fetch()
    products = pd.read_parquet(directory / "products.parquet")
    demographics = pd.read_parquet(directory / "demographics.parquet")
    events: Interactions = completejourney.from_tables(log, products, demographics)
    first = log["transaction_timestamp"][log["quantity"] > 0].min().normalize()
    days = (times - first).dt.days
    days.index = days.index.astype(events.users.index.dtype)
    recipe = ecommerce(every_item=True, min_item_users=min_item_users, min_user_trips=MIN_BASKETS - 1)
    return prepare(events, recipe, days)


# ---------------------------------------------------------------------- baselines


@dataclass(frozen=True, eq=False)
class Histories:
    """What each of U users bought before a target trip."""

    user: np.ndarray  # [E] int64
    item: np.ndarray  # [E] int64
    number: np.ndarray  # [E] int64 place of the trip in the history, from 0
    length: np.ndarray  # [U] int64 trips in the history
    shape: tuple[int, int]

    @classmethod
    def before(cls, trips: Trips, last: int) -> Histories:
        """All but each user's last ``last`` trips."""
        past = trips.select(trips.before_last(last))
        return cls(
            past.trip_user[past.trip],
            past.item,
            past.number[past.trip],
            np.diff(past.users),
            (trips.num_users, trips.num_items),
        )

    def matrix(self, weight: np.ndarray | None = None) -> sparse.csr_matrix:
        """Summed weights (1 each by default) by user and item, float32 [U, N]."""
        weight = np.ones(len(self.user)) if weight is None else weight
        return sparse.csr_matrix((weight.astype(np.float32), (self.user, self.item)), self.shape)


def popularity(histories: Histories) -> np.ndarray:
    """Every user's scores are the purchases of all users, [U, N]."""
    counts = np.bincount(histories.item, minlength=histories.shape[1]).astype(np.float32)
    return np.broadcast_to(counts, histories.shape)


def personal_frequency(histories: Histories) -> np.ndarray:
    """Trips of the user with the item; popularity breaks ties and ranks the rest, [U, N]."""
    overall = popularity(histories)
    return histories.matrix().toarray() + overall / (overall.max() + 1)


def tifu_vectors(histories: Histories, groups: int, within: float, between: float, whole: bool) -> sparse.csr_matrix:
    """User vectors of TIFU-KNN (Hu et al., SIGIR 2020), [U, N].

    A history is cut into ``groups`` groups of equal size. A basket counts ``within`` to the power of its distance from
    the end, of its group as in the paper or, with ``whole``, of the history as in the authors' code; groups are
    averaged, then counted ``between`` to the power of their distance from the last, and averaged.
    """
    number, length = histories.number, histories.length[histories.user]
    count = np.minimum(groups, length)
    small, larger = length // count, length % count  # the last ``larger`` groups hold one basket more
    cut = (count - larger) * small
    late = number >= cut
    group = np.where(late, count - larger + (number - cut) // (small + 1), number // small)
    size = np.where(late, small + 1, small)
    place = np.where(late, (number - cut) % (small + 1), number % small)
    distance = length - 1 - number if whole else size - 1 - place
    return histories.matrix(within**distance * between ** (count - 1 - group) / size / count)


def nearest(vectors: sparse.csr_matrix, most: int) -> np.ndarray:
    """Each user's nearest others by Euclidean distance, nearest first, int64 [U, most]."""
    products = (vectors @ vectors.T).toarray()
    norms = np.diag(products)
    distances = norms[:, None] + norms[None] - 2 * products
    np.fill_diagonal(distances, np.inf)
    return np.argsort(distances, axis=1, kind="stable")[:, :most]


def tifu_scores(vectors: sparse.csr_matrix, order: np.ndarray, neighbours: int, own: float) -> np.ndarray:
    """``own`` times the user's vector plus the rest times the mean of the neighbours' vectors, [U, N]."""
    users = len(order)
    rows = np.repeat(np.arange(users), neighbours)
    mean = sparse.csr_matrix(
        (np.full(len(rows), 1 / neighbours, np.float32), (rows, order[:, :neighbours].ravel())), (users, users)
    )
    return (own * vectors + (1 - own) * (mean @ vectors)).toarray()


def tuned_tifu(trips: Trips) -> tuple[np.ndarray, dict[str, float | int | bool]]:
    """Scores of TIFU-KNN before the test trips, its parameters chosen by NDCG@10 on the validation trips."""
    validation = np.flatnonzero(trips.trip_user_remaining == 1)
    past = Histories.before(trips, 2)
    most = min(900, trips.num_users - 1)

    def score(vectors: sparse.csr_matrix, order: np.ndarray, neighbours: int, own: float) -> float:
        scores = tifu_scores(vectors, order, neighbours, own)
        return float(ndcg_and_recall(torch.from_numpy(scores), trips, validation)[0].mean())

    best: tuple[float, tuple[int, float, float, bool]] = (-1.0, (7, 0.9, 0.7, False))
    for shape in itertools.product((2, 3, 5, 7), (0.9, 0.97, 1.0), (0.5, 0.7, 0.9), (False, True)):
        if shape[1] == 1.0 and shape[3]:
            continue  # without decay within groups, both readings agree
        vectors = tifu_vectors(past, *shape)
        best = max(best, (score(vectors, nearest(vectors, most), min(300, most), 0.3), shape))
    vectors = tifu_vectors(past, *best[1])
    order = nearest(vectors, most)
    choices = itertools.product(
        sorted({min(k, most) for k in (50, 100, 300, 600, 900)}), (0.1, 0.2, 0.3, 0.5, 0.7, 0.9)
    )
    found, neighbours, own = max((score(vectors, order, k, a), k, a) for k, a in choices)
    groups, within, between, whole = best[1]
    chosen = {
        "groups": groups, "within": within, "between": between, "decay over the whole history": whole,
        "neighbours": neighbours, "own": own, "validation NDCG@10": round(found, 4),
    }  # fmt: skip
    vectors = tifu_vectors(Histories.before(trips, 1), *best[1])
    return tifu_scores(vectors, nearest(vectors, most), neighbours, own), chosen


# ---------------------------------------------------------------------- the model, scoring and the command line


def model_scores(
    prepared: Prepared, epochs: dict[str, int], seed: int, directory: Path
) -> tuple[np.ndarray, dict[str, float]]:
    """The preference model, trained as the world build trains it.

    Returns:
        Its logits before the test trips, [U, N], and its NDCG@10 and Recall@10 on the validation trips.
    """
    recipe = ecommerce(every_item=True)
    config = recipe.model.model_copy(update={"training": recipe.model.training.model_copy(update=epochs)})
    last = ""

    def report(what: str, share: float) -> None:
        nonlocal last
        if what != last or share >= 1:
            print(f"{what}: {share:.0%}", file=sys.stderr, flush=True)
            last = what

    text, _ = item_texts(prepared, recipe, directory / "text", report)
    trainer = Trainer(training_data(prepared, recipe, text), config, seed, directory, report)
    trainer.run()
    targets = np.flatnonzero(prepared.trips.trip_user_remaining == 0)
    validation = {name: round(value, 4) for name, value in trainer.evaluate().items() if "@" in name}
    return trainer.catalogue_logits(targets).numpy(), validation


def check_writable(path: Path) -> None:
    """Makes the directory of ``path``; raises a DataError where no file can be written there."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path.parent).close()
    except OSError as error:
        raise DataError(f"--predictions {path} cannot be written: {error}") from error
    if path.is_dir():
        raise DataError(f"--predictions {path} is a directory; give the file to write")


def predictions(scores: np.ndarray, prepared: Prepared, times: pd.Series) -> pd.DataFrame:
    """The best items of every household to predict; of those that the filters left out, the most popular ones."""
    ids = prepared.items["item_id"].to_numpy().astype(np.int64)
    households = prepared.users["user_id"].to_numpy().astype(np.int64)
    row = {household: number for number, household in enumerate(households)}
    popular = prepared.items["popularity"].to_numpy(np.float32)
    parts = []
    for household in times.index:
        values = scores[row[household]] if household in row else popular
        best = np.argsort(-values, kind="stable")[:TOP]
        parts.append(pd.DataFrame({"household": int(household), "item": ids[best], "score": values[best]}))
    unknown = sum(household not in row for household in times.index)
    if unknown:
        print(f"{unknown} households with fewer than {MIN_BASKETS - 1} baskets are given the most popular items")
    return pd.concat(parts, ignore_index=True)


def interval(values: np.ndarray, seed: int = 0, draws: int = 2000) -> list[float]:
    """Mean and 95% bootstrap interval over households."""
    rng = np.random.default_rng(seed)
    means = np.array([values[rng.integers(0, len(values), len(values))].mean() for _ in range(draws)])
    return [round(float(v), 4) for v in (values.mean(), *np.quantile(means, (0.025, 0.975)))]


def evaluate(scores: dict[str, np.ndarray], trips: Trips, held: pd.DataFrame, prepared: Prepared) -> dict[str, object]:
    """NDCG@10 and Recall@10 of each method on the held-out baskets, and the model's margin over each baseline."""
    item = {int(name): row for row, name in enumerate(prepared.items["item_id"])}
    user = {int(name): row for row, name in enumerate(prepared.users["user_id"])}
    baskets = held.assign(item=held["product_id"].map(item), user=held["household_id"].map(user))
    unknown = int(baskets["item"].isna().sum())
    if unknown:
        print(f"{unknown} held-out purchases of items that nobody bought before: counted as misses")
    discount = 1 / np.log2(np.arange(10) + 2)
    sizes = held.groupby(held["household_id"].map(user))["product_id"].nunique().to_numpy()
    known = baskets.dropna(subset=["item"])
    bought = np.zeros((trips.num_users, trips.num_items), bool)
    bought[known["user"].to_numpy(np.int64), known["item"].to_numpy(np.int64)] = True
    ndcg, recall = {}, {}
    for name, values in scores.items():
        top = torch.sort(torch.from_numpy(values), dim=1, descending=True, stable=True).indices[:, :10].numpy()
        hits = np.take_along_axis(bought, top, axis=1)
        ndcg[name] = (hits * discount[: hits.shape[1]]).sum(1) / np.cumsum(discount)[np.minimum(sizes, 10) - 1]
        recall[name] = hits.sum(1) / sizes
    result: dict[str, object] = {
        name: {"ndcg@10": interval(ndcg[name]), "recall@10": interval(recall[name])} for name in scores
    }
    for name in scores:
        if name != "preference":
            better = interval(ndcg["preference"] - ndcg[name])
            ratio = round(float(ndcg["preference"].mean() / ndcg[name].mean()), 4)
            result[f"preference above {name}"] = {"ndcg@10": better, "ratio": ratio}
    return result


def run(arguments: argparse.Namespace) -> dict[str, object]:
    """The whole benchmark; returns what is printed last."""
    check_writable(arguments.predictions)  # now, rather than after the training
    held = None
    if arguments.log is None:
        source = completejourney.fetch() / "transactions.parquet"
        log, held = hold_out(read_log(source))
        times, item_users = held.groupby("household_id")["transaction_timestamp"].min(), 1
    else:
        log, item_users = read_log(arguments.log), MIN_ITEM_USERS
        times = expected_times(log)
    if arguments.at is not None:
        told = read_times(arguments.at, log["transaction_timestamp"].max())
        unknown = ~told.index.isin(times.index)
        if unknown.any():
            print(f"{int(unknown.sum())} households of {arguments.at} are not in the log")
        times = told.combine_first(times).astype("datetime64[ns]")
    prepared = prepared_log(log, times, item_users)
    for part in prepared.filters:
        print(f"filter: {part.reason}: {part.count} ({part.detail})")
    trips = prepared.trips
    print(f"{trips.num_users} households, {trips.num_items} items, {len(trips.item)} purchases before the test baskets")
    names = ("pretrain_epochs", "finetune_epochs")
    epochs = {name: getattr(arguments, name) for name in names if getattr(arguments, name) is not None}
    result: dict[str, object] = {"households": trips.num_users, "items": trips.num_items, "seed": arguments.seed}
    result |= epochs
    with tempfile.TemporaryDirectory() as temporary:
        logits, validation = model_scores(prepared, epochs, arguments.seed, arguments.work or Path(temporary))
    scores, result["validation"] = {"preference": logits}, validation
    best = predictions(logits, prepared, times)
    atomically(arguments.predictions, lambda file: best.to_parquet(file, index=False))
    if arguments.baselines:
        past = Histories.before(trips, 1)
        scores |= {"popularity": popularity(past).copy(), "personal_frequency": personal_frequency(past)}
        scores["tifu_knn"], result["tifu_knn parameters"] = tuned_tifu(trips)
    if held is not None:
        result |= evaluate(scores, trips, held, prepared)
    return result


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--log", type=Path, help="parquet with the data set's transaction columns, no held-out basket")
    parser.add_argument("--at", type=Path, help="parquet: household_id, transaction_timestamp of the basket to predict")
    parser.add_argument("--predictions", type=Path, required=True, help="parquet to write: household, item, score")
    parser.add_argument("--no-baselines", dest="baselines", action="store_false", help="the model alone")
    parser.add_argument("--seed", type=at_least(0), default=0)
    parser.add_argument(
        "--work", type=Path, help="directory of checkpoints; training goes on from those that lie there"
    )
    parser.add_argument("--pretrain-epochs", type=at_least(0), help="the world build's number by default")
    parser.add_argument("--finetune-epochs", type=at_least(1), help="likewise")
    try:
        print(json.dumps(run(parser.parse_args())))
    except RecGymError as error:
        raise SystemExit(f"error: {error}") from error


if __name__ == "__main__":
    main()
