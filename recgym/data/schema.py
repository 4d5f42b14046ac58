"""The columns that an interaction log may have, and how raw values become canonical arrays."""

from __future__ import annotations

import datetime
import re
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, NoReturn

import numpy as np
import pandas as pd
from pandas.tseries.api import guess_datetime_format

from recgym.errors import DataError, nearest

Kind = Literal["id", "time", "integer", "number", "flag"]


@dataclass(frozen=True)
class Column:
    """One column of the schema: what it holds, in which unit, and which values are valid.

    Attributes:
        kind: ``id`` (int64 or text), ``time`` (datetime64[ns]), ``integer`` (int64), ``number`` (float64), ``flag``.
        unit: unit of the values, as printed by ``Interactions.describe``.
        low: smallest valid value; ``above`` makes it exclusive.
        high: largest valid value.
        optional: whether single values may be missing (NaN).
    """

    name: str
    kind: Kind
    unit: str
    meaning: str
    low: float | None = None
    high: float | None = None
    above: bool = False
    optional: bool = False


SCHEMA: dict[str, Column] = {
    column.name: column
    for column in (
        Column("user", "id", "id", "who acted"),
        Column("item", "id", "id", "on what"),
        Column("time", "time", "UTC or the log's local time", "when"),
        Column("order", "integer", "number", "number of the visit in the user's history", low=0),
        Column("gap_days", "number", "days", "days since the user's previous visit", low=0, optional=True),
        Column("basket", "id", "id", "the visit or order that the event belongs to"),
        Column("exposure", "flag", "bool", "the item was shown"),
        Column("click", "flag", "bool", "the item was clicked"),
        Column("rating", "number", "the log's own scale", "how the user rated the item", optional=True),
        Column("purchase", "flag", "bool", "the item was bought"),
        Column("quantity", "number", "units", "how many were bought", low=0),
        Column("price", "number", "currency per unit", "regular price of one unit", low=0, optional=True),
        Column(
            "discount", "number", "fraction of price", "how much the price was reduced", low=0, high=1, optional=True
        ),
        Column("dwell", "number", "seconds", "time spent on the item", low=0, optional=True),
        Column("position", "integer", "slots", "slot in which the item was shown, the first is 0", low=0),
        Column(
            "propensity", "number", "probability", "chance that the logging policy showed it", low=0, high=1, above=True
        ),
    )
}
REQUIRED = ("user", "item")
_CLOCK = re.compile(r"\d:\d\d(?::\d\d)?(?:[.,]\d+)?(?:\s*[AP]M)?\s*(?P<zone>Z|UTC|GMT|[+-]\d\d(?::?\d\d)?)?\s*$", re.I)
_YEAR_FIRST = re.compile(r"\s*\d{4}")
_YEAR_MONTH_DAY = re.compile(r"\s*\d{4}([-/.])(0?[1-9]|1[0-2])\1(0?[1-9]|[12]\d|3[01])(?!\d)")
ISO = "ISO8601"  # the notation of times that begin with the year
_HALF_DAY = re.compile(r"(?P<space>\s*)[AP]M$", re.I)
_CHUNK = 1 << 16  # rows of a column that are tried at once for its notation
_NO_CLOCK, _LOCAL, _NAMED = 0, 1, 2  # what a time says: a day alone, a time of day, a time of day and its zone


def fail(file: str, row: int | None, column: str, value: object, problem: str) -> NoReturn:
    """Raises the DataError for one bad value; ``row`` counts data rows from 1."""
    place = f"{file}, " + (f"row {row}, " if row is not None else "")
    raise DataError(f"{place}column {column!r}: {problem}, got {_shown(value)}")


def _shown(value: object) -> str:
    return repr(value.item() if isinstance(value, np.generic) and not isinstance(value, np.datetime64) else value)


def check_mapping(mapping: dict[str, str], columns: Iterable[str], file: str) -> None:
    """Checks that a mapping {schema key: column} has known keys, existing columns and what is required.

    Raises:
        DataError: naming the key or column, and the nearest valid one.
    """
    available = [str(column) for column in columns]
    for key, column in mapping.items():
        if key not in SCHEMA:
            raise DataError(f"{file}: unknown key {key!r} in mapping.{hint(key, SCHEMA)} Valid: {', '.join(SCHEMA)}.")
        if column not in available:
            raise DataError(
                f"{file}: no column {column!r} (mapped to {key!r}).{hint(str(column), available)} "
                f"Columns: {', '.join(available)}."
            )
    for key in REQUIRED:
        if key not in mapping:
            raise DataError(
                f"{file}: no column for {key!r}.{hint(key, available)} Map one: {key}=COLUMN. "
                f"Columns: {', '.join(available)}."
            )


def hint(name: str, valid: Iterable[str]) -> str:
    """`` Did you mean 'x'?``, or nothing where no valid name is near."""
    options = list(valid)
    folded = {option.lower(): option for option in options}
    guess = nearest(name.lower(), folded) or next((option for option in folded if name.lower() in option), None)
    return f" Did you mean {folded[guess]!r}?" if guess else ""


def canonical(
    values: pd.Series, key: str, *, column: str, file: str, time_unit: str = "D", time_format: str | None = None
) -> np.ndarray:
    """The values of one raw column as the canonical array of schema column ``key``.

    Args:
        values: the raw values, in file order.
        key: name of the schema column.
        column: what the column is called in the file, for messages.
        file: the file's name, for messages.
        time_unit: unit of numeric times since 1970-01-01: ``D``, ``h``, ``m``, ``s``, ``ms``, ``us`` or ``ns``.
        time_format: notation of text times, in the codes of ``strptime``; None: what ``notation`` finds.

    Raises:
        DataError: naming file, row, column and value of the first value that is not valid.
    """
    spec = SCHEMA[key]
    values = values.reset_index(drop=True)
    if isinstance(values.dtype, pd.CategoricalDtype):
        values = values.astype(values.dtype.categories.dtype)
    if spec.kind == "id":
        return ids(values, column=column, file=file)
    if spec.kind == "time":
        return times(values, column=column, file=file, unit=time_unit, time_format=time_format)
    if spec.kind == "flag":
        return _flags(values, column=column, file=file)
    return _numbers(values, spec, column=column, file=file)


def ids(values: pd.Series, *, column: str, file: str) -> np.ndarray:
    """Ids as int64 where all are whole numbers, otherwise as text (object array of str); never missing."""
    values = values.reset_index(drop=True)
    _no_missing(values, column, file, "an id must not be missing")
    if pd.api.types.is_bool_dtype(values.dtype):
        fail(file, 1, column, values.iloc[0] if len(values) else None, "an id must be a whole number or text")
    if pd.api.types.is_integer_dtype(values.dtype):
        if values.dtype.kind == "u" and len(values) and int(values.max()) > np.iinfo(np.int64).max:
            row = int(np.argmax(values.to_numpy() > np.iinfo(np.int64).max))
            fail(file, row + 1, column, values.iloc[row], "an id must fit in 64 bits")
        return values.to_numpy(dtype=np.int64, copy=True)
    if pd.api.types.is_float_dtype(values.dtype):
        array = values.to_numpy(dtype=np.float64)
        # Beyond 2^53 a float no longer tells neighbouring whole numbers apart: two users could become one.
        bad = ~np.isfinite(array) | (array != np.floor(array)) | (np.abs(array) > 2**53)
        if bad.any():
            row = int(np.argmax(bad))
            fail(file, row + 1, column, array[row], "an id must be a whole number or text")
        return array.astype(np.int64)
    if not (pd.api.types.is_string_dtype(values.dtype) or pd.api.types.is_object_dtype(values.dtype)):
        fail(file, 1, column, values.iloc[0] if len(values) else None, "an id must be a whole number or text")
    array = values.to_numpy(dtype=object, copy=True)
    if pd.api.types.infer_dtype(array, skipna=False) in ("string", "empty"):  # a loop in C, not one in Python
        if not all(value.strip() for value in pd.unique(array)):
            row = next(row for row, value in enumerate(array) if not value.strip())
            fail(file, row + 1, column, array[row], "an id must not be empty")
        return array
    whole = np.fromiter((isinstance(v, int | np.integer) and not isinstance(v, bool) for v in array), bool, len(array))
    if whole.all():
        return array.astype(np.int64)
    text = np.fromiter((isinstance(value, str) for value in array), bool, len(array))
    odd = ~(text if text[0] else whole)
    row = int(np.argmax(odd))
    fail(file, row + 1, column, array[row], "ids must be all whole numbers or all text")


def times(values: pd.Series, *, column: str, file: str, unit: str = "D", time_format: str | None = None) -> np.ndarray:
    """Times as datetime64[ns]; text is parsed, time zones become UTC, numbers count ``unit`` since 1970-01-01.

    All text is read in one notation: ``time_format``, or what ``notation`` finds.

    Raises:
        DataError: on a missing, unparseable, ambiguous or future time, or a format that is none or not for text.
    """
    units = ("D", "h", "m", "s", "ms", "us", "ns")
    if unit not in units:
        raise DataError(f"{file}: unknown time_unit {unit!r}. Valid: {', '.join(units)}.")
    values = values.reset_index(drop=True)
    _no_missing(values, column, file, "a time must not be missing")
    hint = ""
    if pd.api.types.is_bool_dtype(values.dtype):
        fail(file, 1, column, values.iloc[0] if len(values) else None, "a time must be a date, text or a number")
    numeric = pd.api.types.is_numeric_dtype(values.dtype)
    if time_format is not None and (numeric or pd.api.types.is_datetime64_any_dtype(values.dtype)):
        fail(
            file,
            1,
            column,
            values.iloc[0] if len(values) else None,
            f"time_format {time_format!r} is for times that are text",
        )
    if numeric:
        hint = f" (read in unit {unit!r} since 1970-01-01; pass time_unit= for another)"
        raw = values.to_numpy(dtype=np.float64)
        scale = {"D": 86400e9, "h": 3600e9, "m": 60e9, "s": 1e9, "ms": 1e6, "us": 1e3, "ns": 1.0}[unit]
        # int64 nanoseconds end in 2262; one day of slack keeps the multiplication below the limit.
        out_of_range = ~np.isfinite(raw) | (np.abs(raw) * scale >= 2**63 - 86400e9)
        if out_of_range.any():
            row = int(np.argmax(out_of_range))
            fail(file, row + 1, column, raw[row], f"not a time before the year 2262{hint}")
        if pd.api.types.is_integer_dtype(values.dtype):  # exact: floats hold nanoseconds only to about 256
            nanoseconds = values.to_numpy(dtype=np.int64) * np.int64(scale)
        else:
            nanoseconds = np.rint(raw * scale).astype(np.int64)
        array = nanoseconds.view("datetime64[ns]")
    else:
        parsed = values
        if not pd.api.types.is_datetime64_any_dtype(values.dtype):
            if not (pd.api.types.is_string_dtype(values.dtype) or pd.api.types.is_object_dtype(values.dtype)):
                fail(
                    file, 1, column, values.iloc[0] if len(values) else None, "a time must be a date, text or a number"
                )
            _same_zone(values, column, file)
            if time_format is None:
                chunks = (values.iloc[start : start + _CHUNK] for start in range(0, len(values), _CHUNK))
                time_format = notation(chunks, column=column, file=file)
            parsed = _parsed(values, time_format, file)
        if parsed.isna().any():
            row = int(np.argmax(parsed.isna().to_numpy()))
            told = "" if time_format in (None, ISO) else f" written as {time_format!r}, like the others"
            fail(file, row + 1, column, values.iloc[row], f"not a time{told}")
        if parsed.dt.tz is not None:
            parsed = parsed.dt.tz_convert("UTC").dt.tz_localize(None)
        try:
            array = parsed.dt.as_unit("ns").to_numpy(dtype="datetime64[ns]", copy=True)
        except pd.errors.OutOfBoundsDatetime as error:
            raise DataError(f"{file}, column {column!r}: a time outside the years 1678 to 2261: {error}") from error
    # A day of slack, for logs in a local time ahead of this machine's.
    limit = np.datetime64(datetime.datetime.now(datetime.UTC).replace(tzinfo=None) + datetime.timedelta(days=1), "ns")
    future = array > limit
    if future.any():
        row = int(np.argmax(future))
        fail(file, row + 1, column, str(array[row]), f"a time must not lie in the future{hint}")
    return array


def notation(parts: Iterable[pd.Series], *, column: str, file: str) -> str:
    """The one notation of a column of text times: ``ISO8601`` where the year comes first, else codes of ``strptime``.

    Whether 01/02/2020 has the day or the month first is told by the rows in which only one of them makes a date.

    Args:
        parts: the values in the file's order, in one part or several; no more are taken than are needed.
        column: what the column is called in the file, for messages.
        file: the file's name, for messages.

    Raises:
        DataError: the notation of the first value is not known, or every row has a date both ways.
    """
    left: list[str] = []
    differ: tuple[int, object] | None = None  # the first row that means two days, and what it says
    start = 0
    for values in parts:
        left = left or _notations(values.iloc[0], column, file)
        if len(left) == 1:
            return left[0]
        read = [_parsed(values, candidate, file) for candidate in left]
        bad = np.array([parsed.isna() for parsed in read])  # [candidates, rows]
        bad &= ~bad.all(axis=0)  # a row that is no date in either tells nothing: ``times`` refuses it
        if bad.any():  # by the first row that only one of them reads; one that contradicts it is refused by ``times``
            return left[int(np.argmin(bad[:, bad.any(axis=0).argmax()]))]
        apart = (read[0] != read[1]).to_numpy() & read[0].notna().to_numpy()
        if differ is None and apart.any():
            differ = start + int(apart.argmax()), values.iloc[int(apart.argmax())]
        start += len(values)
    if differ is not None:
        choice = " or ".join(map(repr, left))
        problem = "the day and the month could be either way round in every row; write dates as in 2024-01-31, or say"
        fail(file, differ[0] + 1, column, differ[1], f"{problem} time_format (--time-format): {choice}")
    return left[0] if left else ISO


def _notations(first: object, column: str, file: str) -> list[str]:
    """The one or two notations that a column may have which begins with this value."""
    if not isinstance(first, str) or _YEAR_FIRST.match(first):
        return [ISO]
    half = _HALF_DAY.search(first)  # pandas guesses no hours from 1 to 12 without seconds
    with warnings.catch_warnings():  # it warns where it could not put the month first
        warnings.simplefilter("ignore", UserWarning)
        guess = guess_datetime_format(first if half is None else first[: half.start()])
    if guess is not None and half is not None:
        guess = guess.replace("%H", "%I") + half["space"] + "%p"
    if guess is None:
        problem = "not a time in a notation that is known; write 2024-01-31 or 2024-01-31T13:05:00, or say how it is "
        fail(file, 1, column, first, f"{problem}written by time_format (--time-format), such as '%d.%m.%y %H:%M'")
    if "%B" in guess:  # May is a month's whole name and its short one
        return [guess, guess.replace("%B", "%b")]
    swapped = re.sub("%[md]", lambda code: "%d" if code[0] == "%m" else "%m", guess) if "%m" in guess else guess
    return list(dict.fromkeys((guess, swapped)))


def _parsed(values: pd.Series, time_format: str, file: str) -> pd.Series:
    """Text as times in UTC, NaT where it is not of the notation."""
    if time_format != ISO:
        try:
            if "%" not in time_format:  # pandas takes words that let each row have a notation of its own
                raise ValueError(f"there is no %-code in it; valid is such as '%d/%m/%Y', or {ISO!r}")
            return pd.to_datetime(values, errors="coerce", utc=True, format=time_format)
        except ValueError as error:
            raise DataError(f"{file}: time_format {time_format!r}: {error}") from error
    parsed = pd.to_datetime(values, errors="coerce", utc=True, format=ISO)
    odd = parsed.isna()
    if odd.any():  # with PM or UTC behind; a month above 12 would be read as a day
        loose = np.fromiter((not isinstance(v, str) or bool(_YEAR_MONTH_DAY.match(v)) for v in values), bool)
        parsed = pd.to_datetime(values.where(~odd | loose), errors="coerce", utc=True, format="mixed")
    return parsed


def zoned(values: pd.Series) -> bool:
    """Whether times name their time zone, and so are converted to UTC."""
    if isinstance(values.dtype, pd.DatetimeTZDtype):
        return True
    return len(values) > 0 and not pd.api.types.is_numeric_dtype(values.dtype) and _zone(values.iloc[0]) == _NAMED


def _zone(value: object) -> int:
    if isinstance(value, datetime.datetime):
        return _LOCAL if value.tzinfo is None else _NAMED
    found = _CLOCK.search(value) if isinstance(value, str) else None
    return _NO_CLOCK if found is None else _NAMED if found["zone"] else _LOCAL


def _same_zone(values: pd.Series, column: str, file: str) -> None:
    """Times of day without a zone, beside others with one, would be hours away from what they say."""
    kinds = np.fromiter(map(_zone, values), np.int8, len(values))
    told = np.flatnonzero(kinds != _NO_CLOCK)
    odd = told[kinds[told] != kinds[told[:1]]]
    if len(odd):
        row, first = int(odd[0]), int(told[0])
        problem = "times must all name their time zone, or none; row "
        fail(file, row + 1, column, values.iloc[row], f"{problem}{first + 1} is {_shown(values.iloc[first])}")


def _flags(values: pd.Series, *, column: str, file: str) -> np.ndarray:
    _no_missing(values, column, file, "a flag must not be missing")
    if pd.api.types.is_bool_dtype(values.dtype):
        return values.to_numpy(dtype=bool, copy=True)
    numbers = pd.to_numeric(values, errors="coerce").to_numpy(dtype=np.float64)
    bad = ~((numbers == 0) | (numbers == 1))
    if bad.any():
        row = int(np.argmax(bad))
        fail(file, row + 1, column, values.iloc[row], "a flag must be 0 or 1, False or True")
    return numbers == 1


def _numbers(values: pd.Series, spec: Column, *, column: str, file: str) -> np.ndarray:
    missing = values.isna().to_numpy()
    if missing.any() and not spec.optional:
        row = int(np.argmax(missing))
        fail(file, row + 1, column, values.iloc[row], f"{spec.name} must not be missing")
    if pd.api.types.is_datetime64_any_dtype(values.dtype) or pd.api.types.is_timedelta64_dtype(values.dtype):
        fail(file, 1, column, values.iloc[0] if len(values) else None, f"{spec.name} must be a number")
    array = pd.to_numeric(values, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan, copy=True)
    _first(np.isnan(array) & ~missing, values, column, file, f"{spec.name} must be a number")
    _first(np.isinf(array), values, column, file, f"{spec.name} must be finite")
    with np.errstate(invalid="ignore"):
        if spec.low is not None:
            low = array <= spec.low if spec.above else array < spec.low
            _first(
                low, values, column, file, f"{spec.name} must be {'above' if spec.above else 'at least'} {spec.low:g}"
            )
        if spec.high is not None:
            _first(array > spec.high, values, column, file, f"{spec.name} must be at most {spec.high:g}")
    if spec.kind == "integer":
        _first((array != np.floor(array)) | (np.abs(array) > 2**53), values, column, file, f"{spec.name} must be whole")
        return array.astype(np.int64)
    return array


def _first(bad: np.ndarray, values: pd.Series, column: str, file: str, problem: str) -> None:
    if bad.any():
        row = int(np.argmax(bad))
        value: Any = values.iloc[row]
        fail(file, row + 1, column, value, problem)


def _no_missing(values: pd.Series, column: str, file: str, problem: str) -> None:
    missing = values.isna().to_numpy()
    if missing.any():
        row = int(np.argmax(missing))
        fail(file, row + 1, column, values.iloc[row], problem)
