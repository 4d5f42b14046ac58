"""Text embeddings evened out: their principal components, the strong ones weakened."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Evening:
    """Half-way whitening: each principal component divided by the square root of its standard deviation.

    Embeddings of sentences share a mean and a few strong directions, in which all items are alike (Li et al., On the
    sentence embeddings from pre-trained language models, EMNLP 2020); whitening brings out what tells them apart
    (Su et al., Whitening sentence representations for better semantics and faster retrieval, 2021). Whole whitening
    would blow up the noise of the weakest components as well. The scale is that of unit variance, on average.
    """

    mean: Tensor  # [width]
    directions: Tensor  # [width, components]

    @classmethod
    def of(cls, text: Tensor, components: int) -> Self:
        """From text embeddings [N, width]; components without variance are left out, but for the first."""
        mean = text.mean(0)
        spread, directions = torch.linalg.eigh(torch.cov((text - mean).T.double()))
        spread, directions = spread.flip(0)[:components], directions.flip(1)[:, :components]
        kept = spread > 1e-10 * spread[0].clamp(min=1e-12)
        if not kept.any():  # one text for all items, or none
            return cls(mean, torch.zeros_like(text[:1].T))
        spread, directions = spread[kept], directions[:, kept]
        scaled = directions * spread**-0.25  # of variances: the square root of the square root
        return cls(mean, (scaled / spread.sqrt().mean().sqrt()).to(text))

    def __call__(self, text: Tensor) -> Tensor:
        """[N, width] -> [N, components]."""
        return (text - self.mean) @ self.directions
