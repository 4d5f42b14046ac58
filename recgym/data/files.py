"""Tables of any format as Arrow data sets: CSV, TSV, parquet, JSON lines, compressed or in a zip file."""

from __future__ import annotations

import io
import re
import tempfile
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.dataset
import pyarrow.json

from recgym.data.fetch import ZIP_ERRORS, inside
from recgym.data.schema import hint
from recgym.errors import DataError

SUFFIXES = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".jsonl": "json",
    ".ndjson": "json",
    ".json": "json",
}
COMPRESSED = (".gz", ".bz2", ".zst")
# Arrow names the file twice, and how it came to open it, before it says what is wrong.
_ARROW_PREFIX = re.compile(r"^Error creating dataset\..*?Could not open \S+ input source '.*?': (?:\w+: )?", re.S)
_CUT_OFF = ("truncated", "magic bytes", "missing a closing quotation mark", "end-of-stream", "unexpected end")
BLOCK = 16 << 20  # bytes of a CSV or JSON file that are parsed at once; a row must fit


@contextmanager
def unpacked(path: Path) -> Iterator[Path]:
    """The one table of a zip file, unpacked to a directory that goes at the end; any other path is given as it is.

    Raises:
        DataError: there is no such file, it is empty, the zip file is cut off, damaged or encrypted, holds a name that
            leaves its directory, or does not hold exactly one table.
    """
    if not path.exists():
        raise DataError(f"there is no file {str(path)!r}")
    if path.is_file() and path.stat().st_size == 0:
        raise DataError(f"{path}: the file is empty (0 bytes)")
    if path.suffix != ".zip":
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="recgym-") as work:
        try:
            with zipfile.ZipFile(path) as archive:
                for name in archive.namelist():
                    _refuse_outside(path, Path(work), name)
                tables = [name for name in archive.namelist() if format_of(Path(name)) is not None]
                if len(tables) != 1:
                    raise DataError(
                        f"{path} must hold exactly one table, found: {', '.join(tables) or 'none'}; unpack it first"
                    )
                found = Path(archive.extract(tables[0], work))
        except ZIP_ERRORS as error:
            guess = "" if isinstance(error, RuntimeError) else ", perhaps a download that was cut off"
            raise DataError(f"{path}: not a readable zip file{guess}: {error}") from error
        yield found


def _refuse_outside(archive: Path, directory: Path, name: str) -> None:
    try:
        inside(directory, name)
    except DataError:
        raise DataError(f"{archive}: the name {name!r} in it leads out of its directory; not unpacked") from None


def format_of(path: Path) -> str | None:
    """``csv``, ``tsv``, ``parquet`` or ``json`` by the file's name; None for any other."""
    name = path.with_suffix("") if path.suffix in COMPRESSED else path
    return SUFFIXES.get(name.suffix)


def open_table(path: Path, *, text: Iterable[str] = (), names: Sequence[str] | None = None) -> pa.dataset.Dataset:
    """A table, opened and not read: one file, or a directory of parquet files.

    Args:
        path: the file.
        text: columns of a CSV file that are text whatever they look like (``007`` is not ``7``).
        names: the columns of a CSV file that has no header.

    Raises:
        DataError: the file is missing, empty, of an unknown format or unreadable.
    """
    if path.is_dir():
        return _guarded(path, lambda: pa.dataset.dataset(sorted(map(str, path.glob("**/*.parquet"))), format="parquet"))
    kind = format_of(path)
    if not path.is_file():
        raise DataError(f"there is no file {str(path)!r}")
    if path.stat().st_size == 0:
        raise DataError(f"{path}: the file is empty (0 bytes)")
    if kind is None:
        raise DataError(f"{path}: unknown format {path.suffix!r}. Valid: {', '.join([*SUFFIXES, '.inter', '.zip'])}.")
    if kind in ("csv", "tsv"):
        form: str | pa.dataset.FileFormat = pa.dataset.CsvFileFormat(
            parse_options=pa.csv.ParseOptions(
                delimiter="," if kind == "csv" else "\t",
                quote_char='"' if kind == "csv" else False,  # a tab-separated file does not quote
                newlines_in_values=kind == "csv",
            ),
            read_options=pa.csv.ReadOptions(column_names=names, block_size=BLOCK),
            convert_options=pa.csv.ConvertOptions(column_types=dict.fromkeys(text, pa.string())),
        )
    elif kind == "json":
        form = pa.dataset.JsonFileFormat(read_options=pa.json.ReadOptions(block_size=BLOCK))
    else:
        form = kind
    table = _guarded(path, lambda: pa.dataset.dataset(str(path), format=form))
    _guarded(path, lambda: table.schema.names)  # Arrow decodes the header only here
    return table


def batches(
    table: pa.dataset.Dataset, columns: Sequence[str], path: Path, size: int = 1 << 20
) -> Iterator[pa.RecordBatch]:
    """The rows of some columns, in the file's order, at most ``size`` at a time.

    Raises:
        DataError: the file is cut off, a value is not of its column's type, or text is not UTF-8.
    """
    for name in columns:
        kind = table.schema.field(name).type
        if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):  # what Arrow takes text for that is not UTF-8
            _refuse_not_utf8(path)
            raise DataError(f"{path}, column {name!r}: holds bytes, not text")
    scan = table.scanner(columns=list(columns), batch_size=size, batch_readahead=1, fragment_readahead=1).to_batches()
    while True:
        batch = _guarded(path, lambda: next(scan, None))
        if batch is None:
            return
        if batch.num_rows:
            yield batch


def read_table(
    path: Path, columns: Sequence[str] | None = None, *, text: Iterable[str] = (), names: Sequence[str] | None = None
) -> pd.DataFrame:
    """The rows of some columns (all where None) as a DataFrame; see ``open_table`` and ``batches``.

    Raises:
        DataError: as ``open_table``; a column is missing (the message names the nearest); no rows.
    """
    table = open_table(path, text=text, names=names)
    columns = table.schema.names if columns is None else columns
    require(columns, table.schema.names, path)
    rows = list(batches(table, columns, path))
    if not rows:
        raise DataError(f"{path}: no data rows")
    frame: pd.DataFrame = pa.Table.from_batches(rows).to_pandas()
    return frame


def read_json(path: Path, types: Mapping[str, pa.DataType]) -> pd.DataFrame:
    """Some fields of a file of JSON lines; what the others hold, and whether rows agree in it, does not matter.

    Raises:
        DataError: the file is cut off, has no rows, or a value is not of its field's type.
    """
    known = pa.json.ParseOptions(pa.schema(list(types.items())), unexpected_field_behavior="ignore")

    def read() -> pa.Table:
        with pa.input_stream(str(path), compression="detect") as stream:
            return pa.json.read_json(stream, pa.json.ReadOptions(block_size=BLOCK), known)

    table = _guarded(path, read)
    if not len(table):
        raise DataError(f"{path}: no data rows")
    frame: pd.DataFrame = table.to_pandas()
    return frame


def require(columns: Iterable[str], available: Sequence[str], path: Path) -> None:
    """Raises a DataError for the first of ``columns`` that a file lacks, with the nearest that it has."""
    for column in columns:
        if column not in available:
            raise DataError(f"{path}: no column {column!r}.{hint(column, available)} Columns: {', '.join(available)}.")


def _guarded(path: Path, read):  # type: ignore[no-untyped-def]
    """What ``read()`` gives, with Arrow's errors turned into one that names the file."""
    try:
        return read()
    except (pa.ArrowInvalid, pa.ArrowTypeError, UnicodeDecodeError, OSError, EOFError) as error:
        if "utf" in str(error).lower():
            _refuse_not_utf8(path)
        said = _ARROW_PREFIX.sub("", str(error))
        cut = " (cut off?)" if any(sign in said.lower() for sign in _CUT_OFF) else ""
        raise DataError(f"{path}: cannot be read{cut}: {said}") from error


def _refuse_not_utf8(path: Path) -> None:
    """Raises a DataError for the first line that is not UTF-8, if there is one and the file is of text."""
    if not path.is_file() or format_of(path) == "parquet":
        return
    with pa.input_stream(str(path), compression="detect") as stream, io.BufferedReader(stream) as lines:
        for number, line in enumerate(lines):
            try:
                line.decode()
            except UnicodeDecodeError as error:
                place = f"row {number}" if number else "the header"
                raise DataError(f"{path}, {place}: not UTF-8 text") from error
