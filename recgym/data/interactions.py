"""The immutable, columnar, content-hashed interaction log that every later stage reads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pandas as pd

from recgym.data import schema
from recgym.data.hashing import content_hash
from recgym.data.tables import entity_table, frozen_copy
from recgym.errors import DataError, unknown_name

if TYPE_CHECKING:
    from rich.console import Console

OBSERVED = "observed"
CUMULATED_GAPS = "cumulated gap_days"
ORDER_AS_DAYS = "order number read as days"


@dataclass(frozen=True)
class SourceInfo:
    """Where a log comes from: address, licence, citation, and the sha256 of each file that was read."""

    name: str
    url: str = ""
    licence: str = ""
    citation: str = ""
    origin: str = ""  # which of the possible places served the files
    files: Mapping[str, str] = field(default_factory=dict)  # file name -> sha256 hex


@dataclass(frozen=True)
class FilterCount:
    """How many rows (or columns) a reader dropped, clipped or changed, and why."""

    reason: str
    count: int
    detail: str = ""


@dataclass(frozen=True, repr=False, eq=False)
class Interactions:
    """An immutable log of E events, sorted by (user, time, order, original order).

    Columns are read-only numpy arrays: ``log["time"]``. ``log.user_rows`` and ``log.item_rows`` are the row numbers of
    each event's user and item in ``log.users`` and ``log.items``, whose indexes are the sorted ids.

    Attributes:
        name: name of the log.
        columns: column name -> array [E]; see ``recgym.data.schema.SCHEMA`` for kinds and units.
        source: where the log comes from.
        filters: everything that was filtered, clipped or changed on the way in, with counts.
        units: unit of each column.
        time_origin: ``observed``, ``cumulated gap_days`` or ``order number read as days``.
    """

    name: str
    columns: Mapping[str, np.ndarray]
    _items: pd.DataFrame
    _users: pd.DataFrame
    source: SourceInfo
    filters: tuple[FilterCount, ...] = ()
    units: Mapping[str, str] = field(default_factory=dict)
    time_origin: str = OBSERVED

    def __post_init__(self) -> None:
        """Freezes the columns."""
        columns = {key: _read_only(array) for key, array in self.columns.items()}
        object.__setattr__(self, "columns", MappingProxyType(columns))
        object.__setattr__(self, "units", MappingProxyType(dict(self.units)))
        object.__setattr__(self, "filters", tuple(self.filters))

    @classmethod
    def from_frame(
        cls,
        frame: pd.DataFrame,
        mapping: Mapping[str, str] | None = None,
        *,
        items: pd.DataFrame | None = None,
        users: pd.DataFrame | None = None,
        name: str = "log",
        source: SourceInfo | None = None,
        filters: Iterable[FilterCount] = (),
        units: Mapping[str, str] | None = None,
        time_unit: str = "D",
        time_format: str | None = None,
        file: str = "DataFrame",
    ) -> Self:
        """A validated log from a DataFrame with one event a row.

        Args:
            frame: the events; it is copied.
            mapping: {schema column: column of ``frame``}; without it, columns named as in the schema are taken.
            items: item texts and attributes; item id as the index or in a column named ``item`` or as mapped.
                A ``text`` column is made from title, category and brand where it is missing.
            users: observable user attributes, likewise; missing values are allowed.
            name: name of the log.
            source: where it comes from.
            filters: what was filtered before this call.
            units: units that differ from the schema's.
            time_unit: unit of numeric times since 1970-01-01 (``D``, ``s``, ``ms`` ...).
            time_format: notation of text times in the codes of ``strptime``, such as ``%d/%m/%Y``; None: ISO 8601, or
                the one that fits every row.
            file: what messages call the data.

        Raises:
            DataError: naming file, row (data rows count from 1), column and value of what is not valid.
        """
        if not frame.columns.is_unique:
            doubled = frame.columns[frame.columns.duplicated()][0]
            raise DataError(f"{file}: two columns are called {doubled!r}")
        if mapping is None:
            mapping = {key: key for key in schema.SCHEMA if key in frame.columns}
        mapping = dict(mapping)
        schema.check_mapping(mapping, frame.columns, file)
        if not len(frame):
            raise DataError(f"{file}: no data rows")
        raw = {
            key: schema.canonical(
                frame[column], key, column=column, file=file, time_unit=time_unit, time_format=time_format
            )
            for key, column in mapping.items()
        }
        notes = list(filters)
        unmapped = [str(column) for column in frame.columns if column not in mapping.values()]
        if unmapped:
            notes.append(FilterCount("columns not mapped", len(unmapped), ", ".join(unmapped)))
        zone = {"time": "UTC, from times with a zone"} if "time" in raw and schema.zoned(frame[mapping["time"]]) else {}
        time_origin = OBSERVED
        if "time" not in raw:
            raw["time"], time_origin = _derived_time(raw, mapping, file)
        keys = [raw[key] for key in ("order", "time") if key in raw]
        codes, _ = pd.factorize(raw["user"], sort=True)
        rank = np.lexsort((*keys, codes))  # stable: events that tie keep the order of the file
        columns = {key: raw[key][rank] for key in schema.SCHEMA if key in raw}
        item_table = entity_table(items, raw["item"], "item", mapping["item"], notes_to=notes)
        user_table = entity_table(users, raw["user"], "user", mapping["user"], notes_to=notes)
        return cls(
            name=name,
            columns=columns,
            _items=item_table,
            _users=user_table,
            source=source or SourceInfo(name=name),
            filters=tuple(FilterCount(*note) if isinstance(note, tuple) else note for note in notes),
            units={key: schema.SCHEMA[key].unit for key in columns} | zone | dict(units or {}),
            time_origin=time_origin,
        )

    # Reading

    def __len__(self) -> int:
        """Number of events."""
        return len(self.columns["user"])

    def __contains__(self, column: object) -> bool:
        """Whether the log has this column."""
        return column in self.columns

    def __getitem__(self, column: str) -> np.ndarray:
        """The read-only array [E] of a column."""
        if column not in self.columns:
            raise unknown_name(f"column of log {self.name!r}", column, self.columns)
        return self.columns[column]

    @property
    def items(self) -> pd.DataFrame:
        """Item texts and attributes, one row an item, indexed by the sorted item ids; a copy."""
        return frozen_copy(self._items)

    @property
    def users(self) -> pd.DataFrame:
        """Observable user attributes, one row a user, indexed by the sorted user ids; a copy."""
        return frozen_copy(self._users)

    @cached_property
    def item_rows(self) -> np.ndarray:
        """[E] int64: row of each event's item in ``items``."""
        return _rows(self._items.index, self["item"])

    @cached_property
    def user_rows(self) -> np.ndarray:
        """[E] int64: row of each event's user in ``users``."""
        return _rows(self._users.index, self["user"])

    @property
    def num_items(self) -> int:
        """Number of rows of ``items``."""
        return len(self._items)

    @property
    def num_users(self) -> int:
        """Number of rows of ``users``."""
        return len(self._users)

    @cached_property
    def days(self) -> np.ndarray:
        """[E] float64: time in days since midnight of the log's first day."""
        first = self["time"].min().astype("datetime64[D]").astype("datetime64[ns]")
        days = (self["time"] - first) / np.timedelta64(1, "D")
        return _read_only(days)

    @cached_property
    def hash(self) -> str:
        """The sha256 (hex) of all columns and of both tables; name, source and counts do not enter."""
        return content_hash(self.columns, {"items": self._items, "users": self._users})

    @cached_property
    def events_hash(self) -> str:
        """The sha256 (hex) of the event columns alone, without item and user tables."""
        return content_hash(self.columns, {})

    def to_frame(self) -> pd.DataFrame:
        """The events as a new DataFrame, in the log's order."""
        return pd.DataFrame({key: array.copy() for key, array in self.columns.items()})

    def select(self, mask: np.ndarray, reason: str, detail: str = "") -> Interactions:
        """The events where ``mask`` (bool [E]) holds, as a new log that records how many were left out and why."""
        mask = np.asarray(mask)
        if mask.dtype != bool or mask.shape != (len(self),):
            raise DataError(f"mask must be bool of shape ({len(self)},), got {mask.dtype} of shape {mask.shape}")
        if not mask.any():
            raise DataError(f"no event of log {self.name!r} is left: {reason}")
        note = FilterCount(reason, int((~mask).sum()), detail)
        columns = {key: array[mask] for key, array in self.columns.items()}
        return replace(self, columns=columns, filters=(*self.filters, note))

    # Reporting

    def summary(self) -> dict[str, Any]:
        """What the log holds and what was filtered, as JSON values."""
        times = self["time"]
        return {
            "name": self.name,
            "hash": self.hash,
            "events": len(self),
            "users": int(np.unique(self.user_rows).size),
            "items": int(np.unique(self.item_rows).size),
            "items_described": self.num_items,
            "baskets": int(pd.unique(self["basket"]).size) if "basket" in self else None,
            "first": str(times.min()),
            "last": str(times.max()),
            "time_origin": self.time_origin,
            "columns": {
                key: {"unit": self.units[key], "missing": _num_missing(array)} for key, array in self.columns.items()
            },
            "filters": [{"reason": f.reason, "count": f.count, "detail": f.detail} for f in self.filters],
            "source": {
                "name": self.source.name,
                "url": self.source.url,
                "licence": self.source.licence,
                "citation": self.source.citation,
                "origin": self.source.origin,
                "files": dict(self.source.files),
            },
        }

    def describe(self, console: Console | None = None) -> None:
        """Prints what the log holds, and everything that was filtered or clipped on the way in."""
        from recgym.data.report import print_summary

        print_summary(self.summary(), console)

    def __repr__(self) -> str:
        """One line: name, sizes, columns and the start of the hash."""
        return (
            f"Interactions({self.name!r}, events={len(self)}, users={self.num_users}, items={self.num_items}, "
            f"columns={list(self.columns)}, hash={self.hash[:12]})"
        )


def _rows(index: pd.Index, values: np.ndarray) -> np.ndarray:
    return _read_only(index.get_indexer(pd.Index(values)).astype(np.int64))


def _read_only(array: np.ndarray) -> np.ndarray:
    """A view that cannot be made writeable again, as its base is not."""
    array.flags.writeable = False
    return array.view()


def _num_missing(array: np.ndarray) -> int:
    return int(np.isnan(array).sum()) if array.dtype.kind == "f" else 0


def _derived_time(raw: dict[str, np.ndarray], mapping: dict[str, str], file: str) -> tuple[np.ndarray, str]:
    """Times from gaps or order numbers, as datetime64[ns] counted from 1970-01-01, and the name of the rule."""
    if "order" not in raw:
        raise DataError(
            f"{file}: no column for 'time' or 'order'; map one of them, so that events have a sequence. "
            f"Mapped: {', '.join(mapping)}."
        )
    if "gap_days" not in raw:
        days, origin, column = raw["order"].astype(np.float64), ORDER_AS_DAYS, mapping["order"]
    else:
        days, origin, column = _cumulated(raw, mapping, file), CUMULATED_GAPS, mapping["gap_days"]
    limit = 2**63 / 86400e9 - 1  # int64 nanoseconds end in the year 2262
    if (days > limit).any():
        row = int(np.argmax(days > limit))
        schema.fail(file, row + 1, column, raw["order"][row], f"{origin}: more than {limit:.0f} days")
    return np.rint(days * 86400e9).astype(np.int64).view("datetime64[ns]"), origin


def _cumulated(raw: dict[str, np.ndarray], mapping: dict[str, str], file: str) -> np.ndarray:
    """Days since each user's first visit: the gaps of the visits (user, order), added up; the first gap counts 0."""
    user = pd.factorize(raw["user"])[0]
    gap, order, column = raw["gap_days"], raw["order"], mapping["gap_days"]
    rank = np.lexsort((order, user))
    new_user = np.diff(user[rank], prepend=-1) != 0
    new_visit = new_user | (np.diff(order[rank], prepend=-1) != 0)
    first_of_user = new_user[np.maximum.accumulate(np.where(new_visit, np.arange(len(rank)), 0))]
    sorted_gap = np.where(first_of_user, 0.0, gap[rank])
    bad = np.isnan(sorted_gap)
    if bad.any():
        row = int(rank[bad].min())
        schema.fail(file, row + 1, column, gap[row], "gap_days may be missing at a user's first visit only")
    visit = np.cumsum(new_visit) - 1
    visit_gap = sorted_gap[new_visit]
    differs = sorted_gap != visit_gap[visit]
    if differs.any():
        row = int(rank[differs].min())
        schema.fail(file, row + 1, column, gap[row], "gap_days differs within one visit (same user and order)")
    total = np.cumsum(visit_gap)
    start = total[visit[np.maximum.accumulate(np.where(new_user, np.arange(len(rank)), 0))]]
    days = np.empty(len(rank))
    # Whole days add up exactly; subtracting the running total at the user's first visit starts each user at 0.
    days[rank] = total[visit] - start
    return days


__all__: Sequence[str] = ("CUMULATED_GAPS", "OBSERVED", "ORDER_AS_DAYS", "FilterCount", "Interactions", "SourceInfo")
