"""Neural collaborative filtering: NeuMF, a product of factors beside a network (He et al., WWW 2017).

Departures from the paper: users and items are fused from ids and features, the network reads the context too, and
both parts are trained together from the start.
"""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from recgym.agents.features.columns import FusionMode
from recgym.agents.features.inputs import Batch, Representations, Sizes, Weights, mlp
from recgym.agents.scoring import ScoringAgent, ScoringConfig


class NeuMF(nn.Module):
    """``h^T (p_u * q_i) + MLP([p'_u, q'_i, c])``; the two parts have vectors of their own."""

    def __init__(self, sizes: Sizes, dim: int, hidden: int, fusion: FusionMode) -> None:
        """Vectors of width ``dim``, hidden layers of widths ``hidden`` and half of it."""
        super().__init__()
        self.factors, self.deep = (Representations(sizes, dim, fusion) for _ in range(2))
        self.factors.fuse_context = None  # the product is of users and items alone
        self.product = Weights(dim)
        self.layers = mlp((3 * dim, hidden, max(hidden // 2, 1)))

    def forward(self, batch: Batch) -> Tensor:
        """Scores [B, M]."""
        product = self.product(self.factors.users(batch)[:, None] * self.factors.items(batch))
        items = self.deep.items(batch)
        users = self.deep.users(batch)[:, None].expand_as(items)
        scores: Tensor = product + self.layers(torch.cat([users, items, self.deep.contexts(batch)], dim=-1))
        return scores


class NCFConfig(ScoringConfig):
    """Settings of ``NCFAgent``."""

    hidden: int = Field(64, ge=1, description="width of the first layer of the network, the second has half of it")


class NCFAgent(ScoringAgent):
    """Ranks by NeuMF; see ``ScoringAgent``."""

    id = "ncf"
    Config = NCFConfig

    @classmethod
    def network(cls, sizes: Sizes, config: Any) -> nn.Module:
        """See ``ScoringAgent``."""
        return NeuMF(sizes, config.dim, config.hidden, config.fusion)
