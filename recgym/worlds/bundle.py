"""Writes a world bundle: everything lands in a temporary directory that takes the bundle's place in one rename."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pandas as pd
import torch
from safetensors.torch import save_file
from torch import Tensor

from recgym.worlds.spec import WorldSpec
from recgym.worlds.world import file_digest


def write_bundle(
    path: Path,
    spec: WorldSpec,
    items: pd.DataFrame,
    users: pd.DataFrame,
    item_tensors: dict[str, Tensor],
    user_tensors: dict[str, Tensor],
    weights: dict[str, Tensor],
    card: str,
) -> WorldSpec:
    """Writes a bundle to ``path``, replacing the one that is there; returns the spec with checksums.

    Item tensors are stored in float16. Nothing half-written stays behind: an error leaves the old bundle in place.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    try:
        items.to_parquet(work / "items.parquet", index=False, compression="zstd")
        users.to_parquet(work / "users.parquet", index=False, compression="zstd")
        half = {k: v.to(torch.float16) if v.is_floating_point() else v for k, v in item_tensors.items()}
        for name, tensors in (("items", half), ("users", user_tensors), ("model", weights)):
            save_file({k: v.contiguous() for k, v in tensors.items()}, work / f"{name}.safetensors")
        (work / "card.md").write_text(card, encoding="utf-8")
        for file in work.iterdir():
            file.chmod(0o644)  # a bundle is for everybody to read; safetensors writes for its owner alone
        files = {file.name: file_digest(file) for file in sorted(work.iterdir())}
        spec = spec.model_copy(update={"files": files})
        (work / "world.json").write_text(spec.model_dump_json(indent=2) + "\n", encoding="utf-8")
        if path.exists():
            shutil.rmtree(path)
        work.chmod(0o755)
        work.rename(path)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise
    return spec
