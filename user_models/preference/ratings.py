"""Ratings as edges of the user-item graph, and what is near to a rating in time."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

# Distances in time between two ratings of a user, in seconds: level b is [TIME_LEVELS[b - 1], TIME_LEVELS[b]).
TIME_LEVELS = (1, 10, 30, 60, 120, 300, 900, 3_600, 86_400, 604_800, 2_592_000)
NUM_TIME_LEVELS = 2 * (len(TIME_LEVELS) + 1)  # before and after count apart


@dataclass(frozen=True, eq=False)
class Ratings:
    """E ratings of N items by U users, sorted by user, then time."""

    user: Tensor  # [E] int64
    item: Tensor  # [E] int64
    value: Tensor  # [E] float32, 1 to 5
    time: Tensor  # [E] int64 seconds
    num_users: int
    num_items: int

    @classmethod
    def of(cls, user: Tensor, item: Tensor, value: Tensor, time: Tensor, num_users: int, num_items: int) -> Ratings:
        """Ratings in any order, all [E]; ties in time keep their order."""
        order = time.argsort(stable=True)
        order = order[user[order].argsort(stable=True)]
        return cls(user[order], item[order], value[order].float(), time[order], num_users, num_items)

    def __len__(self) -> int:
        return len(self.user)

    def select(self, keep: Tensor) -> Ratings:
        """The ratings where ``keep`` (bool [E]) holds."""
        return Ratings(
            self.user[keep], self.item[keep], self.value[keep], self.time[keep], self.num_users, self.num_items
        )


@dataclass(frozen=True, eq=False)
class Neighbours:
    """The ratings of the same user nearest in time to each of Q moments: up to ``width`` before, as many after."""

    event: Tensor  # [Q, 2 * width] int64 row among the ratings seen; 0 where there is none
    level: Tensor  # [Q, 2 * width] int64 level of the distance in time
    inside: Tensor  # [Q, 2 * width] bool: there is such a rating

    @classmethod
    def of(cls, seen: Ratings, user: Tensor, time: Tensor, width: int) -> Neighbours:
        """The neighbours among ``seen`` of moments (``user``, ``time``), [Q] each; its own rating is not seen."""
        low = int(min(seen.time.min(), time.min())) if len(seen) and len(time) else 0
        high = int(max(seen.time.max(), time.max())) if len(seen) and len(time) else 0
        span = high - low + 1
        place = torch.searchsorted(seen.user * span + (seen.time - low), user * span + (time - low))
        event = place[:, None] + torch.arange(-width, width)
        inside = (event >= 0) & (event < len(seen))
        event = event.clamp(0, max(len(seen) - 1, 0))
        inside &= seen.user[event] == user[:, None]
        distance = seen.time[event] - time[:, None]
        level = torch.bucketize(distance.abs(), torch.tensor(TIME_LEVELS), right=True)
        level = torch.where(distance < 0, level, level + len(TIME_LEVELS) + 1)
        return cls(torch.where(inside, event, 0), level, inside)
