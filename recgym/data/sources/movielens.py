"""MovieLens 1M (``ratings.dat``) and 25M (``ratings.csv``): film ratings with time stamps, titles and genres."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from recgym.data.files import read_table
from recgym.data.interactions import Interactions, SourceInfo
from recgym.data.sources.layouts import find, made
from recgym.errors import DataError

URL = "https://grouplens.org/datasets/movielens/"
LICENCE = "GroupLens: research use; no redistribution without permission"
CITATION = "F. M. Harper, J. A. Konstan (2015), The MovieLens Datasets: History and Context, ACM TiiS 5(4)"


def read_1m(directory: Path) -> Interactions:
    """The log of ``ratings.dat``, ``movies.dat`` and ``users.dat``: fields between ``::``, Latin-1.

    The fields are those that RecBole's converter reads (RecSysDatasets, ``extended_dataset.py``).

    Raises:
        DataError: naming file, row and what is wrong.
    """
    files = [find(directory, f"{name}.dat", url=URL) for name in ("ratings", "movies", "users")]
    ratings = _double_colon(files[0], ["user", "item", "rating", "time"]).apply(_numbers, file=files[0])
    films = _double_colon(files[1], ["item", "title", "genres"])
    people = _double_colon(files[2], ["user", "gender", "age", "occupation", "zip"])
    films["item"] = _numbers(films["item"], files[1])
    people["user"] = _numbers(people["user"], files[2])
    source = SourceInfo("ml-1m", URL + "1m/", LICENCE, CITATION)
    return made(
        ratings, source, files, items=_described(films), text=("title", "genres"), users=people.drop(columns="zip")
    )


def read_25m(directory: Path) -> Interactions:
    """The log of ``ratings.csv`` and ``movies.csv`` (20M, 25M, 32M and "latest" are laid out alike)."""
    files = [find(directory, f"{name}.csv", url=URL) for name in ("ratings", "movies")]
    ratings = read_table(files[0], ["userId", "movieId", "rating", "timestamp"])
    ratings.columns = pd.Index(["user", "item", "rating", "time"])
    films = read_table(files[1], ["movieId", "title", "genres"]).rename(columns={"movieId": "item"})
    source = SourceInfo("ml-25m", URL + "25m/", LICENCE, CITATION)
    return made(ratings, source, files, items=_described(films), text=("title", "genres"))


def _described(films: pd.DataFrame) -> pd.DataFrame:
    films["category"] = films["genres"].str.partition("|")[0]
    films["genres"] = films["genres"].str.replace("|", " ", regex=False)
    return films


def _double_colon(path: Path, columns: list[str]) -> pd.DataFrame:
    lines = path.read_text(encoding="latin-1").split("\n")
    rows = [line.rstrip("\r").split("::") for line in (lines[:-1] if lines[-1] == "" else lines)]
    for number, row in enumerate(rows, start=1):
        if len(row) != len(columns):
            raise DataError(f"{path}, row {number}: expected {len(columns)} fields by '::', got {len(row)}: {row!r}")
    if not rows:
        raise DataError(f"{path}: no data rows")
    return pd.DataFrame(rows, columns=columns)


def _numbers(values: pd.Series, file: Path) -> pd.Series:
    numbers = pd.to_numeric(values, errors="coerce")
    if numbers.isna().any():
        row = int(numbers.isna().to_numpy().argmax())
        raise DataError(f"{file}, row {row + 1}, column {values.name!r}: must be a number, got {values.iloc[row]!r}")
    return numbers
