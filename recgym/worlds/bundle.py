"""Writes a world bundle: everything lands in a temporary directory that takes the bundle's place in one rename."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import torch
from safetensors.torch import save_file
from torch import Tensor

from recgym.errors import WorldError
from recgym.worlds.spec import WorldSpec
from recgym.worlds.world import MEMBERS, file_digest

CARD_FILES = ("card.json", "card.md", "groups.png", "marginals.png", "reliability.png", "sequences.png")
BUNDLE_FILES = (
    *("world.json", "items.parquet", "users.parquet", "items.safetensors", "users.safetensors", "model.safetensors"),
    *(MEMBERS, *CARD_FILES),
)


def check_bundle_directory(directory: Path) -> None:
    """Makes sure that a bundle may be written to ``directory``: a new or an empty one, or an older bundle.

    Raises:
        WorldError: it cannot be written to, or holds something other than a bundle.
    """
    check_replaceable(directory, "a world bundle", BUNDLE_FILES)


def check_replaceable(directory: Path, what: str, names: Sequence[str]) -> None:
    """Makes sure that ``replaced_directory`` loses nothing and can write; the first of ``names`` tells ``what`` it is.

    Raises:
        WorldError: the directory or one above it is a file or is not writable, or it holds something else.
    """
    parent = next(above for above in directory.absolute().parents if above.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise WorldError(f"{directory} cannot be written: {parent} is no directory in which this user may write")
    if not directory.exists():
        return
    held = {path.name for path in directory.iterdir()} if directory.is_dir() else {directory.name}
    other = sorted(held - set(names))
    if held and (other or names[0] not in held):
        shown = ", ".join(other[:3] or sorted(held)[:3])
        raise WorldError(f"{directory} holds something other than {what} ({shown}); name an empty or a new directory")


@contextmanager
def replaced_directory(path: Path) -> Iterator[Path]:
    """A directory to write to, which takes the place of ``path`` at the end.

    Nothing half-written stays behind: an error or an interruption leaves what is at ``path`` as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    new, old = work / "new", work / "old"
    try:
        new.mkdir()
        yield new
        for file in new.iterdir():
            file.chmod(0o644)  # for everybody to read; safetensors writes for its owner alone
        if path.exists():
            path.rename(old)
        new.rename(path)
    finally:
        if old.exists() and not path.exists():  # interrupted between the two renames
            old.rename(path)
        shutil.rmtree(work, ignore_errors=True)


def write_bundle(
    path: Path,
    spec: WorldSpec,
    items: pd.DataFrame,
    users: pd.DataFrame,
    item_tensors: dict[str, Tensor],
    user_tensors: dict[str, Tensor],
    weights: dict[str, Tensor],
    documents: Mapping[str, bytes],
    members: Sequence[dict[str, Tensor]] = (),
) -> WorldSpec:
    """Writes a bundle to ``path``, replacing the one that is there; returns the spec with checksums.

    Item tensors are stored in float16, and so are ``members``, the weights of an ensemble's further networks.
    ``documents`` are the card's files by name.

    Raises:
        WorldError: see ``check_bundle_directory``.
    """
    check_bundle_directory(path)
    with replaced_directory(path) as work:
        items.to_parquet(work / "items.parquet", index=False, compression="zstd")
        users.to_parquet(work / "users.parquet", index=False, compression="zstd")
        half = {k: v.to(torch.float16) if v.is_floating_point() else v for k, v in item_tensors.items()}
        for name, tensors in (("items", half), ("users", user_tensors), ("model", weights)):
            save_file({k: v.contiguous() for k, v in tensors.items()}, work / f"{name}.safetensors")
        if members:
            numbered = {f"{n}.{k}": v for n, weights in enumerate(members, 1) for k, v in weights.items()}
            save_file({k: v.to(torch.float16).contiguous() for k, v in numbered.items()}, work / MEMBERS)
        for name, content in documents.items():
            (work / name).write_bytes(content)
        spec = spec.model_copy(update={"files": {file.name: file_digest(file) for file in sorted(work.iterdir())}})
        (work / "world.json").write_text(spec.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return spec
