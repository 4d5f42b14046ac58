"""Item and user tables: one row an id, validated, sorted, and covering every id of the log."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from recgym.data import schema
from recgym.errors import DataError

_COPY_ON_WRITE = int(pd.__version__.split(".")[0]) >= 3


def frozen_copy(table: pd.DataFrame) -> pd.DataFrame:
    """A copy whose changes never reach ``table``; free where pandas copies on write."""
    return table.copy(deep=not _COPY_ON_WRITE)


def entity_table(
    table: pd.DataFrame | None, ids: np.ndarray, kind: str, column: str, *, notes_to: list[Any]
) -> pd.DataFrame:
    """The table of ``kind`` (``item`` or ``user``), indexed by sorted id, with a row for every id of the events.

    Args:
        table: attributes with the id as index, or in a column called ``kind`` or ``column``; None for none.
        ids: the ids of the events, canonical.
        kind: ``item`` or ``user``.
        column: what the events call the id.
        notes_to: receives (reason, count, detail) about ids that the table does not describe.

    Raises:
        DataError: where an id is missing, doubled or of another type than the events' ids.
    """
    file = f"{kind}s table"
    known = pd.Index(np.sort(pd.unique(ids)), name=kind)  # np.unique would sort every event's text
    if table is None:
        return _with_text(pd.DataFrame(index=known), kind)
    table = table.copy()
    for name in dict.fromkeys((kind, column)):
        if name in table.columns:
            table = table.set_index(name)
            break
    if not table.columns.is_unique:
        raise DataError(f"{file}: two columns are called {table.columns[table.columns.duplicated()][0]!r}")
    keys = schema.ids(pd.Series(table.index), column=kind, file=file)
    if len(keys) and keys.dtype != ids.dtype:
        names = {True: "text", False: "whole numbers"}
        raise DataError(
            f"{file}, row 1, column {kind!r}: ids are {names[keys.dtype == object]} but the events' are "
            f"{names[ids.dtype == object]}, got {keys[0]!r}"
        )
    doubled = pd.Index(keys).duplicated()
    if doubled.any():
        row = int(np.argmax(doubled))
        schema.fail(file, row + 1, kind, keys[row], "an id must appear once")
    table.index = pd.Index(keys, name=kind)
    for name in table.columns:
        if pd.api.types.is_float_dtype(table[name].dtype):
            infinite = np.isinf(table[name].to_numpy(dtype=np.float64, na_value=np.nan))
            if infinite.any():
                row = int(np.argmax(infinite))
                schema.fail(file, row + 1, str(name), table[name].iloc[row], "a value must be finite or missing")
    missing = known.difference(table.index)
    if len(missing):
        detail = "kept, with empty text and missing attributes" if kind == "item" else "kept, with missing attributes"
        notes_to.append((f"{kind}s that the {kind}s table does not describe", len(missing), detail))
    table = table.reindex(known.union(table.index).rename(kind))
    return _with_text(table, kind)


def _with_text(table: pd.DataFrame, kind: str) -> pd.DataFrame:
    """Item tables get a ``text`` (what a language model reads; may be empty) and a ``title`` (never missing)."""
    if kind != "item":
        return table
    if "text" not in table:
        parts = [table[name] for name in ("title", "category", "brand") if name in table]
        joined = [". ".join(str(v) for v in row if not pd.isna(v)) for row in zip(*parts, strict=True)]
        table["text"] = pd.Series(joined or [""] * len(table), index=table.index, dtype=object)
    table["text"] = table["text"].astype(object).where(table["text"].notna(), "")
    fallback = pd.Series([f"Item {key}" for key in table.index], index=table.index, dtype=object)
    table["title"] = (
        table["title"].astype(object).where(table["title"].notna(), fallback) if "title" in table else fallback
    )
    return table
