"""Scores in blocks of lanes, so that a lane has bitwise the same ones alone and in any batch."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

LANES_PER_BLOCK = 32  # scored at a time


def by_block(score: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
    """``score`` of lane-first ``inputs``, in blocks of a fixed number of lanes, padded with zeros.

    Products round differently with the number of rows; with one shape for all calls, a lane has bitwise the same scores
    alone and in any batch.
    """
    out = []
    for start in range(0, len(inputs[0]), LANES_PER_BLOCK):
        block = [values[start : start + LANES_PER_BLOCK] for values in inputs]
        missing = LANES_PER_BLOCK - len(block[0])
        if missing:
            block = [torch.cat([values, values.new_zeros(missing, *values.shape[1:])]) for values in block]
        out.append(score(*block))
    return torch.cat(out)[: len(inputs[0])]
