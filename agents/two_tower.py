"""Two towers: the product of a user's and an item's vector, each from a network (Yi et al., RecSys 2019).

Departures from the paper: trained on what was shown and not bought instead of on sampled items, so no correction for
popularity is needed; and what is known of the pair itself (own purchases, days since) adds a term of its own, since
neither tower can see it.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from recgym.agents.features.columns import FusionMode
from recgym.agents.features.inputs import Batch, Representations, Sizes, Weights
from recgym.agents.scoring import ScoringAgent


class TwoTowers(nn.Module):
    """``<f(user), g(item)> / sqrt(d) + w^T g(item) + c(context)``."""

    def __init__(self, sizes: Sizes, dim: int, fusion: FusionMode) -> None:
        """Vectors of width ``dim``; each tower has one hidden layer."""
        super().__init__()
        self.parts = Representations(sizes, dim, fusion)
        self.user_tower, self.item_tower = (nn.Sequential(nn.ReLU(), nn.Linear(dim, dim)) for _ in range(2))
        self.of_item, self.of_context = Weights(dim), Weights(dim)

    def forward(self, batch: Batch) -> Tensor:
        """Scores [B, M]."""
        user, item = self.user_tower(self.parts.users(batch)), self.item_tower(self.parts.items(batch))
        match = (user[:, None] * item).sum(-1) / item.shape[-1] ** 0.5
        scores: Tensor = match + self.of_item(item) + self.of_context(self.parts.contexts(batch))
        return scores


class TwoTowerAgent(ScoringAgent):
    """Ranks by two towers; see ``ScoringAgent``."""

    id = "two_tower"

    @classmethod
    def network(cls, sizes: Sizes, config: Any) -> nn.Module:
        """See ``ScoringAgent``."""
        return TwoTowers(sizes, config.dim, config.fusion)
