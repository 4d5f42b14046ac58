"""Factorisation machine: every pair of features interacts by the product of their factors (Rendle, ICDM 2010)."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from recgym.agents.features.columns import Ids
from recgym.agents.features.inputs import Batch, ItemTokens, Sizes, Weights
from recgym.agents.scoring import ScoringAgent


class Fields(nn.Module):
    """The linear part and the pooled pairwise interactions of all features of a pair.

    With features x_j and factors v_j, pooled = sum over j < l of x_j v_j * x_l v_l (elementwise), which is half of
    (sum_j x_j v_j)^2 - sum_j (x_j v_j)^2. Features are the ids, the numbers of user, item and context, and the
    items consumed before, 1/n each, which take part as one.
    """

    def __init__(self, sizes: Sizes, factors: int) -> None:
        """Factors of width ``factors``."""
        super().__init__()
        self.user_ids, self.item_ids = Ids(sizes.num_users, factors), Ids(sizes.num_items, factors)
        self.bias_user_ids, self.item_bias = Ids(sizes.num_users, 1), Ids(sizes.num_items, 1)
        self.tokens = ItemTokens(sizes, factors)
        widths = {"user": sizes.user, "item": sizes.item, "context": sizes.context}
        self.factors = nn.ModuleDict({k: nn.Linear(n, factors, bias=False) for k, n in widths.items() if n})
        self.linear = nn.ModuleDict({k: Weights(n) for k, n in widths.items() if n})

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Linear part [B, M] and pooled interactions [B, M, factors]."""
        vectors = self.user_ids(batch.user_id), self.tokens.mean(batch.history)
        total = (vectors[0] + vectors[1])[:, None] + self.item_ids(batch.item_id)  # sum_j x_j v_j
        squares = (vectors[0] ** 2 + vectors[1] ** 2)[:, None] + self.item_ids(batch.item_id) ** 2
        linear = self.bias_user_ids(batch.user_id) + self.item_bias(batch.item_id).squeeze(-1)
        for name, factors in self.factors.items():
            values: Tensor = getattr(batch, name)
            first, second, straight = factors(values), values**2 @ factors.weight.T**2, self.linear[name](values)
            if name == "user":
                first, second, straight = first[:, None], second[:, None], straight[:, None]
            total, squares, linear = total + first, squares + second, linear + straight
        return linear, (total**2 - squares) / 2


class FactorisationMachine(nn.Module):
    """``w_0 + sum_j w_j x_j + sum_{j < l} <v_j, v_l> x_j x_l``; the model's offset is w_0."""

    def __init__(self, sizes: Sizes, factors: int) -> None:
        """Factors of width ``factors``."""
        super().__init__()
        self.fields = Fields(sizes, factors)

    def forward(self, batch: Batch) -> Tensor:
        """Scores [B, M]."""
        linear, pooled = self.fields(batch)
        return linear + pooled.sum(-1)


class FMAgent(ScoringAgent):
    """Ranks by a factorisation machine; see ``ScoringAgent``."""

    id = "fm"

    @classmethod
    def network(cls, sizes: Sizes, config: Any) -> nn.Module:
        """See ``ScoringAgent``."""
        return FactorisationMachine(sizes, config.dim)
