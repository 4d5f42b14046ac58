"""Arithmetic whose result for one row never depends on how many other rows there are."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from recgym.simulation.kernels import sigmoid

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


def silu(values: Tensor) -> Tensor:
    """``values * sigmoid(values)``; see ``recgym.simulation.kernels.sigmoid``."""
    return values * sigmoid(values)
