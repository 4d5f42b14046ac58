"""Compiled CPU twins of the simulation's hot functions.

Every function here has a torch twin that runs on any device; the twin calls it where tensors lie on a CPU. Loops go
over lanes one by one, so a lane's result cannot depend on how many others there are. Integers agree with torch bit for
bit, floats to rounding (``tests/compiled``). Kernels are compiled on first use, some seconds once, and cached on disk.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor

_enabled = True


def enabled() -> bool:
    """Whether compiled kernels are used where tensors lie on a CPU."""
    return _enabled


def runs_on(tensor: Tensor) -> bool:
    """Whether compiled kernels work on ``tensor``: it lies on a CPU."""
    return _enabled and tensor.device.type == "cpu"


@contextmanager
def reference() -> Iterator[None]:
    """Computes with torch alone meanwhile, as other devices do: for comparisons."""
    global _enabled
    before, _enabled = _enabled, False
    try:
        yield
    finally:
        _enabled = before
