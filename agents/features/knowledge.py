"""What a world's observable log says of items and of pairs: columns that scorers read beside the observation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from recgym.agents.features.factors import Factors
from recgym.agents.features.pairs import Pairs, purchases_of_world

if TYPE_CHECKING:
    from recgym.worlds.world import World

OF_ITEMS = ("buyers", "repeats")
OF_PAIRS = ("affinity",)
_PRIOR = 5.0  # buyers with a single purchase that every item's mean is shrunk by


class Knowledge:
    """Derived from the log of a world alone, so it is not saved with an agent: another world's users have another log.

    buyers: log(1 + users who bought the item). repeats: log of trips with the item a buyer, shrunk towards 1.
    affinity: the product of factors of user and item by alternating least squares.
    """

    def __init__(self, world: World) -> None:
        """Counts and factorises; deterministic."""
        pairs = purchases_of_world(world)
        buyers = torch.bincount(pairs.items, minlength=pairs.num_items).float()
        trips = torch.zeros(pairs.num_items).index_add_(0, pairs.items, pairs.values)
        self._items = torch.stack([buyers.log1p(), ((trips + _PRIOR) / (buyers + _PRIOR)).log()], dim=1)  # [N, 2]
        self._factors = _factorise(pairs)

    def of_candidates(self, users: Tensor, items: Tensor, history: Tensor) -> Tensor:
        """[B, M, 3]: ``OF_ITEMS`` and ``OF_PAIRS`` side by side."""
        return torch.cat([self.of_items(items), self.of_pairs(users, items, history)], dim=-1)

    def of_items(self, items: Tensor) -> Tensor:
        """[..., 2] of item rows [...]."""
        return self._items[items]

    def of_pairs(self, users: Tensor, items: Tensor, history: Tensor) -> Tensor:
        """[B, M, 1] of user rows [B], item rows [B, M] and what was consumed last [B, H]."""
        return self._factors.score(users, items, history)[..., None]


def _factorise(pairs: Pairs) -> Factors:
    from recgym.agents.als import ALSConfig, factorise

    return factorise(pairs, ALSConfig(), seed=0)
