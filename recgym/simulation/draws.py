"""The luck of one slate: every draw that it takes, addressed and drawn together."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from recgym import compiled
from recgym.compiled import choice as kernels
from recgym.random import Purpose, episode_key, fold, integers, uniform
from recgym.types import Noise, Visit

_BY_TRIP = (Purpose.WANT, Purpose.QUANTITY, Purpose.RATING)
_BY_STEP = (Purpose.EXAMINE, Purpose.SCAN, Purpose.LEAVE)
_PURPOSES = (*_BY_TRIP, *_BY_STEP)
PURPOSES = np.array(_PURPOSES, dtype=np.uint64)  # as kernels take them


@dataclass(frozen=True)
class Draws:
    """Uniform draws in (0, 1) for one slate, float32; B lanes, K slots."""

    want: Tensor  # [B, K], one value per (episode, trip, item): showing an item again draws nothing anew
    quantity: Tensor  # [B, K], likewise
    rating: Tensor  # [B, K], likewise
    examine: Tensor  # [B, K], by step and item
    scan: Tensor  # [B], by step: how far a cascade reaches
    leave: Tensor  # [B], by step

    def noise(self, floor: Tensor) -> Noise:
        """What decides the response. After a branch with fresh luck, wants lie above ``floor``: see ``Memory``."""
        return Noise(want=floor + (1.0 - floor) * self.want, quantity=self.quantity, rating=self.rating)


def draw(luck: Tensor, visit: Visit, items: Tensor) -> Draws:
    """All draws of a slate.

    Args:
        luck: key of the episode, int64 [B].
        visit: the visit in which the slate is shown.
        items: item rows, int64 [B, K].
    """
    keys = fold(trip_key(luck, visit), _purposes(luck.device))  # [6, B]
    by_step = fold(keys[3:], visit.step)  # [3, B]
    by_item = torch.cat((keys[:3], by_step[:1]))[:, :, None]  # [4, B, 1]
    want, quantity, rating, examine = uniform(fold(by_item, items)).unbind(0)
    scan, leave = uniform(by_step[1:]).unbind(0)
    return Draws(want, quantity, rating, examine, scan, leave)


@functools.cache
def _purposes(device: torch.device) -> Tensor:
    """[6, 1], uploaded once."""
    return torch.tensor(_PURPOSES, device=device)[:, None]


def begin(seeds: Tensor, episodes: Tensor, num_users: int) -> tuple[Tensor, Tensor]:
    """The keys of episodes and the user rows drawn for them, int64 [B] each, from seeds and numbers int64 [B]."""
    if compiled.runs_on(seeds):
        luck, users = torch.empty_like(seeds), torch.empty_like(seeds)
        numbers = np.uint64(Purpose.USER), np.uint64(num_users)
        kernels.begin(seeds.numpy(), episodes.numpy(), *numbers, luck.numpy().view(np.uint64), users.numpy())
        return luck, users
    luck = episode_key(seeds, episodes)
    return luck, integers(fold(luck, Purpose.USER), num_users)


def trip_key(luck: Tensor, visit: Visit) -> Tensor:
    """The key of all draws of a trip, int64 [B]."""
    return fold(luck, visit.trip.to(torch.int64))


def step_key(luck: Tensor, visit: Visit, purpose: Purpose) -> Tensor:
    """The key of all draws for a ``purpose`` in a step, int64 [B]."""
    if compiled.runs_on(luck):
        out = torch.empty_like(luck)
        kernels.step_key(*(t.numpy() for t in (luck, visit.trip, visit.step)), np.uint64(purpose), out.numpy())
        return out
    return fold(trip_key(luck, visit), purpose, visit.step)


def trip_draw(luck: Tensor, visit: Visit, purpose: Purpose) -> Tensor:
    """One uniform draw a trip for a ``purpose``, float32 [B]."""
    if compiled.runs_on(luck):
        out = torch.empty(luck.shape)
        kernels.trip_draw(luck.numpy(), visit.trip.numpy(), np.uint64(purpose), out.numpy())
        return out
    return uniform(fold(trip_key(luck, visit), purpose))
