"""Your own log: files, a mapping to the schema's names, and what is read of the items."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field

from recgym.data import schema
from recgym.data.fetch import checksum
from recgym.data.files import batches, open_table, read_table, require, unpacked
from recgym.data.interactions import FilterCount, Interactions, SourceInfo
from recgym.errors import DataError, unknown_name
from recgym.registry import load_target

STREAM_FROM = 1 << 30  # bytes: larger files are read part by part, whatever the options say
KEPT = ("title", "text", "category", "subcategory", "brand", "recommendable")  # item columns that a world reads
KNOWLEDGE = (".kg", ".link")  # of RecBole: facts, and which entity is which item
NOT_STATED = "not stated"  # the licence and the citation of a log whose owner says none
LAYOUTS = {
    "ml-1m": "movielens:read_1m",
    "ml-25m": "movielens:read_25m",
    "amazon-reviews-2023": "amazon_reviews:read",
    "kuairec": "kuairec:read",
    "kuairand": "kuairand:read",
    "mind": "mind:read",
    "retailrocket": "retailrocket:read",
    "instacart": "instacart:read",
    "instacart-sample": "instacart:read_sample",
    "open-bandit": "open_bandit:read",
}


class LogFiles(BaseModel):
    """Where a log lies and how it is read: what a bundle keeps, so that its log is found again."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: str
    layout: str | None = Field(None, description="a published layout; None: a table read by the mapping")
    mapping: dict[str, str] = Field({}, description="schema column -> column of the table")
    items: str | None = Field(None, description="a table of items")
    text: tuple[str, ...] = Field((), description="item columns that make an item's text, in order")
    time_unit: str | None = Field(None, description="unit of numeric times; None: by the size of the first")
    time_format: str | None = Field(None, description="notation of text times, as of strptime; None: as found")
    max_users: int | None = Field(None, ge=1, description="read so many users, chosen by a hash of their ids")
    licence: str = NOT_STATED
    citation: str = NOT_STATED
    sha256: dict[str, str] = Field({}, description="of each file, when the log was first read")

    def hashed(self) -> LogFiles:
        """The same with absolute paths and the checksums of its files."""
        paths = {"path": str(Path(self.path).resolve())} | (
            {"items": str(Path(self.items).resolve())} if self.items else {}
        )
        return self.model_copy(update={**paths, "sha256": {str(p): checksum(p) for p in self._files()}})

    def _files(self) -> list[Path]:
        found: list[Path] = []
        for given in (self.path, self.items):
            if given is None:
                continue
            path = Path(given).resolve()
            if not path.exists():
                raise DataError(f"there is no file {given!r}")
            if path.suffix == ".inter":
                beside = (path.with_suffix(suffix) for suffix in (".item", ".user", *KNOWLEDGE))
                found += [path, *(f for f in beside if f.is_file())]
            else:
                found += [path] if path.is_file() else sorted(f for f in path.rglob("*") if f.is_file())
        return found


def parse_mapping(text: str) -> dict[str, str]:
    """{schema column: column} from ``user=customer_id,item=sku``.

    Raises:
        DataError: a part without ``=``, a key that is no schema column or comes twice.
    """
    mapping: dict[str, str] = {}
    for part in text.split(","):
        key, equals, column = (piece.strip() for piece in part.partition("="))
        if not (key and equals and column):
            raise DataError(f"--map: {part!r} must read KEY=COLUMN, as in user=customer_id,item=sku")
        if key not in schema.SCHEMA:
            raise DataError(f"--map: unknown key {key!r}.{schema.hint(key, schema.SCHEMA)} "
                            f"Valid: {', '.join(schema.SCHEMA)}.")  # fmt: skip
        if key in mapping:
            raise DataError(f"--map: key {key!r} is given twice: {mapping[key]!r} and {column!r}")
        mapping[key] = column
    return mapping


def load_files(files: LogFiles, name: str) -> Interactions:
    """The log of some files, checked against their checksums where there are any.

    Ids of users and items are text, whatever the files hold, so that tables of different formats fit together. Rows
    alike in every mapped column are counted and read once.

    Raises:
        DataError: a file is missing, changed, cut off or empty, or a value is not valid: names it.
    """
    for given, expected in files.sha256.items():
        if not Path(given).is_file():
            raise DataError(f"there is no file {given!r}, which this log was read from")
        if checksum(Path(given)) != expected:
            raise DataError(f"{given} has changed since the log was read: its sha256 is not {expected[:12]}…")
    if files.layout is not None:
        log = _some_users(_layout(files.layout)(Path(files.path)), files.max_users)
    elif Path(files.path).suffix == ".inter":
        from recgym.data.sources import recbole

        log = recbole.load(
            files.path,
            files.mapping or None,
            name=name,
            time_unit=files.time_unit or "s",
            time_format=files.time_format,
        )
        log = _some_users(without_duplicates(log), files.max_users)
        log = replace(log, source=replace(log.source, licence=files.licence, citation=files.citation))
    else:
        log = _read(files, name)
    return clicks_as_responses(log)


def file_knowledge(files: LogFiles) -> pd.DataFrame:
    """Facts about the items of a log in RecBole's atomic files; see ``recbole.read_knowledge``.

    Raises:
        DataError: the log has no .kg and .link file beside it, or they cannot be read.
    """
    from recgym.data.sources import recbole

    graph, link = (Path(files.path).with_suffix(suffix) for suffix in KNOWLEDGE)
    if Path(files.path).suffix != ".inter" or not (graph.is_file() and link.is_file()):
        raise DataError(
            f"{files.path}: graph.relations names 'knowledge', which needs a RecBole log: {graph.name} and {link.name} "
            "beside the .inter file"
        )
    return recbole.read_knowledge(graph, link)


def _some_users(log: Interactions, count: int | None) -> Interactions:
    """The log of ``count`` of its users; of all where None or where it has no more."""
    users = pd.Index(pd.unique(log["user"]))  # a table of users may tell of some that have no events
    if count is None or count >= len(users):
        return log
    chosen = np.isin(log["user"], list(choose_users(users, count)))
    return log.select(chosen, f"other users than the {count:,} chosen")


def _layout(name: str) -> Callable[[Path], Interactions]:
    if name not in LAYOUTS:
        raise unknown_name("layout", name, LAYOUTS)
    read: Callable[[Path], Interactions] = load_target(f"recgym.data.sources.{LAYOUTS[name]}")
    return read


def _read(files: LogFiles, name: str) -> Interactions:
    """A table by its mapping; part by part where it is large or a part of the users is wanted."""
    from recgym.data.stream import stream

    with unpacked(Path(files.path)) as path:
        keys = ("user", "item", "basket", *(("time",) if files.time_format else ()))
        text = [files.mapping[key] for key in keys if key in files.mapping]
        table = open_table(path, text=text)
        schema.check_mapping(files.mapping, table.schema.names, str(path))
        columns = list(dict.fromkeys(files.mapping.values()))
        unit = files.time_unit or _time_unit(table, files.mapping, path)
        told = files.time_format or _notation(table, files.mapping, path)
        unmapped = [column for column in table.schema.names if column not in columns]
        notes = [FilterCount("columns not mapped", len(unmapped), ", ".join(unmapped))] if unmapped else []
        items = _items(files) if files.items else None
        source = SourceInfo(
            name=name,
            licence=files.licence,
            citation=files.citation,
            origin=Path(files.path).name,
            files={Path(given).name: digest for given, digest in files.sha256.items()},
        )

        def events(rows: pa.Table, label: str) -> Interactions:
            return events_log(rows, files.mapping, unit, label, told)

        size = sum(f.stat().st_size for f in ([path] if path.is_file() else path.rglob("*.parquet")))
        if files.max_users is None and size < STREAM_FROM:
            found = list(batches(table, columns, path))
            if not found:
                raise DataError(f"{path}: no data rows")
            return with_items(events(pa.Table.from_batches(found), str(path)), items, name, source, notes)
        compact = stream(table, path, columns, files.mapping["user"], events, max_users=files.max_users)
        return with_items(compact.interactions(), items, name, source, notes)


def events_log(
    rows: pa.Table, mapping: dict[str, str], unit: str, label: str, time_format: str | None = None
) -> Interactions:
    """Rows as a log with text ids, each distinct event once."""
    frame = rows.to_pandas()
    for key in ("user", "item"):
        keys = schema.ids(frame[mapping[key]], column=mapping[key], file=label)
        codes, values = pd.factorize(keys)
        text = np.array([str(value) for value in values], dtype=object)  # one object a distinct id, not one an event
        frame[mapping[key]] = pd.Series(text[codes], index=frame.index, dtype=object)
    log = Interactions.from_frame(frame, mapping, time_unit=unit, time_format=time_format, file=label)
    return without_duplicates(log)


def with_items(
    log: Interactions,
    items: pd.DataFrame | None,
    name: str,
    source: SourceInfo,
    notes: list[FilterCount],
) -> Interactions:
    """The log under its name, with the items described."""
    from recgym.data.tables import entity_table

    found: list[Any] = []
    table = entity_table(items, log["item"], "item", "item", notes_to=found)
    return Interactions(
        name=name,
        columns=log.columns,
        _items=table,
        _users=log.users,
        source=source,
        filters=(*notes, *log.filters, *(FilterCount(*note) for note in found)),
        units=log.units,
        time_origin=log.time_origin,
    )


def without_duplicates(log: Interactions) -> Interactions:
    """The log with events that are alike in every column once, and their number noted."""
    again = pd.DataFrame(dict(log.columns)).duplicated().to_numpy()
    return log.select(~again, "duplicate events", "alike in every column; one is kept") if again.any() else log


def clicks_as_responses(log: Interactions) -> Interactions:
    """A log of clicks alone, with the clicks as what the world answers; said in a note."""
    if "purchase" in log or "click" not in log:
        return log
    note = FilterCount("clicks read as purchases", int(log["click"].sum()), "the log has no purchases")
    columns = {**log.columns, "purchase": log["click"]}
    units = {**log.units, "purchase": "bool, a click"}
    return Interactions(
        log.name, columns, log.items, log.users, log.source, (*log.filters, note), units, log.time_origin
    )


def choose_users(ids: pd.Index, count: int) -> set[str]:
    """``count`` of the users, by a hash of their ids: the same ones whatever else the log holds."""
    hashed = pd.util.hash_array(np.asarray(ids, dtype=object))
    return {ids[row] for row in np.argsort(hashed, kind="stable")[:count]}


def _items(files: LogFiles) -> pd.DataFrame:
    with unpacked(Path(str(files.items))) as path:
        column = files.mapping["item"]
        found = open_table(path).schema.names
        key = next((name for name in (column, "item", "item_id") if name in found), column)
        require([key, *files.text], found, path)
        table = read_table(path, [name for name in found if name in (key, *files.text, *KEPT)], text=[key])
        table[key] = [str(value) for value in schema.ids(table[key], column=key, file=str(path))]
        doubled = table[key].duplicated()
        if doubled.any():
            row = int(np.argmax(doubled.to_numpy()))
            schema.fail(str(path), row + 1, key, table[key].iloc[row], "an id must appear once")
        return described(table.rename(columns={key: "item"}), files.text)


def described(table: pd.DataFrame, text: tuple[str, ...]) -> pd.DataFrame:
    """An item table of the columns that worlds read, with ``text`` made of the named columns."""
    if text:
        table["text"] = joined(table, text)
        if "title" not in table:
            table["title"] = table[text[0]]
    return table[["item", *(name for name in KEPT if name in table)]]


def joined(table: pd.DataFrame, columns: tuple[str, ...]) -> list[str]:
    """``Title. Description`` of each row: the values that are there."""
    rows = zip(*(table[column] for column in columns), strict=True)
    return [". ".join(words for value in row if (words := _words(value))) for row in rows]


def _words(value: Any) -> str:
    if isinstance(value, list | tuple | np.ndarray):
        return ". ".join(filter(None, map(_words, value)))
    return "" if pd.isna(value) else str(value).strip()


def _notation(table: pa.dataset.Dataset, mapping: dict[str, str], path: Path) -> str | None:
    """How a text column of times is written, told from the whole of it: a part of the users could be read otherwise."""
    if "time" not in mapping:
        return None
    kind = table.schema.field(mapping["time"]).type
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        return None
    parts = batches(table, [mapping["time"]], path, 1 << 16)
    times = (pd.Series(part.column(0).to_pandas(), dtype=object) for part in parts)
    return schema.notation(times, column=mapping["time"], file=str(path))


def _time_unit(table: pa.dataset.Dataset, mapping: dict[str, str], path: Path) -> str:
    """The unit in which the first time, if it is a number, is a moment after 1973 and before 2262."""
    column = mapping.get("time")
    if column is None or not (
        pa.types.is_integer(table.schema.field(column).type) or pa.types.is_floating(table.schema.field(column).type)
    ):
        return "D"
    first = next(batches(table, [column], path, 1024), None)
    size = abs(float(first.column(0)[0].as_py() or 0)) if first is not None else 0.0
    return next((unit for unit, low in (("ns", 1e17), ("us", 1e14), ("ms", 1e11), ("s", 1e8)) if size >= low), "D")
