"""Who bought what how often, and who rated what how: one value for each pair of a user and an item."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from recgym.agents.features.slates import Slates
    from recgym.worlds.world import World


@dataclass(frozen=True, eq=False)
class Pairs:
    """E pairs of a user and an item, each once, ascending by user, then item."""

    users: Tensor  # [E] int64 user rows
    items: Tensor  # [E] int64 item rows
    values: Tensor  # [E] float32: trips on which the item was bought, or the rating
    num_users: int
    num_items: int

    @classmethod
    def of(cls, users: Tensor, items: Tensor, values: Tensor, num_users: int, num_items: int) -> Pairs:
        """Pairs in any order; the values of a pair that occurs several times are added up."""
        keys, place = torch.unique(users * num_items + items, return_inverse=True)
        total = torch.zeros(len(keys)).index_add_(0, place, values.float())
        return cls(keys // num_items, keys % num_items, total, num_users, num_items)

    def __len__(self) -> int:
        return len(self.users)

    def select(self, rows: Tensor) -> Pairs:
        """The pairs at ``rows`` (int64, ascending, or bool [E])."""
        return Pairs(self.users[rows], self.items[rows], self.values[rows], self.num_users, self.num_items)

    def split(self, share: float, generator: torch.Generator) -> tuple[Pairs, Pairs]:
        """The pairs without a random ``share`` of them, and that share."""
        held = torch.rand(len(self), generator=generator) < share
        return self.select(~held), self.select(held)

    def matrix(self) -> Any:
        """log(1 + value) as a SciPy CSR matrix [U, N], float32."""
        from scipy.sparse import csr_matrix

        entries = (np.log1p(self.values.numpy()), (self.users.numpy(), self.items.numpy()))
        return csr_matrix(entries, shape=(self.num_users, self.num_items), dtype=np.float32)

    def offsets(self) -> Tensor:
        """int64 [U + 1]: user u has the pairs ``offsets[u]`` to ``offsets[u + 1]``."""
        counts = torch.bincount(self.users, minlength=self.num_users)
        return torch.cat([counts.new_zeros(1), counts.cumsum(0)])


def purchases_of_world(world: World) -> Pairs:
    """The purchases in the world's observable log."""
    log = world.interactions()
    columns = (torch.from_numpy(log[name].to_numpy(np.int64, copy=True)) for name in ("user", "item", "count"))
    users, items, counts = columns
    return Pairs.of(users, items, counts, world.num_users, world.num_items)


def ratings_of_world(world: World) -> Pairs | None:
    """The ratings (1 to 5) among the users' last events in the log, the latest of a pair; None where nobody rates."""
    if world.spec.kind != "rating":
        return None
    offsets, values = world.tokens.offsets, world.tokens.values
    items, ratings = values["items"].long(), values["feedback"].float()  # [T, G]
    users = torch.repeat_interleave(torch.arange(world.num_users), offsets.diff())[:, None].expand_as(items)
    given = (items >= 0) & (ratings > 0)
    users, items, ratings = users[given], items[given], ratings[given]
    keys, place = torch.unique(users * world.num_items + items, return_inverse=True)
    last = torch.zeros(len(keys), dtype=torch.int64).scatter_reduce_(0, place, torch.arange(len(place)), "amax")
    return Pairs(keys // world.num_items, keys % world.num_items, ratings[last], world.num_users, world.num_items)


def purchases_of_slates(slates: Slates, world: World) -> Pairs:
    """What users consumed in a logged rollout."""
    users = slates.user_id[:, None].expand_as(slates.items)[slates.consumed]
    items = slates.items[slates.consumed]
    return Pairs.of(users, items, torch.ones(len(items)), world.num_users, world.num_items)
