"""Context-aware multi-way factors: user x item x context (Karatzoglou et al., "Multiverse recommendation", 2010).

Departures from the paper: the tensor is factorised as a sum of products (PARAFAC, Harshman, 1970) instead of with a
core tensor, the pairwise products are kept (Rendle and Schmidt-Thieme, WSDM 2010), and a context is not one of a few
levels but a vector that a small network makes of what is known of the moment.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from recgym.agents.features.columns import FusionMode, Ids
from recgym.agents.features.inputs import Batch, Representations, Sizes, Weights
from recgym.agents.scoring import ScoringAgent


class MultiwayFactors(nn.Module):
    """``b_u + b_i + b_c + <a, p * q> + <a', p * r> + <a'', q * r> + <a''', p * q * r>`` of factors p, q, r."""

    def __init__(self, sizes: Sizes, dim: int, fusion: FusionMode) -> None:
        """Factors of width ``dim``."""
        super().__init__()
        self.parts = Representations(sizes, dim, fusion)
        self.bias_user_ids, self.item_bias = Ids(sizes.num_users, 1), Ids(sizes.num_items, 1)
        self.alone = nn.ModuleList(Weights(dim) for _ in range(3))
        self.products = nn.ModuleList(Weights(dim) for _ in range(4))

    def forward(self, batch: Batch) -> Tensor:
        """Scores [B, M]."""
        p, q, r = self.parts.users(batch)[:, None], self.parts.items(batch), self.parts.contexts(batch)
        scores: Tensor = self.bias_user_ids(batch.user_id) + self.item_bias(batch.item_id).squeeze(-1)
        for weights, vectors in zip(self.alone, (p, q, r), strict=True):
            scores = scores + weights(vectors)
        for weights, vectors in zip(self.products, (p * q, p * r, q * r, p * q * r), strict=True):
            scores = scores + weights(vectors)
        return scores


class MultiwayAgent(ScoringAgent):
    """Ranks by multi-way factors; see ``ScoringAgent``."""

    id = "multiway"

    @classmethod
    def network(cls, sizes: Sizes, config: Any) -> nn.Module:
        """See ``ScoringAgent``."""
        return MultiwayFactors(sizes, config.dim, config.fusion)
