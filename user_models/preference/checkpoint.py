"""Training checkpoints in safetensors and JSON: model, best model so far, optimiser, counters, and of what training."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from recgym.errors import RecGymError

VERSION = 2  # goes up where a training would not go on from an older checkpoint as it began


class Checkpoint(NamedTuple):
    """What a checkpoint directory holds."""

    state: dict[str, Any]  # counters
    tensors: dict[str, torch.Tensor]  # ``model.NAME`` and ``optimizer.NUMBER.NAME``


def _replace(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    partial = path.with_suffix(".partial")
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, partial)
    partial.rename(path)


def save_checkpoint(
    path: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    state: dict[str, Any],
    improved: bool,
    origin: Mapping[str, Any] | None = None,
) -> None:
    """Writes a checkpoint directory; the JSON is written last, so that what it describes is complete.

    ``origin`` says what the training is made of, in JSON values: whoever loads the checkpoint has to name the same.
    """
    path.mkdir(parents=True, exist_ok=True)
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    best = dict(tensors)
    for number, slots in optimizer.state_dict()["state"].items():
        tensors.update({f"optimizer.{number}.{name}": torch.as_tensor(value) for name, value in slots.items()})
    name = f"epoch-{state['epoch']}.safetensors"
    _replace(path / name, tensors)
    if improved:
        _replace(path / "best.safetensors", best)
    partial = path / "state.partial"
    told = {**state, "file": name, "version": VERSION, "origin": origin}
    partial.write_text(json.dumps(told), encoding="utf-8")
    partial.rename(path / "state.json")
    for old in path.glob("epoch-*.safetensors"):
        if old.name != name:
            old.unlink()


def last_good(*paths: Path) -> str:
    """What an error says of the newest checkpoint: the first of ``paths`` that was written, or that none was."""
    written = next((path for path in paths if (path / "state.json").is_file()), None)
    return "no checkpoint was written yet" if written is None else f"the last good checkpoint is {written}"


def read_checkpoint(path: Path, origin: Mapping[str, Any] | None = None, *, best: bool = False) -> Checkpoint | None:
    """The checkpoint in ``path``, None where there is none; with ``best``, the best model so far without optimiser.

    Raises:
        RecGymError: it cannot be read, another version wrote it, or it is of another training than ``origin`` says.
    """
    if not (path / "state.json").is_file():
        return None
    try:
        state: dict[str, Any] = json.loads((path / "state.json").read_text(encoding="utf-8"))
        version, there = state.get("version"), state.get("origin")
        tensors = load_file(path / ("best.safetensors" if best else state["file"]))
    except (OSError, ValueError, KeyError, AttributeError, SafetensorError) as error:
        raise _useless(path, f"cannot be read ({type(error).__name__}: {error})") from error
    if version != VERSION:
        raise _useless(path, "was written by another version of RecGym")
    other = [] if origin is None else differences(there, json.loads(json.dumps(origin)))
    if other:
        raise _useless(path, f"is of another training ({'; '.join(other)})")
    return Checkpoint(state, tensors)


def load_checkpoint(
    path: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer | None,
    origin: Mapping[str, Any] | None = None,
    *,
    best: bool = False,
    read: Callable[[Callable[[], Checkpoint | None]], Checkpoint | None] = lambda reading: reading(),
) -> dict[str, Any] | None:
    """Restores model and optimiser from ``path`` and returns the counters; None where there is no checkpoint.

    With ``best``, restores the best model so far alone. ``read`` calls what it is given and returns the result: where
    several processes train together, one reads for all.

    Raises:
        RecGymError: see ``read_checkpoint``, or the checkpoint does not fit the model.
    """
    found = read(lambda: read_checkpoint(path, origin, best=best))
    if found is None:
        return None
    try:
        model.load_state_dict(
            {name.removeprefix("model."): value for name, value in found.tensors.items() if name.startswith("model.")}
        )
        if optimizer is not None:
            slots: dict[int, dict[str, torch.Tensor]] = {}
            for key, value in found.tensors.items():
                if key.startswith("optimizer."):
                    _, number, name = key.split(".", 2)
                    slots.setdefault(int(number), {})[name] = value
            optimizer.load_state_dict({"state": slots, "param_groups": optimizer.state_dict()["param_groups"]})
    except (RuntimeError, ValueError) as error:
        raise _useless(path, "does not hold the parameters of this model") from error
    return found.state


def _useless(path: Path, why: str) -> RecGymError:
    return RecGymError(f"the checkpoint in {path} {why}; delete that directory to begin anew, or train in another one")


# ------------------------------------------------------------------ what a training is made of


def digest(*values: np.ndarray | torch.Tensor | str | None) -> str:
    """A short hash of arrays and texts."""
    found = hashlib.sha256()
    for value in values:
        if isinstance(value, torch.Tensor):
            value = value.detach().cpu().numpy()
        if isinstance(value, np.ndarray):
            found.update(f"{value.dtype}{value.shape}".encode())
            found.update(np.ascontiguousarray(value).data)
        else:
            found.update(f"{value if value is None else len(value)}:{value}".encode())
    return found.hexdigest()[:16]


def sketch(table: torch.Tensor) -> list[float]:
    """A few sums of a table [N, width] that tell it from others, alike however many threads have rounded it."""
    sums = torch.linspace(1, 2, len(table), dtype=torch.float64) @ table.double().abs()  # in order of the rows
    return [*map(float, table.shape), *sums[:4].tolist(), *sums[-4:].tolist()]


def differences(there: Any, here: Any, name: str = "") -> list[str]:
    """In which of the values named in them two JSON values differ; numbers of a list may differ by their rounding."""
    if isinstance(there, dict) and isinstance(here, dict):
        keys = sorted({*there, *here})
        parts = [differences(there.get(key), here.get(key), f"{name}.{key}" if name else key) for key in keys]
        return [part for found in parts for part in found]
    if isinstance(there, list) and isinstance(here, list) and len(there) == len(here):
        pairs = list(zip(there, here, strict=True))
        if all(a == b or isinstance(b, float) and math.isclose(a, b, rel_tol=1e-5, abs_tol=1e-4) for a, b in pairs):
            return []
    return [] if there == here else [f"{name} {there!r} there, {here!r} here"]
