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
from recgym.data.interactions import Interactions
from recgym.errors import DataError, RecGymError
from recgym.evaluation import statistics
from recgym.paths import recgym_home
from recgym.user_models.preference.config import ModelConfig, NetworkConfig, TrainingConfig
from recgym.user_models.preference.sides import indicator_columns
from recgym.user_models.preference.text import encode_texts
from recgym.user_models.preference.training import Trainer, TrainingData
from recgym.user_models.preference.trips import Trips

TOP = 10
REQUIREMENTS = ("rectools[torch]==0.19.0", "numpy<2")


def events(log: Interactions) -> pd.DataFrame:
    """The log's events by user and time, with ``left``: how many events the user makes after each.

    Raises:
        DataError: a user has fewer than three events: nothing to train on, to validate and to test.
    """
    frame = pd.DataFrame({"user": log.user_rows, "item": log.item_rows, "day": np.floor(log.days).astype(np.int64)})
    frame["rating"] = np.rint(log["rating"]).astype(np.int64) if "rating" in log else 1
    frame = frame.iloc[np.argsort(log.days, kind="stable")].sort_values("user", kind="stable").reset_index(drop=True)
    frame["left"] = frame.groupby("user").cumcount(ascending=False)
    short = frame.groupby("user").size() < 3
    if short.any():
        raise DataError(f"{short.sum()} users have fewer than 3 events, user row {short.idxmax()} the first of them")
    return frame


def preference(log: Interactions, frame: pd.DataFrame, config: ModelConfig, seed: int, described: bool) -> np.ndarray:
    """The preference model's scores of every item before each user's last event, [U, N]; one event is one trip."""
    num_users, num_items = int(frame["user"].max()) + 1, len(log.items)
    count = len(frame)
    trips = Trips(
        item=frame["item"].to_numpy(np.int64, copy=True),
        feedback=frame["rating"].to_numpy(np.int64, copy=True),
        trip=np.arange(count),
        trip_user=frame["user"].to_numpy(np.int64, copy=True),
        trip_day=frame["day"].to_numpy(np.int64, copy=True),
        num_users=num_users,
        num_items=num_items,
    )
    popularity = np.bincount(frame["item"][frame["left"] > 1], minlength=num_items)
    statistics_ = np.stack((np.full(num_items, 30.0), np.log1p(popularity)), axis=1)
    data = TrainingData(
        trips=trips,
        text=encode_texts(log.items["text"].tolist()) if described else torch.zeros(num_items, 1),
        item_attributes=indicator_columns(log.items, ["genres", "release_year"] if described else []),
        user_attributes=indicator_columns(log.users, ["age", "gender", "occupation"] if described else []),
        item_statistics=torch.from_numpy(statistics_.astype(np.float32)),
        ratings=True,
    )
    with tempfile.TemporaryDirectory() as directory:
        trainer = Trainer(data, config, seed, Path(directory))
        trainer.pretrain()
        for row in trainer.history:
            print(f"epoch {row['epoch']}: validation NDCG@10 {row['ndcg@10']:.4f}, {row['seconds']} s", file=sys.stderr)
        return trainer.catalogue_logits(np.flatnonzero(trips.trip_user_remaining == 0)).numpy()


def popularity(frame: pd.DataFrame, num_items: int) -> np.ndarray:
    """Scores [U, N]: how often each item was rated before the last events."""
    counts = np.bincount(frame["item"][frame["left"] > 0], minlength=num_items).astype(np.float64)
    return np.broadcast_to(counts, (int(frame["user"].max()) + 1, num_items))


def top_items(scores: np.ndarray, frame: pd.DataFrame) -> np.ndarray:
    """The top 10 items [U, 10] of scores [U, N] among those that the user did not rate before; ties by item row."""
    scores = np.array(scores, np.float64)
    before = frame[frame["left"] > 0]
    scores[before["user"], before["item"]] = -np.inf
    return np.argsort(-scores, axis=1, kind="stable")[:, :TOP]


def sasrec(frame: pd.DataFrame, seed: int, epochs: int) -> np.ndarray:
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
        frame[["user", "item", "left"]].to_csv(log, index=False)
        script = Path(__file__).with_name("sasrec.py")
        print(_run([str(python), str(script), str(log), str(top), str(seed), str(epochs)]).strip())
        found = pd.read_csv(top)
    ranks = np.full((int(frame["user"].max()) + 1, TOP), -1)
    ranks[found["user"], found["rank"] - 1] = found["item"]
    return ranks


def _run(command: list[str]) -> str:
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        raise DataError(f"{' '.join(command[:4])} failed: {(result.stderr or result.stdout)[-1500:]}")
    return result.stdout


def gains(top: np.ndarray, frame: pd.DataFrame) -> np.ndarray:
    """NDCG@10 of each user, [U]: 1 / log2(1 + rank) of the last item, 0 beyond the top 10."""
    last = frame.loc[frame["left"] == 0].sort_values("user")["item"].to_numpy()
    return ((top == last[:, None]) / np.log2(np.arange(2, top.shape[1] + 2))).sum(1)


def report(tops: dict[str, np.ndarray], frame: pd.DataFrame) -> dict[str, dict[str, float]]:
    """Prints NDCG@10 with intervals over users, paired differences; returns NDCG@10 and Recall@10."""
    ndcg = {name: gains(top, frame) for name, top in tops.items()}
    users, out = np.arange(len(next(iter(ndcg.values())))), {}
    for name, values in ndcg.items():
        each = statistics.mean(values, users, np.random.default_rng(0), draws=1000)
        out[name] = {"ndcg@10": round(each.value, 4), "recall@10": round(float((values > 0).mean()), 4)}
        print(f"{name:12} NDCG@10 {each.value:.4f} ({each.low:.4f} to {each.high:.4f})  {out[name]['recall@10']:.4f}")
    for name in (name for name in ndcg if name != "preference"):
        each = statistics.mean(ndcg["preference"] - ndcg[name], users, np.random.default_rng(0), draws=1000)
        print(f"preference - {name}: {each.value:+.4f} ({each.low:+.4f} to {each.high:+.4f})")
    return out


def default_config() -> ModelConfig:
    """The preference model for next films."""
    return ModelConfig(
        network=NetworkConfig(dropout=0.3, window=50),
        training=TrainingConfig(pretrain_epochs=40, patience=5, learning_rate=2e-3),
    )


def main(arguments: list[str] | None = None) -> int:
    """The command line; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--no-baselines", action="store_true", help="the preference model alone")
    parser.add_argument("--no-text", action="store_true", help="events alone: no titles, genres, people")
    parser.add_argument("--epochs", type=int, help="most epochs of the preference model")
    parser.add_argument("--sasrec-epochs", type=int, default=100, help="most epochs of SASRec")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    try:
        log = recgym.data.load("ml-100k")
        frame = events(log)
        config = default_config()
        if options.epochs:
            changed = config.training.model_copy(update={"pretrain_epochs": options.epochs})
            config = config.model_copy(update={"training": changed})
        started = time.perf_counter()
        scores = preference(log, frame, config, options.seed, described=not options.no_text)
        print(f"preference: trained and scored in {time.perf_counter() - started:.0f} s")
        tops = {"preference": top_items(scores, frame)}
        if not options.no_baselines:
            tops["popularity"] = top_items(popularity(frame, len(log.items)), frame)
            tops["sasrec"] = sasrec(frame, options.seed, options.sasrec_epochs)
        result = report(tops, frame)
    except RecGymError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.exit(main())
