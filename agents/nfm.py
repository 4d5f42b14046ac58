"""Neural factorisation machine: a network on top of the pooled interactions (He and Chua, SIGIR 2017).

Departures from the paper: no dropout nor batch normalisation, whose draws and running means would tie a user's score
to the batch; early stopping does their work. Numbers are features too, not only ids.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field
from torch import Tensor, nn

from recgym.agents.features.inputs import Batch, Sizes, mlp
from recgym.agents.fm import Fields
from recgym.agents.scoring import ScoringAgent, ScoringConfig


class NeuralFactorisationMachine(nn.Module):
    """``w_0 + sum_j w_j x_j + MLP(pooled)``, with the bi-interaction pooling of ``Fields``."""

    def __init__(self, sizes: Sizes, factors: int, hidden: int) -> None:
        """Factors of width ``factors``, one hidden layer of width ``hidden``."""
        super().__init__()
        self.fields = Fields(sizes, factors)
        self.norm = nn.LayerNorm(factors)
        self.deep = mlp((factors, hidden))

    def forward(self, batch: Batch) -> Tensor:
        """Scores [B, M]."""
        linear, pooled = self.fields(batch)
        scores: Tensor = linear + self.deep(self.norm(pooled))
        return scores


class NFMConfig(ScoringConfig):
    """Settings of ``NFMAgent``."""

    hidden: int = Field(64, ge=1, description="width of the layer above the pooled interactions")


class NFMAgent(ScoringAgent):
    """Ranks by a neural factorisation machine; see ``ScoringAgent``."""

    id = "nfm"
    Config = NFMConfig

    @classmethod
    def network(cls, sizes: Sizes, config: Any) -> nn.Module:
        """See ``ScoringAgent``."""
        return NeuralFactorisationMachine(sizes, config.dim, config.hidden)
