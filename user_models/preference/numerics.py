"""Arithmetic whose result for one row never depends on how many other rows there are."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

ROW_MULTIPLE = 8


def linear(inputs: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``inputs @ weight.T + bias`` for inputs [B, n], bitwise the same for a row alone or in any batch.

    float32 products are computed by kernels chosen by the number of rows (a single row takes a matrix-vector path), so
    rows are padded to a multiple of 8; every row then meets the same kernel.
    """
    rows = inputs.shape[0]
    padding = -rows % ROW_MULTIPLE
    if padding:
        inputs = F.pad(inputs, (0, 0, 0, padding))
    return F.linear(inputs, weight, bias)[:rows]


def dot(inputs: Tensor, weight: Tensor) -> Tensor:
    """``(inputs * weight).sum(-1)``: a product with a single output column, as multiply and sum."""
    return (inputs * weight).sum(-1)


def sigmoid(values: Tensor) -> Tensor:
    """The logistic function, bitwise the same for a value wherever it stands in a tensor.

    ``torch.sigmoid``, ``silu``, ``gelu`` and ``pow`` compute the last elements of a tensor (its size modulo twice the
    vector width) and strided tensors by another routine, off by one unit in the last place. exp, log, log1p do not.
    """
    return 1.0 / (1.0 + torch.exp(-values))


def silu(values: Tensor) -> Tensor:
    """``values * sigmoid(values)``; see ``sigmoid``."""
    return values * sigmoid(values)
