"""Logs larger than memory: sorted by parts of the users on disk, held in compact columns."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset

from recgym.data.files import batches
from recgym.data.interactions import OBSERVED, FilterCount, Interactions, SourceInfo
from recgym.data.tables import entity_table
from recgym.errors import DataError

PART = 2_000_000  # rows of a part of the users that are sorted at once
MAX_PARTS = 200  # files that are open at once


@dataclass
class CompactLog:
    """A log in narrow columns: ids as int32 rows of ``ids``, whole numbers and floats as narrow as loses nothing."""

    columns: dict[str, np.ndarray] = field(default_factory=dict)  # [E] each, in the order of ``Interactions``
    ids: dict[str, np.ndarray] = field(default_factory=dict)  # id column -> its distinct values, sorted
    units: dict[str, str] = field(default_factory=dict)
    filters: tuple[FilterCount, ...] = ()
    time_origin: str = OBSERVED

    def __len__(self) -> int:
        """Number of events."""
        return len(self.columns["user"])

    @property
    def nbytes(self) -> int:
        """Bytes of the columns."""
        return sum(column.nbytes for column in self.columns.values())

    def interactions(self, name: str = "log") -> Interactions:
        """The log in full width: what reading it in memory gives."""
        columns = {}
        for key, column in self.columns.items():
            if key in self.ids:
                columns[key] = self.ids[key][column]
            elif column.dtype.kind in "iu":
                columns[key] = column.astype(np.int64)
            else:
                columns[key] = column.astype(np.float64) if column.dtype.kind == "f" else column
        tables = {key: entity_table(None, self.ids[key], key, key, notes_to=[]) for key in ("item", "user")}
        return Interactions(
            name, columns, tables["item"], tables["user"], SourceInfo(name), self.filters, self.units, self.time_origin
        )


def stream(
    table: pa.dataset.Dataset,
    path: Path,
    columns: Sequence[str],
    user: str,
    events: Callable[[pa.Table, str], Interactions],
    *,
    max_users: int | None = None,
    part: int = PART,
) -> CompactLog:
    """Reads a log part by part: never more in memory than the compact columns and one part of the users.

    Two passes over the file. The first collects the users; they are cut, in order of their ids, into parts of about
    ``part`` rows. The second writes each part's rows to a file of its own. Then each is read, checked and sorted by
    ``events``, as a whole log would be, and appended: the result is the whole log's, as events are sorted by user.
    The files lie in the system's place for temporary files (``TMPDIR``) and go at the end.

    Args:
        table: the file, opened.
        path: the file, for messages.
        columns: what is read of it.
        user: the column of the user's id.
        events: reads rows as a log.
        max_users: keep so many users, by a hash of their ids.
        part: rows in a part.

    Raises:
        DataError: as ``events`` raises; rows are counted within the part that the message names.
    """
    counts = _count_users(table, path, user)
    filters = []
    if max_users is not None and max_users < len(counts):
        from recgym.data.own import choose_users

        chosen = choose_users(counts.index, max_users)
        kept = counts[counts.index.isin(chosen)]
        reason = f"other users than the {max_users:,} chosen"
        filters.append(FilterCount(reason, int(counts.sum() - kept.sum()), "chosen by a hash of their ids"))
        counts = kept
    # The first user of each part: parts of equal rows, but no user is cut.
    size = max(part, -(-int(counts.sum()) // MAX_PARTS))
    number = (np.cumsum(counts.to_numpy()) - counts.to_numpy()) // size
    part_of = np.unique(number, return_inverse=True)[1].astype(np.int32)
    known = pa.array(counts.index.to_numpy(dtype=object), pa.string())
    building = _Builder()
    with tempfile.TemporaryDirectory(prefix="recgym-stream-") as work:
        files = [Path(work) / f"{n}.arrow" for n in range(int(part_of.max()) + 1)]
        _write_parts(table, path, columns, user, known, part_of, files)
        for n, file in enumerate(files):
            members = counts.index[part_of == n]
            with pa.ipc.open_file(file) as reader:
                found = reader.read_all()
            label = str(path) if len(files) == 1 else f"{path}, among users {members[0]!r} to {members[-1]!r}"
            building.add(events(found, label))
            file.unlink()
    return building.finish(filters)


def _as_text(column: pa.Array) -> tuple[np.ndarray, pa.Array]:
    """Codes int32 [n] and the distinct values as text."""
    coded = column.dictionary_encode()
    if coded.null_count:
        raise DataError("an id must not be missing")
    values = coded.dictionary
    if pa.types.is_floating(values.type):
        values = pc.cast(values, pa.int64())
    return coded.indices.to_numpy(zero_copy_only=False), pc.cast(values, pa.string())


def _count_users(table: pa.dataset.Dataset, path: Path, user: str) -> pd.Series:
    """Rows by user id, sorted by id."""
    counted: dict[str, int] = {}
    rows = 0
    for batch in batches(table, [user], path):
        try:
            codes, values = _as_text(batch.column(0))
        except (DataError, pa.ArrowInvalid) as error:
            raise DataError(f"{path}, after row {rows}, column {user!r}: {error}") from error
        found = np.bincount(codes, minlength=len(values))
        for key, count in zip(values.to_pylist(), found.tolist(), strict=True):
            counted[key] = counted.get(key, 0) + count
        rows += batch.num_rows
    if not rows:
        raise DataError(f"{path}: no data rows")
    return pd.Series(counted, dtype=np.int64).sort_index()


def _write_parts(
    table: pa.dataset.Dataset,
    path: Path,
    columns: Sequence[str],
    user: str,
    known: pa.Array,
    part_of: np.ndarray,
    files: Sequence[Path],
) -> None:
    """Every row of a known user to the file of its part, in the log's order."""
    writers = None
    try:
        for batch in batches(table, columns, path):
            if writers is None:
                writers = [pa.ipc.new_file(str(file), batch.schema) for file in files]
            codes, values = _as_text(batch.column(batch.schema.get_field_index(user)))
            place = pc.fill_null(pc.index_in(values, value_set=known), -1).to_numpy(zero_copy_only=False)
            row_place = place[codes]
            row_part = np.where(row_place >= 0, part_of[row_place], -1)
            order = np.argsort(row_part, kind="stable")
            bounds = np.searchsorted(row_part[order], np.arange(len(files) + 1))
            for n, writer in enumerate(writers):
                if bounds[n] < bounds[n + 1]:
                    writer.write_batch(batch.take(pa.array(order[bounds[n] : bounds[n + 1]])))
    finally:
        for writer in writers or ():
            writer.close()


class _Builder:
    """Appends logs of disjoint users, in order of their ids, to compact columns."""

    def __init__(self) -> None:
        self.chunks: dict[str, list[np.ndarray]] = {}
        self.codes: dict[str, dict[str, int]] = {}
        self.counts: dict[tuple[str, str], int] = {}
        self.last: Interactions | None = None

    def add(self, log: Interactions) -> None:
        for key, column in log.columns.items():
            if column.dtype == object:
                table = self.codes.setdefault(key, {})
                code, values = pd.factorize(column)
                fresh = np.array([table.setdefault(value, len(table)) for value in values], np.int32)
                column = fresh[code]
            self.chunks.setdefault(key, []).append(_narrow(column))
        for note in log.filters:
            self.counts[note.reason, note.detail] = self.counts.get((note.reason, note.detail), 0) + note.count
        self.last = log

    def finish(self, filters: list[FilterCount]) -> CompactLog:
        assert self.last is not None  # a log has at least one row, so there is a part
        out = CompactLog(units=dict(self.last.units), time_origin=self.last.time_origin)
        notes = (FilterCount(reason, count, detail) for (reason, detail), count in self.counts.items())
        out.filters = (*filters, *notes)
        for key in list(self.chunks):
            column = np.concatenate(self.chunks.pop(key))
            if key in self.codes:
                values = np.array(list(self.codes[key]), dtype=object)
                order = np.argsort(values)
                rank = np.empty(len(values), np.int32)
                rank[order] = np.arange(len(values), dtype=np.int32)
                out.ids[key], column = values[order], rank[column]
            out.columns[key] = column
        return out


def _narrow(column: np.ndarray) -> np.ndarray:
    """The same values in the narrowest type that holds them all."""
    if column.dtype.kind in "iu" and len(column):
        return column.astype(np.promote_types(np.min_scalar_type(column.min()), np.min_scalar_type(column.max())))
    if column.dtype == np.float64:
        single = column.astype(np.float32)
        return single if np.array_equal(single, column, equal_nan=True) else column
    return column
