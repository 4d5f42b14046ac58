"""Self-attention over what the user consumed last (SASRec; Kang and McAuley, ICDM 2018).

Departures from the paper: trained on what was shown and bought or not, instead of on the next item against a random
one; an item is its text as well as its id; what is known of the pair itself (own purchases, days since) and of the
user adds a term of its own; no dropout (a user's score would depend on draws), early stopping instead.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from recgym.agents.features.columns import FusionMode
from recgym.agents.features.inputs import Batch, ItemTokens, Representations, Sizes, Weights
from recgym.agents.scoring import ScoringAgent, ScoringConfig


class Block(nn.Module):
    """Attention and a feed-forward network, normalised before, with one head."""

    def __init__(self, dim: int) -> None:
        """Of width ``dim``."""
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(2))
        self.query, self.key, self.value, self.out = (nn.Linear(dim, dim) for _ in range(4))
        self.feed = nn.Sequential(nn.Linear(dim, 2 * dim), nn.ReLU(), nn.Linear(2 * dim, dim))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """X [B, L, dim]; ``mask`` bool [B, L, L] says who looks at whom."""
        h = self.norms[0](x)
        logits = self.query(h) @ self.key(h).transpose(1, 2) / math.sqrt(x.shape[-1])
        weights = logits.masked_fill(~mask, -1e9).softmax(-1)
        x = x + self.out(weights @ self.value(h))
        out: Tensor = x + self.feed(self.norms[1](x))
        return out


class SelfAttention(nn.Module):
    """``<state of the newest item, item> / sqrt(d) + w^T item + c(user, context)``."""

    def __init__(self, sizes: Sizes, dim: int, length: int, blocks: int, fusion: FusionMode) -> None:
        """Vectors of width ``dim``, ``blocks`` blocks over the newest ``length`` items."""
        super().__init__()
        self.length = length
        self.tokens = ItemTokens(sizes, dim)
        self.positions = nn.Embedding(length + 1, dim)  # of the items by age, the newest first; row 0: no item at all
        self.blocks = nn.ModuleList(Block(dim) for _ in range(blocks))
        self.norm = nn.LayerNorm(dim)
        self.parts = Representations(sizes, dim, fusion)
        self.of_item, self.of_user = Weights(dim), Weights(dim)
        self.of_context = Weights(dim)

    def state(self, history: Tensor) -> Tensor:
        """What the newest of the items [B, H] (newest first, -1 pads) gathers from those before it, [B, dim]."""
        history = history[:, : self.length]
        there = history >= 0
        ages = torch.where(there, torch.arange(1, history.shape[1] + 1), 0)
        x = self.tokens(history) + self.positions(ages)
        older = torch.ones(history.shape[1], history.shape[1], dtype=torch.bool).triu()  # causal: each sees older ones
        for block in self.blocks:
            x = block(x, older & there[:, None, :])
        newest: Tensor = self.norm(x)[:, 0]
        return newest

    def forward(self, batch: Batch) -> Tensor:
        """Scores [B, M]."""
        items = self.parts.items(batch)
        match = (self.state(batch.history)[:, None] * items).sum(-1) / math.sqrt(items.shape[-1])
        users, contexts = self.parts.users(batch)[:, None], self.parts.contexts(batch)
        scores: Tensor = match + self.of_item(items) + self.of_user(users) + self.of_context(contexts)
        return scores


class SASRecConfig(ScoringConfig):
    """Settings of ``SASRecAgent``."""

    length: int = Field(30, ge=1, description="newest items that are attended to")
    blocks: int = Field(2, ge=1, description="layers of attention")


class SASRecAgent(ScoringAgent):
    """Ranks by self-attention over the history; see ``ScoringAgent``."""

    id = "sasrec"
    Config = SASRecConfig

    @classmethod
    def network(cls, sizes: Sizes, config: Any) -> nn.Module:
        """See ``ScoringAgent``."""
        return SelfAttention(sizes, config.dim, config.length, config.blocks, config.fusion)
