"""Large outputs without fresh memory: a buffer is used again as soon as nobody holds it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

_SMALLEST = 1 << 20  # bytes below which the allocator does as well
_KEPT = 4  # free buffers kept of a size: some being filled, one in the caller's hands, one on its way back


class _Loan:
    """Memory out on loan, given back when the last array, tensor or view on it is gone."""

    def __init__(self, memory: np.ndarray, free: list[np.ndarray]) -> None:
        self._memory, self._free = memory, free
        self.__array_interface__ = memory.__array_interface__

    def __del__(self) -> None:
        if len(self._free) < _KEPT:
            self._free.append(self._memory)


class Buffers:
    """Uninitialised float32 tensors on a device.

    Memory fresh from the operating system costs a page fault every 4 KB, which for the candidates of 4,096 lanes takes
    longer than computing them. What a caller still holds, whole or in part, is never handed out again.
    """

    def __init__(self, device: torch.device) -> None:
        """Buffers on ``device``; other devices than CPUs have an allocator that already does this."""
        self._device = device
        self._free: dict[int, list[np.ndarray]] = {}

    def take(self, *shape: int) -> Tensor:
        """A tensor [*shape] with any content."""
        size = math.prod(shape)
        if self._device.type != "cpu" or 4 * size < _SMALLEST:
            return torch.empty(shape, device=self._device)
        step = 1 << max(size.bit_length() - 3, 0)
        room = -(-size // step) * step  # sizes that differ by little share their buffers
        free = self._free.setdefault(room, [])
        memory = free.pop() if free else np.empty(room, np.float32)
        loan: Any = _Loan(memory, free)
        return torch.from_numpy(np.asarray(loan))[:size].view(shape)
