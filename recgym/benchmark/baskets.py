"""What the next-basket benchmark reads: logs in The Complete Journey's columns, and times of baskets to predict."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from recgym.data import schema
from recgym.data.sources.completejourney import READ
from recgym.errors import DataError

HOUSEHOLD, TIME = "household_id", "transaction_timestamp"
IDS = (HOUSEHOLD, "basket_id", "product_id")
EARLIEST = pd.Timestamp("1980-01-01")  # times that were written in another unit come out near 1970
DAY = pd.Timedelta(days=1)


def read_log(path: Path) -> pd.DataFrame:
    """A checked log: ids int64, amounts float64 and not negative, times datetime64[ns]; other columns as they are.

    Basket ids need to be unique within a household only. Rows that repeat another in every column are dropped and
    counted on standard output.

    Raises:
        DataError: naming the file, and row, column and value of what is not valid.
    """
    # A day of slack: the stores may be ahead of this machine's clock.
    frame = _read(path, READ, pd.Timestamp.now() + DAY)
    try:
        again = frame.duplicated()
    except TypeError as error:
        raise DataError(f"{path}: columns must hold plain values, no lists or mappings: {error}") from error
    if again.any():
        print(f"{path}: {int(again.sum())} rows dropped that repeat another one in every column")
    return frame[~again].reset_index(drop=True)


def read_times(path: Path, end: pd.Timestamp) -> pd.Series:
    """The time of the basket to predict by household, datetime64[ns], from a file with one row a household.

    Args:
        path: parquet with household_id and transaction_timestamp.
        end: of the log; a basket to predict lies at most a year later.

    Raises:
        DataError: as ``read_log``, or a household comes twice.
    """
    frame = _read(path, (HOUSEHOLD, TIME), end + 366 * DAY)
    twice = frame[HOUSEHOLD].duplicated()
    if twice.any():
        raise DataError(f"{path}: household {frame[HOUSEHOLD][twice].iloc[0]} has more than one time to predict")
    return frame.set_index(HOUSEHOLD)[TIME]


def _read(path: Path, columns: tuple[str, ...], latest: pd.Timestamp) -> pd.DataFrame:
    """A parquet file with ``columns``, those checked and of one type each; others as they are."""
    try:
        frame = pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as parquet: {error}") from error
    missing = [name for name in columns if name not in frame]
    if missing:
        raise DataError(f"{path} lacks {', '.join(missing)}; it has {', '.join(map(str, frame.columns))}")
    if frame.empty:
        raise DataError(f"{path} holds no rows")
    checked = {}
    for name in columns:
        values = frame[name].reset_index(drop=True)
        if isinstance(values.dtype, pd.CategoricalDtype):
            values = values.astype(values.dtype.categories.dtype)
        if name == TIME:
            checked[name] = _moments(values, latest, str(path))
        elif name in IDS:
            checked[name] = _ids(values, str(path))
        else:
            checked[name] = _amounts(values, str(path))
    return frame.reset_index(drop=True).assign(**checked)


def _ids(values: pd.Series, file: str) -> np.ndarray:
    """Whole numbers, as products are numbered in the table of the data set and households in the predictions."""
    ids = schema.ids(values, column=str(values.name), file=file)
    if ids.dtype != np.int64:
        schema.fail(file, 1, str(values.name), values.iloc[0], "an id must be a whole number, not text")
    return ids


def _amounts(values: pd.Series, file: str) -> np.ndarray:
    numbers = pd.to_numeric(values, errors="coerce").to_numpy(np.float64, na_value=np.nan)
    odd = ~(np.isfinite(numbers) & (numbers >= 0))
    if odd.any():
        row = int(odd.argmax())
        schema.fail(file, row + 1, str(values.name), values.iloc[row], "must be a number, at least 0")
    return numbers


def _moments(values: pd.Series, latest: pd.Timestamp, file: str) -> pd.Series:
    """Times of the stores' own clocks; where all name one and the same zone, it is left away."""
    column = str(values.name)
    if pd.api.types.is_numeric_dtype(values.dtype):
        schema.fail(file, 1, column, values.iloc[0], "must be a time or text; a number does not say its unit")
    times = values
    if not pd.api.types.is_datetime64_any_dtype(values.dtype):
        try:
            times = pd.to_datetime(values, errors="coerce", format="ISO8601")
        except ValueError as error:
            raise DataError(f"{file}, column {column!r}: times must all name the same time zone, or none") from error
    times = times.dt.tz_localize(None)
    odd = ~times.between(EARLIEST, latest)  # what is no time is not between them either
    if odd.any():
        row = int(odd.argmax())
        problem = f"must be a time from {EARLIEST:%Y-%m-%d} to {latest:%Y-%m-%d}, as 2017-12-31 18:30:00"
        schema.fail(file, row + 1, column, values.iloc[row], problem)
    return times.dt.as_unit("ns")
