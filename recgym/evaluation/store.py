"""The directory of an evaluation: what was asked, the parts finished so far, and a refusal to mix two evaluations."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import platform
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from recgym.errors import RecGymError

MANIFEST = "run.json"
ROWS = "rows.parquet"
TRAINING = "training.parquet"
FORMAT_VERSION = 2  # 2: how an episode ended, and attention on first slates alone
# The versions on which rows can depend.
_DISTRIBUTIONS = ("recgym", "torch", "numpy", "pandas", "pyarrow", "gymnasium", "stable-baselines3")


def versions() -> dict[str, str]:
    """Versions of Python and of what the numbers depend on."""
    found = {"python": platform.python_version()}
    for name in _DISTRIBUTIONS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def atomically(path: Path, write: Callable[[Path], Any]) -> None:
    """Lets ``write`` fill a temporary file, then moves it to ``path``: an interruption leaves no half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    temporary = Path(name)
    try:
        write(temporary)
        temporary.chmod(0o644)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, content: Any) -> None:
    """Writes ``content`` as indented JSON, atomically."""
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    atomically(path, lambda file: file.write_text(text, encoding="utf-8"))


def write_parquet(path: Path, table: pd.DataFrame) -> None:
    """Writes ``table`` as parquet, atomically; equal tables give equal bytes."""
    atomically(path, lambda file: table.to_parquet(file, index=False, compression="zstd"))


def write_pieces(path: Path, pieces: Iterable[pd.DataFrame]) -> None:
    """Writes tables of one layout as one parquet file, atomically, with one of them in memory at a time.

    Empty pieces are left out; where there are no others, the file holds an empty table.
    """

    def write(file: Path) -> None:
        writer: pq.ParquetWriter | None = None
        for piece in pieces:
            if not len(piece):
                continue
            table = pa.Table.from_pandas(piece, schema=writer.schema if writer else None, preserve_index=False)
            writer = writer or pq.ParquetWriter(file, table.schema, compression="zstd")
            writer.write_table(table)
        if writer is None:
            pd.DataFrame().to_parquet(file)
        else:
            writer.close()

    atomically(path, write)


class RunDirectory:
    """One evaluation on disk: ``run.json``, finished parts under ``parts/``, and the merged tables."""

    def __init__(self, path: str | Path) -> None:
        """Opens ``path``; nothing is written before the first ``claim``.

        Raises:
            RecGymError: the directory holds an evaluation that cannot be read, or something else than an evaluation.
        """
        self.path = Path(path)
        if self.path.exists() and not self.path.is_dir():
            raise RecGymError(f"{self.path} is a file; give a directory to write the evaluation to")
        self.manifest: dict[str, Any] = {}
        if (self.path / MANIFEST).is_file():
            self.manifest = read_manifest(self.path)

    def claim(self, key: str, content: Any) -> None:
        """Records ``content`` under ``key`` of ``run.json``, or refuses the directory if it holds another.

        Raises:
            RecGymError: names what differs from the evaluation that the directory was started with.
        """
        content = json.loads(json.dumps(content))
        if key in self.manifest:
            found = list(differences(self.manifest[key], content))
            if found:
                raise RecGymError(
                    f"{self.path} holds another evaluation; it differs in {'; '.join(found[:4])}"
                    f"{' and more' if len(found) > 4 else ''}. Choose another directory (--out), or delete this one."
                )
            return
        self.record(key, content)

    def record(self, key: str, content: Any) -> None:
        """Writes ``content`` under ``key`` of ``run.json``, whatever was there."""
        self.manifest = {"format_version": FORMAT_VERSION, **self.manifest, key: content}
        write_json(self.path / MANIFEST, self.manifest)

    def part(self, name: str, table: str) -> Path:
        """Where the table ``table`` of part ``name`` lies."""
        return self.path / "parts" / f"{_slug(name)}.{table}.parquet"

    def has_part(self, name: str, tables: tuple[str, ...]) -> bool:
        """Whether part ``name`` is finished: all its tables are in place."""
        return all(self.part(name, table).is_file() for table in tables)

    def read_part(self, name: str, table: str) -> pd.DataFrame:
        """A table of a finished part."""
        return pd.read_parquet(self.part(name, table))

    def save_part(self, name: str, tables: Mapping[str, pd.DataFrame]) -> None:
        """Writes a finished part; it counts as finished once its last table is in place."""
        for table, content in tables.items():
            write_parquet(self.part(name, table), content)


def read_manifest(path: str | Path) -> dict[str, Any]:
    """The checked ``run.json`` of an evaluation.

    Raises:
        RecGymError: there is none, it cannot be read, or it is of another format version.
    """
    file = Path(path) / MANIFEST
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise RecGymError(f"{file} cannot be read: {error}") from error
    version = manifest.get("format_version") if isinstance(manifest, dict) else None
    if version != FORMAT_VERSION:
        raise RecGymError(
            f"{file} has format_version {version!r}; this RecGym reads {FORMAT_VERSION}: evaluate again, into another "
            "directory (--out)"
        )
    return dict(manifest)


def differences(before: Any, now: Any, key: str = "") -> Iterator[str]:
    """Readable differences of two JSON values, such as ``users: 500 there, 200 here``."""
    if isinstance(before, dict) and isinstance(now, dict):
        for name in sorted({*before, *now}):
            dotted = f"{key}.{name}" if key else name
            if name not in now:
                yield f"{dotted}: only there"
            elif name not in before:
                yield f"{dotted}: only here"
            else:
                yield from differences(before[name], now[name], dotted)
    elif before != now:
        yield f"{key}: {_short(before)} there, {_short(now)} here"


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _slug(name: str) -> str:
    """A file name for ``name``; where characters had to go, a digest keeps two names apart."""
    slug = re.sub(r"[^\w.+=-]+", "-", name)
    return slug if slug == name else f"{slug}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
