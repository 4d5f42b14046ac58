"""Columns of numbers and ids as networks want them, and several sources fused into one vector."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

FusionMode = Literal["concat", "weighted", "gated"]
_TAIL = 1e-3  # of the values at either end that are clipped
_CLIP = 5.0  # standard deviations


class Numeric(nn.Module):
    """Numbers with outliers clipped, then to zero mean and unit variance; a missing one (NaN) gets a learned value.

    The clipping points are the quantiles 0.001 and 0.999 of what ``calibrate`` saw, and 5 standard deviations.
    """

    low: Tensor
    high: Tensor
    mean: Tensor
    scale: Tensor

    def __init__(self, num_columns: int) -> None:
        """The identity on ``num_columns`` columns until ``calibrate`` is called."""
        super().__init__()
        self.register_buffer("low", torch.full((num_columns,), -torch.inf))
        self.register_buffer("high", torch.full((num_columns,), torch.inf))
        self.register_buffer("mean", torch.zeros(num_columns))
        self.register_buffer("scale", torch.ones(num_columns))
        self.missing = nn.Parameter(torch.zeros(num_columns))  # in standard deviations from the mean

    @torch.no_grad()
    def calibrate(self, rows: Tensor) -> None:
        """Sets the columns' maps from ``rows`` [n, num_columns], NaN where missing.

        A column that does not vary, or only in its outliers, is left at unit scale.
        """
        if not rows.shape[1] or not len(rows):
            return
        tails = torch.tensor([_TAIL, 1 - _TAIL])
        bounds = torch.stack([_quantiles(column, tails) for column in rows.unbind(1)])  # [F, 2]
        # Where nearly all values are one (a rare flag), the quantiles would clip all that the column says.
        flat = bounds[:, 0] == bounds[:, 1]
        self.low.copy_(torch.where(flat, -torch.inf, bounds[:, 0]))
        self.high.copy_(torch.where(flat, torch.inf, bounds[:, 1]))
        clipped = torch.maximum(torch.minimum(rows, self.high), self.low)
        self.mean.copy_(clipped.nanmean(0).nan_to_num(0.0))
        spread = (clipped - self.mean).square().nanmean(0).sqrt().nan_to_num(0.0)
        self.scale.copy_(torch.where(spread > 1e-6, 1.0 / spread.clamp(min=1e-6), 1.0))

    def forward(self, x: Tensor) -> Tensor:
        """[..., num_columns] as calibrated."""
        scaled = (torch.maximum(torch.minimum(x, self.high), self.low) - self.mean) * self.scale
        return torch.where(torch.isnan(x), self.missing, scaled.clamp(-_CLIP, _CLIP))


def _quantiles(column: Tensor, at: Tensor) -> Tensor:
    """Quantiles of the values that are there, nearest rank; any number of values (``torch.quantile`` has a limit)."""
    values = column[~torch.isnan(column)].sort().values
    if not len(values):
        return torch.zeros(len(at))
    return values[(at * (len(values) - 1)).round().long()]


class Ids(nn.Module):
    """A vector for each known id 0 to n - 1, and one for all the others."""

    def __init__(self, num_ids: int, dim: int) -> None:
        """Vectors of width ``dim`` for ``num_ids`` known ids; row 0 of the table is the unknown."""
        super().__init__()
        self.num_ids = num_ids
        self.table = nn.Embedding(num_ids + 1, dim)

    def forward(self, ids: Tensor) -> Tensor:
        """[..., dim] of int64 ids [...]."""
        return self.table(torch.where((ids >= 0) & (ids < self.num_ids), ids + 1, 0))


class Fusion(nn.Module):
    """One vector [..., dim] from several sources.

    concat: a linear map of all of them side by side. weighted: their linear maps, averaged with learned weights that
    are the same everywhere (a softmax). gated: their linear maps, each coordinate let through by a sigmoid gate that
    looks at all of them (Arevalo et al., "Gated multimodal units", 2017, with one gate a source). Sources of width 0
    are left out.
    """

    def __init__(self, widths: Sequence[int], dim: int, mode: FusionMode) -> None:
        """From sources of ``widths`` to ``dim``."""
        super().__init__()
        self.mode = mode
        self._kept = [i for i, width in enumerate(widths) if width]
        widths = [widths[i] for i in self._kept]
        self.maps = nn.ModuleList(nn.Linear(width, dim) for width in widths)
        if mode == "weighted":
            self.weights = nn.Parameter(torch.zeros(len(widths)))
        if mode == "gated":
            self.gates = nn.ModuleList(nn.Linear(dim * len(widths), dim) for _ in widths)

    def forward(self, sources: Sequence[Tensor]) -> Tensor:
        """[..., dim] of sources [..., width] each."""
        # A linear map of sources side by side is the sum of the linear maps of each.
        mapped = [each(sources[i]) for each, i in zip(self.maps, self._kept, strict=True)]
        if self.mode == "weighted":
            mapped = [weight * each for weight, each in zip(self.weights.softmax(0), mapped, strict=True)]
        if self.mode == "gated":
            together = torch.cat(mapped, dim=-1).tanh()
            mapped = [gate(together).sigmoid() * each for gate, each in zip(self.gates, mapped, strict=True)]
        return torch.stack(mapped).sum(0)


@torch.no_grad()
def initialise(module: nn.Module, generator: torch.Generator) -> None:
    """Draws every weight from ``generator``: matrices by fan-in, item tables small, biases and user tables 0.

    Tables named ``user_ids`` start at 0, so that before training a user is like any unknown one.
    """
    for name, part in module.named_modules():
        if isinstance(part, nn.Linear):
            bound = part.in_features**-0.5
            part.weight.uniform_(-bound, bound, generator=generator)
            if part.bias is not None:
                part.bias.zero_()
        elif isinstance(part, nn.Embedding):
            if "user_ids" in name:
                part.weight.zero_()
            else:
                part.weight.normal_(0.0, 0.05, generator=generator)
                part.weight[0].zero_()
