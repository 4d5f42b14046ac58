"""What the benchmarks on ratings share: files in MovieLens ``u.data`` format, side information, baselines, errors."""

from __future__ import annotations

import importlib
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

import recgym.data
from recgym.errors import DataError, RecGymError
from recgym.evaluation import statistics
from recgym.user_models.preference.sides import Sides, indicator_columns
from recgym.user_models.preference.text import encode_texts

COLUMNS = ("user", "item", "rating", "time")
BASELINES = {"svdpp": "SVDpp", "svd": "SVD"}  # key of the result, class of scikit-surprise


def read_ratings(path: Path) -> pd.DataFrame:
    """The ratings of a file in ``u.data`` format: whole-number user, item, rating (1 to 5) and time (seconds).

    Raises:
        DataError: naming the file, and the line and value where one is malformed.
    """
    if not path.is_file():
        raise DataError(f"there is no file {str(path)!r}")
    latest = time.time() + 86_400  # a day of slack for other clocks
    rows = []
    for number, line in enumerate(path.read_bytes().split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            values = [int(value) for value in line.decode("ascii").rstrip("\r").split("\t")]
        except ValueError:
            raise DataError(f"{path}, line {number}: all fields must be whole numbers: {line!r}") from None
        if len(values) != len(COLUMNS):
            raise DataError(
                f"{path}, line {number}: expected user, item, rating and time, tab-separated, got {len(values)} "
                f"fields: {line!r}"
            )
        user, item, rating, seconds = values
        if not 1 <= rating <= 5:
            raise DataError(f"{path}, line {number}: rating {rating} is not 1, 2, 3, 4 or 5")
        if not 0 <= seconds <= latest:
            raise DataError(f"{path}, line {number}: time {seconds} is not in seconds from 1970 to now ({latest:.0f})")
        if max(abs(user), abs(item)) >= 2**63:
            raise DataError(f"{path}, line {number}: user and item must fit in 64 bits: {line!r}")
        rows.append(values)
    if not rows:
        raise DataError(f"{path} holds no rating")
    return pd.DataFrame(rows, columns=list(COLUMNS))


def without(train: pd.DataFrame, test: pd.DataFrame) -> pd.DataFrame:
    """The training ratings without repeats (the last in time counts) and without pairs that the test file asks for.

    What is left out, and how often the test file asks for a pair again, is printed.
    """
    kept = train.sort_values("time", kind="stable").drop_duplicates(["user", "item"], keep="last").sort_index()
    asked = pd.MultiIndex.from_frame(test[["user", "item"]])
    leak = pd.MultiIndex.from_frame(kept[["user", "item"]]).isin(asked)
    if len(train) > len(kept):
        print(f"left out of training: {len(train) - len(kept)} repeated ratings, the last of each pair counts")
    if (again := test.duplicated(["user", "item"])).any():
        print(f"the test file asks again for pairs that it has already: {again.sum()} ratings; each of them counts")
    if leak.any():
        print(f"left out of training: {leak.sum()} ratings whose user and item are in the test file too")
    if leak.all():
        raise DataError("no training rating is left: all of their users and items are in the test file too")
    return kept[~leak].reset_index(drop=True)


def side_information(users: pd.Index, items: pd.Index, described: bool) -> Sides:
    """Texts and attributes of the ids ``users`` and ``items``, from MovieLens-100K unless ``described`` is off.

    Raises:
        DataError: they cannot be fetched, or there is no text encoder.
    """
    if not described:
        return Sides(torch.zeros(len(items), 1), torch.zeros(len(items), 1), torch.zeros(len(users), 1))
    try:
        log = recgym.data.load("ml-100k")  # only what it says of films and people is read, never its ratings
        films, people = log.items.reindex(items), log.users.reindex(users)
        text = encode_texts(films["text"].fillna("").tolist())
    except RecGymError as error:
        raise DataError(f"{error}. --no-text does without titles, genres and people") from error
    return Sides(
        text=text * torch.tensor(films["text"].notna().to_numpy(np.float32))[:, None],
        items=indicator_columns(films, ["genres", "release_year"]),
        users=indicator_columns(people, ["age", "gender", "occupation"]),
    )


def read_split(train: Path, test: Path, baselines: bool) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Ratings to train on, without those that are tested, and ratings to test on.

    Args:
        train: file in ``u.data`` format.
        test: the same.
        baselines: whether ``baseline`` is needed later; what it needs is asked for now, before anything is trained.

    Raises:
        DataError: see ``read_ratings``, ``without`` and ``baseline``.
    """
    if baselines:
        _surprise()
    tested = read_ratings(test)
    return without(read_ratings(train), tested), tested


def _surprise() -> Any:
    try:
        return importlib.import_module("surprise")
    except ImportError as error:
        raise DataError("baselines need scikit-surprise: pip install recgym[bench], or --no-baselines") from error


def baseline(name: str, train: pd.DataFrame, test: pd.DataFrame, seed: int) -> np.ndarray:
    """Ratings predicted by SVD or SVD++ of scikit-surprise with its default settings.

    Raises:
        DataError: scikit-surprise is not installed.
    """
    surprise = _surprise()
    reader = surprise.Reader(rating_scale=(1, 5))
    data = surprise.Dataset.load_from_df(train[["user", "item", "rating"]], reader).build_full_trainset()
    model = getattr(surprise, BASELINES[name])(random_state=seed)
    model.fit(data)
    pairs = zip(test["user"], test["item"], strict=True)
    return np.array([model.predict(user, item).est for user, item in pairs])


@dataclass(frozen=True, eq=False)
class Errors:
    """Errors of predictions, and intervals clustered by user."""

    error: np.ndarray  # [Q]
    users: np.ndarray  # [Q]

    def summary(self) -> dict[str, float]:
        """RMSE and MAE."""
        return {
            "rmse": round(float(np.sqrt(np.mean(self.error**2))), 4),
            "mae": round(float(np.mean(np.abs(self.error))), 4),
        }

    def interval(self) -> str:
        """95% interval of the RMSE over resampled users, in words."""
        return _words(statistics.mean(self.error**2, self.users, np.random.default_rng(0), draws=1000))

    def ratio(self, other: Errors) -> str:
        """RMSE over that of ``other``, and its interval, in words; paired by rating, resampled by user."""
        if not other.error.any():
            return "undefined, the latter makes no error"
        top, bottom = self.error[:, None] ** 2, other.error[:, None] ** 2
        square = statistics.ratios(top, bottom, self.users, np.random.default_rng(0), draws=1000)[0]
        return f"{np.sqrt(square.value):.4f} ({_words(square)})"


def _words(square: statistics.Estimate) -> str:
    if np.isnan(square.low + square.high):
        return "too few users"
    return f"{np.sqrt(square.low):.4f} to {np.sqrt(square.high):.4f}"
