"""RecBole atomic files: ``NAME.inter``, and ``NAME.item`` and ``NAME.user`` where there are, with typed headers."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from recgym.data import schema
from recgym.data.fetch import checksum
from recgym.data.interactions import FilterCount, Interactions, SourceInfo
from recgym.errors import DataError, nearest

TYPES = ("token", "float", "token_seq", "float_seq")
# What RecBole's own data sets call our columns; fields named as in our schema are taken as well.
FIELDS = {"user_id": "user", "item_id": "item", "timestamp": "time"}
MISSING_TOKENS = ("", "nan", "NaN")


def load(
    path: str | Path,
    mapping: Mapping[str, str] | None = None,
    *,
    name: str | None = None,
    time_unit: str = "s",
    time_format: str | None = None,
) -> Interactions:
    """A log from atomic files.

    Args:
        path: the ``.inter`` file, or a directory that holds exactly one.
        mapping: {schema column: field}; without it ``user_id``, ``item_id``, ``timestamp`` and fields named as in the
            schema are taken.
        name: name of the log; by default that of the file.
        time_unit: unit of numeric times since 1970-01-01.
        time_format: notation of text times, in the codes of ``strptime``.

    Raises:
        DataError: naming file, row (data rows count from 1), column and value of what is not valid.
    """
    inter = _inter_file(Path(path))
    events = read_atomic(inter)
    if mapping is None:
        mapping = {FIELDS.get(field, field): field for field in events if FIELDS.get(field, field) in schema.SCHEMA}
    files = {inter.name: checksum(inter)}
    tables: dict[str, pd.DataFrame | None] = {}
    notes = []
    for kind in ("item", "user"):
        table_file = inter.with_suffix(f".{kind}")
        if not table_file.is_file():
            tables[kind] = None
            notes.append(FilterCount(f"no .{kind} file", 0, f"{kind}s have no attributes"))
            continue
        table = _table(table_file, kind, mapping.get(kind, f"{kind}_id"))
        tables[kind] = _described(table) if kind == "item" else table
        files[table_file.name] = checksum(table_file)
    name = name or inter.stem
    return Interactions.from_frame(
        events,
        mapping,
        items=tables["item"],
        users=tables["user"],
        name=name,
        source=SourceInfo(name=name, origin=f"RecBole atomic files {inter.name}", files=files),
        filters=notes,
        time_unit=time_unit,
        time_format=time_format,
        file=str(inter),
    )


def read_atomic(path: str | Path) -> pd.DataFrame:
    """One atomic file as a DataFrame with a column a field.

    A ``token`` is text (missing where empty), a ``float`` is float64 (missing where empty), a ``token_seq`` stays text
    with its tokens separated by spaces, a ``float_seq`` is a tuple of floats. ``attrs["types"]`` holds the types.

    Raises:
        DataError: on a header without types, a row with another number of fields, or a value of another type.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"there is no file {str(path)!r}")
    raw = path.read_bytes()
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        row = raw.count(b"\n", 0, error.start)
        raise DataError(f"{path}, row {row}: not UTF-8, got byte {raw[error.start : error.start + 1]!r}") from error
    lines = text.split("\n")
    fields = _header(lines[0].rstrip("\r"), path)
    if lines[-1] == "":
        lines.pop()
    for row, line in enumerate(lines[1:], start=1):
        if line.count("\t") != len(fields) - 1:
            values = line.rstrip("\r").split("\t")
            raise DataError(
                f"{path}, row {row}, column {_column_at(fields, len(values))!r}: expected {len(fields)} fields, "
                f"got {len(values)}: {values!r}"
            )
    if len(lines) == 1:
        raise DataError(f"{path}: no data rows")
    frame = pd.read_csv(
        io.StringIO(text, newline=""),
        sep="\t",
        names=list(fields),
        skiprows=1,
        dtype=str,
        na_filter=False,
        quoting=csv.QUOTE_NONE,
        skip_blank_lines=False,
        lineterminator="\n",
    )
    last = frame.columns[-1]
    frame[last] = frame[last].str.removesuffix("\r")
    typed = pd.DataFrame({field: _typed(frame[field], kind, field, path) for field, kind in fields.items()})
    typed.attrs["types"] = fields
    return typed


def read_knowledge(graph: Path, link: Path) -> pd.DataFrame:
    """Facts about items from a ``.kg`` file of (head, relation, tail) and a ``.link`` file of items and entities.

    Returns:
        Columns item (id), relation, entity, and other_item: the id of the item that the entity itself is, or None. An
        item is the head of its facts; where it is the tail of one that has no counterpart, the relation is named
        ``inverse NAME``.

    Raises:
        DataError: as ``read_atomic``, or a field is missing.
    """
    facts, links = read_atomic(graph), read_atomic(link)
    for path, table, fields in (
        (graph, facts, ("head_id", "relation_id", "tail_id")),
        (link, links, ("item_id", "entity_id")),
    ):
        missing = [field for field in fields if field not in table]
        if missing:
            raise DataError(f"{path}: no field {missing[0]!r}; a knowledge graph needs {', '.join(fields)}")
    item_of = links.drop_duplicates("entity_id").set_index("entity_id")["item_id"]
    forward = pd.DataFrame(
        {"item": facts["head_id"].map(item_of), "relation": facts["relation_id"], "entity": facts["tail_id"]}
    )
    inverse = pd.DataFrame(
        {
            "item": facts["tail_id"].map(item_of),
            "relation": "inverse " + facts["relation_id"],
            "entity": facts["head_id"],
        }
    )
    forward, inverse = (part[part["item"].notna()].drop_duplicates() for part in (forward, inverse))
    known = pd.MultiIndex.from_frame(forward[["item", "entity"]])
    inverse = inverse[~pd.MultiIndex.from_frame(inverse[["item", "entity"]]).isin(known)]
    found = pd.concat((forward, inverse), ignore_index=True)
    other = found["entity"].map(item_of).astype(object)
    return found.assign(other_item=other.where(other.notna(), None))


def _header(line: str, path: Path) -> dict[str, str]:
    fields: dict[str, str] = {}
    for entry in line.split("\t"):
        field, colon, kind = entry.rpartition(":")
        if not colon or not field:
            raise DataError(
                f"{path}, header: field {entry!r} has no type; expected name:type, type in {', '.join(TYPES)}"
            )
        if kind not in TYPES:
            guess = nearest(kind, TYPES)
            hint = f" Did you mean {guess!r}?" if guess else ""
            raise DataError(
                f"{path}, header: field {field!r} has unknown type {kind!r}.{hint} Valid: {', '.join(TYPES)}."
            )
        if field in fields:
            raise DataError(f"{path}, header: field {field!r} appears twice")
        fields[field] = kind
    return fields


def _column_at(fields: dict[str, str], count: int) -> str:
    """The first field that is missing from, or the last one before the surplus of, a row with ``count`` fields."""
    return list(fields)[min(count, len(fields) - 1)]


def _typed(values: pd.Series, kind: str, field: str, path: Path) -> pd.Series:
    if kind in ("token", "token_seq"):
        text = values.astype(object)
        return text.where(~values.isin(MISSING_TOKENS), None)
    if kind == "float":
        missing = values.str.strip().isin(MISSING_TOKENS)
        numbers = pd.to_numeric(values.where(~missing, None), errors="coerce").astype(np.float64)
        _reject(numbers.isna() & ~missing, values, field, path, "must be a number")
        return numbers
    parsed: list[tuple[float, ...] | None] = []
    for row, value in enumerate(values, start=1):
        try:
            parsed.append(tuple(float(part) for part in value.split()) or None)
        except ValueError:
            schema.fail(str(path), row, field, value, f"{kind} must hold numbers separated by spaces")
    return pd.Series(parsed, index=values.index, dtype=object)


def _reject(bad: pd.Series, values: pd.Series, field: str, path: Path, problem: str) -> None:
    if bad.any():
        row = int(np.argmax(bad.to_numpy()))
        schema.fail(str(path), row + 1, field, values.iloc[row], problem)


def _table(path: Path, kind: str, field: str) -> pd.DataFrame:
    table = read_atomic(path)
    if field not in table:
        guess = nearest(field, table.columns)
        hint = f" Did you mean {guess!r}?" if guess else ""
        raise DataError(f"{path}: no field {field!r} for the {kind} id.{hint} Fields: {', '.join(table.columns)}.")
    keys = schema.ids(table[field], column=field, file=str(path))
    doubled = pd.Series(keys).duplicated()
    _reject(doubled, table[field], field, path, "an id must appear once")
    return table.set_index(field)


def _described(table: pd.DataFrame) -> pd.DataFrame:
    """The item table with a title (the first field called so, or name) and a text (all its words) if it has none."""
    named = [field for field in table if "title" in field] or [field for field in table if field.endswith("name")]
    if "title" not in table and named:
        table["title"] = table[named[0]]
    words = [field for field, kind in table.attrs["types"].items() if kind == "token_seq" or field in named[:1]]
    if "text" not in table and words:
        rows = zip(*(table[field] for field in words), strict=True)
        table["text"] = [". ".join(value for value in row if value) for row in rows]
    return table


def _inter_file(path: Path) -> Path:
    if path.is_dir():
        found = sorted(path.glob("*.inter"))
        if len(found) != 1:
            names = ", ".join(file.name for file in found) or "none"
            raise DataError(f"{path} must hold exactly one .inter file, found: {names}")
        return found[0]
    if path.suffix != ".inter":
        path = path.with_name(f"{path.name}.inter")
    if not path.is_file():
        raise DataError(f"there is no file {str(path)!r}")
    return path
