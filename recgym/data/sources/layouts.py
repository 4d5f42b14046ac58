"""What the sources of published layouts share: finding a file, and a log with its licence and citation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from recgym.data.fetch import checksum
from recgym.data.files import COMPRESSED
from recgym.data.interactions import FilterCount, Interactions, SourceInfo
from recgym.data.own import described, without_duplicates
from recgym.errors import DataError


def find(directory: Path, *patterns: str, url: str) -> Path:
    """The one file of a directory tree that fits the first pattern that any fits, compressed or not.

    Raises:
        DataError: none fits, or several; says where the data come from.
    """
    if not directory.is_dir():
        raise DataError(f"{directory} must be the directory of the unpacked data set; it comes from {url}")
    for pattern in patterns:
        found = sorted({f for end in ("", *COMPRESSED) for f in directory.rglob(pattern + end)})
        if len(found) > 1:
            names = ", ".join(str(f.relative_to(directory)) for f in found)
            raise DataError(f"{directory}: {pattern!r} must be one file, found {names}; name a directory with one")
        if found:
            return found[0]
    raise DataError(f"{directory}: no file {' or '.join(map(repr, patterns))}; the data set comes from {url}")


def optional(directory: Path, *patterns: str, url: str) -> Path | None:
    """As ``find``, None where no file fits."""
    fits = any(True for p in patterns for end in ("", *COMPRESSED) for _ in directory.rglob(p + end))
    return find(directory, *patterns, url=url) if fits else None


def made(
    events: pd.DataFrame,
    source: SourceInfo,
    files: Sequence[Path | None],
    *,
    items: pd.DataFrame | None = None,
    text: tuple[str, ...] = (),
    users: pd.DataFrame | None = None,
    notes: Sequence[FilterCount] = (),
    time_unit: str = "s",
) -> Interactions:
    """The log of events whose columns are named as in the schema; ``text`` names what makes an item's text."""
    read = [file for file in files if file is not None]
    log = Interactions.from_frame(
        events,
        items=None if items is None else described(items.drop_duplicates("item"), text),
        users=users,
        name=source.name,
        source=SourceInfo(
            source.name, source.url, source.licence, source.citation, source.origin or "a local copy",
            {file.name: checksum(file) for file in read},
        ),
        filters=notes,
        time_unit=time_unit,
        file=str(read[0]),
    )  # fmt: skip
    return without_duplicates(log)


def dropped(frame: pd.DataFrame, bad: pd.Series, reason: str, notes: list[FilterCount]) -> pd.DataFrame:
    """The rows that are not ``bad``, with a note of how many were.

    Raises:
        DataError: none is left.
    """
    if bad.any():
        notes.append(FilterCount(reason, int(bad.sum()), "rows not read"))
    if bad.all():
        raise DataError(f"no row is left: {reason}")
    return frame[~bad]
