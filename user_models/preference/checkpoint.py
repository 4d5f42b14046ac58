"""Training checkpoints in safetensors and JSON: model, best model so far, optimiser and counters."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn


def _replace(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    partial = path.with_suffix(".partial")
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, partial)
    partial.rename(path)


def save_checkpoint(
    path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, state: dict[str, Any], improved: bool
) -> None:
    """Writes a checkpoint directory; the JSON is written last, so that what it describes is complete."""
    path.mkdir(parents=True, exist_ok=True)
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    for number, slots in optimizer.state_dict()["state"].items():
        tensors.update({f"optimizer.{number}.{name}": torch.as_tensor(value) for name, value in slots.items()})
    name = f"epoch-{state['epoch']}.safetensors"
    _replace(path / name, tensors)
    if improved:
        _replace(path / "best.safetensors", dict(model.state_dict()))
    partial = path / "state.partial"
    partial.write_text(json.dumps({**state, "file": name}), encoding="utf-8")
    partial.rename(path / "state.json")
    for old in path.glob("epoch-*.safetensors"):
        if old.name != name:
            old.unlink()


def last_good(*paths: Path) -> str:
    """What an error says of the newest checkpoint: the first of ``paths`` that was written, or that none was."""
    written = next((path for path in paths if (path / "state.json").is_file()), None)
    return "no checkpoint was written yet" if written is None else f"the last good checkpoint is {written}"


def load_checkpoint(
    path: Path, model: nn.Module, optimizer: torch.optim.Optimizer | None, *, best: bool = False
) -> dict[str, Any] | None:
    """Restores model and optimiser from ``path`` and returns the counters; None where there is no checkpoint.

    With ``best``, restores the best model so far alone.
    """
    if not (path / "state.json").is_file():
        return None
    state: dict[str, Any] = json.loads((path / "state.json").read_text(encoding="utf-8"))
    if best:
        model.load_state_dict(load_file(path / "best.safetensors"))
        return state
    tensors = load_file(path / state["file"])
    model.load_state_dict({k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")})
    if optimizer is not None:
        slots: dict[int, dict[str, torch.Tensor]] = {}
        for key, value in tensors.items():
            if key.startswith("optimizer."):
                _, number, name = key.split(".", 2)
                slots.setdefault(int(number), {})[name] = value
        whole = optimizer.state_dict()
        optimizer.load_state_dict({"state": slots, "param_groups": whole["param_groups"]})
    return state
