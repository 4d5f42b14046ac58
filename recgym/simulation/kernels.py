"""Row-wise kernels that torch is slow at on a CPU."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from recgym import compiled
from recgym.compiled import choice


def sort_rows(keys: Tensor) -> Tensor:
    """Integer keys [B, n] sorted ascending along each row.

    On a CPU through numpy, whose vectorised integer sort is some 20 times faster than torch's; sorted integers are the
    same integers whoever sorts them, so results agree across devices.
    """
    if compiled.runs_on(keys):
        return torch.from_numpy(np.sort(keys.numpy(), axis=1))
    return keys.sort(dim=1).values


def smallest(keys: Tensor, count: int) -> Tensor:
    """The ``count`` smallest integer keys of each row, in no particular order: [B, n] -> [B, count]."""
    if compiled.runs_on(keys):
        if count >= keys.shape[1]:
            return keys
        return torch.from_numpy(np.partition(keys.numpy(), count - 1, axis=1)[:, :count])
    return keys.topk(min(count, keys.shape[1]), dim=1, largest=False, sorted=False).values


def repeats_earlier(items: Tensor) -> Tensor:
    """Whether an item also stands at an earlier position of its row: [B, K] -> bool [B, K]."""
    if compiled.runs_on(items):
        out = torch.empty(items.shape, dtype=torch.bool)
        choice.repeats_earlier(items.numpy(), out.numpy())
        return out
    width = items.shape[1]
    earlier = torch.ones(width, width, dtype=torch.bool, device=items.device).tril_(-1)
    return ((items[:, :, None] == items[:, None, :]) & earlier).any(dim=2)


def sigmoid(values: Tensor) -> Tensor:
    """The logistic function, bitwise the same for a value wherever it stands in a tensor.

    ``torch.sigmoid``, ``silu``, ``gelu`` and ``pow`` compute the last elements of a tensor (its size modulo twice the
    vector width) and strided tensors by another routine, off by one unit in the last place, so a lane's probability
    would depend on how many lanes there are. exp, log and log1p do not.
    """
    return 1.0 / (1.0 + torch.exp(-values))
