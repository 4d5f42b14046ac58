"""The one-hidden-layer scorer ``W^T sigma(U x + V y + b)``: user x, item y, squared loss."""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from recgym.agents.features.columns import Ids
from recgym.agents.features.inputs import Batch, ItemTokens, Sizes, Weights
from recgym.agents.scoring import ScoringAgent, ScoringConfig


class OneHiddenLayer(nn.Module):
    """``s = W^T h`` with ``h = sigma(z)``, ``z = U x + V y + b`` and sigma the logistic function.

    For one pair with target t and loss ``L = (s - t)^2``, by the chain rule, with ``e = 2 (s - t)`` and
    ``d = e W * h * (1 - h)`` (elementwise; ``sigma' = sigma (1 - sigma)``):

        dL/dW = e h      dL/db = d      dL/dU = d x^T      dL/dV = d y^T      dL/dx = U^T d      dL/dy = V^T d

    and for a mean over n pairs the mean of these. ``U x`` is computed once a user.
    """

    def __init__(self, user: int, item: int, hidden: int) -> None:
        """U [hidden, user], V [hidden, item], b and W [hidden]."""
        super().__init__()
        self.u, self.v = nn.Linear(user, hidden), nn.Linear(item, hidden, bias=False)  # the bias of u is b
        self.w = Weights(hidden)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Scores [B, M] of users x [B, user] with items y [B, M, item]."""
        scores: Tensor = self.w((self.u(x)[:, None] + self.v(y)).sigmoid())
        return scores


class ScorerNetwork(nn.Module):
    """x: a user's features, id and mean of the items consumed; y: an item's features, id and context."""

    def __init__(self, sizes: Sizes, dim: int, hidden: int) -> None:
        """Ids as vectors of width ``dim``."""
        super().__init__()
        self.user_ids, self.item_ids = Ids(sizes.num_users, dim), Ids(sizes.num_items, dim)
        self.tokens = ItemTokens(sizes, dim)
        self.layer = OneHiddenLayer(sizes.user + 2 * dim, sizes.item + sizes.context + dim, hidden)

    def forward(self, batch: Batch) -> Tensor:
        """Scores [B, M]."""
        x = torch.cat([batch.user, self.user_ids(batch.user_id), self.tokens.mean(batch.history)], dim=-1)
        y = torch.cat([batch.item, batch.context, self.item_ids(batch.item_id)], dim=-1)
        scores: Tensor = self.layer(x, y)
        return scores


class ScorerConfig(ScoringConfig):
    """Settings of ``ScorerAgent``."""

    hidden: int = Field(64, ge=1, description="width of the hidden layer")


class ScorerAgent(ScoringAgent):
    """Ranks by the scorer that ``OneHiddenLayer`` describes; see ``ScoringAgent``."""

    id = "scorer"
    loss = "squared"
    Config = ScorerConfig

    @classmethod
    def network(cls, sizes: Sizes, config: Any) -> nn.Module:
        """See ``ScoringAgent``."""
        return ScorerNetwork(sizes, config.dim, config.hidden)
