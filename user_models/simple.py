"""A base for hand-written users: say what they want, and how it changes; the rest has defaults."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from recgym.simulation.kernels import sigmoid
from recgym.types import Appraisal, Noise, Record, Response, Slate, TensorRecord, Visit
from recgym.user_models.answers import answer
from recgym.worlds.world import World

LARGEST_BASKET = 100.0  # items
LONGEST_GAP = 90.0  # days
RATING_CUTS = (-2.0, -1.0, 0.0, 1.5)  # logits of rating at most 1, 2, 3, 4 where liking is 0


@dataclass(frozen=True)
class SimpleState(TensorRecord):
    """Hidden state of users who never change."""

    user: Tensor  # [B] int64 user rows


class SimpleUsers(ABC):
    """Users whose wants are a formula: a subclass defines ``logits``, and as much of the rest as it cares for.

    By default a user wants a geometric number of items around ``mean_basket`` on a trip, takes one unit of each, comes
    back after an exponential time around ``mean_gap`` days, divided by the hazard that the core gives, and does not
    change. What lies in ``RATING_CUTS`` and in the class attributes is assumed, nothing is fitted.
    """

    mean_basket = 6.0  # items
    mean_gap = 7.0  # days

    def __init__(self, world: World, device: str | torch.device = "cpu") -> None:
        """Users of ``world``; a subclass makes its tables here, on ``self.device``."""
        self.world, self.device = world, torch.device(device)
        self.ratings = "rating" in world.spec.responses
        self._cuts = torch.tensor(RATING_CUTS, device=self.device)

    @abstractmethod
    def logits(self, state: Any, items: Tensor, visit: Visit) -> Tensor:
        """Logit float32 [B, C] of the chance that each of ``items`` (int64 [B, C]) is wanted on this trip."""

    def liking(self, state: Any, items: Tensor, visit: Visit) -> Tensor:
        """How much consumed items are liked, float32 [B, C]: P(rating <= n) = sigmoid(RATING_CUTS[n - 1] - liking)."""
        return torch.zeros(items.shape, device=items.device)

    def init(self, users: Tensor, record: Record, visit: Visit) -> Any:
        """See ``UserModel.init``."""
        return SimpleState(users.clone())

    def appraise(self, state: Any, items: Tensor, own_counts: Tensor, own_days: Tensor, visit: Visit) -> Appraisal:
        """See ``UserModel.appraise``; earlier purchases do not matter, and there is one unit of each."""
        cdf = sigmoid(self._cuts - self.liking(state, items, visit)[..., None]) if self.ratings else None
        return Appraisal(self.logits(state, items, visit), None, cdf)

    def respond(self, state: Any, slate: Slate, visit: Visit, noise: Noise) -> tuple[Response, Tensor]:
        """See ``UserModel.respond``."""
        return answer(self.appraise(state, slate.items, slate.own_counts, slate.own_days, visit), slate, noise)

    def transition(self, state: Any, slate: Slate, response: Response, visit: Visit) -> Any:
        """See ``UserModel.transition``."""
        return state

    def intend(self, state: Any, uniforms: Tensor) -> Tensor:
        """See ``UserModel.intend``: geometric."""
        size = 1.0 + (torch.log(uniforms) * (1.0 / math.log1p(-1.0 / self.mean_basket))).floor()
        return size.clamp(max=LARGEST_BASKET).to(torch.int32)

    def away(self, state: Any, record: Record, uniforms: Tensor, hazard: Tensor) -> tuple[Tensor, Tensor]:
        """See ``UserModel.away``: exponential gaps, and everybody comes back."""
        days = (torch.log(uniforms) * -self.mean_gap / hazard).clamp(max=LONGEST_GAP)
        return days.to(torch.int32), torch.zeros_like(uniforms, dtype=torch.bool)

    def arrive(self, state: Any, record: Record, visit: Visit) -> Any:
        """See ``UserModel.arrive``."""
        return state


def lookup(table: Tensor, rows: Tensor, items: Tensor) -> Tensor:
    """Sum over f of ``rows[b, f] * table[f, items[b, c]]``, float32 [B, C]: bitwise the same in any batch.

    A matrix product rounds by how many rows there are; this adds up one feature after another.

    Args:
        table: features of the items, float32 [F, N].
        rows: features of the users, float32 [B, F].
        items: item rows, int64 [B, C].
    """
    total = torch.zeros(items.shape, device=items.device)
    for number in range(len(table)):
        total = total + rows[:, number, None] * table[number].take(items)
    return total
