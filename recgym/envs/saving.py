"""Saved states as safetensors files that are there whole or not at all, and say so when they were damaged."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from recgym.errors import StateError

_DIGEST = "sha256"  # key of the digest in the file's metadata


def write_state(path: str | Path, tensors: Mapping[str, Tensor]) -> Path:
    """Writes what ``get_state`` gave, and returns the path. A file that is there is replaced in one go."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    here = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        save_file(here, temporary, {_DIGEST: _digest(here)})
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def read_state(path: str | Path) -> dict[str, Tensor]:
    """What ``write_state`` wrote, on the CPU.

    Raises:
        StateError: there is no such file, it is cut off or damaged, or it is no saved state.
    """
    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
            digest = (file.metadata() or {}).get(_DIGEST)
    except (OSError, SafetensorError) as error:
        raise StateError(f"{path} cannot be read as a saved state (a safetensors file, whole): {error}") from error
    if digest is None:
        raise StateError(f"{path} is no saved state: its metadata has no {_DIGEST!r}; save_state writes one")
    if digest != _digest(tensors):
        raise StateError(f"{path} is damaged: its tensors do not have the {_DIGEST} that was written with them")
    return tensors


def _digest(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
