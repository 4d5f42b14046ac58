"""What a bundle predicts for held-out trips, and what was known before them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from recgym.user_models.preference.attributes import attribute_columns
from recgym.user_models.preference.losses import rating_cdf
from recgym.user_models.preference.network import TREND_DAYS
from recgym.user_models.preference.scoring import (
    Moments,
    OwnHistory,
    fuse,
    owned_before,
    score_catalogue,
    score_pairs,
    trip_start_moments,
)
from recgym.user_models.preference.trends import Trends
from recgym.user_models.preference.trips import Trips
from recgym.user_models.preference.users import PreferenceUsers
from recgym.worlds.world import World


@dataclass(frozen=True, eq=False)
class HeldOut:
    """P held-out trips and what baselines know before them."""

    baskets: list[Tensor]  # P tensors of item rows
    own_counts: Tensor  # [P, N] float32: trips in which the user bought the item before
    popularity: Tensor  # [N] float32: trips with the item before anybody's held-out trip
    num_trips: int  # trips that popularity counts over

    @classmethod
    def of(cls, trips: Trips, targets: np.ndarray) -> HeldOut:
        """Gathers what is known before the trips ``targets``."""
        baskets = [torch.from_numpy(trips.item[trips.events[t] : trips.events[t + 1]]) for t in targets]
        first = trips.events[trips.users[trips.trip_user[targets]]]
        past = [trips.item[a:b] for a, b in zip(first, trips.events[targets], strict=True)]
        own = np.stack([np.bincount(items, minlength=trips.num_items) for items in past])
        held = np.zeros(len(trips.trip_user), bool)
        held[targets] = True
        earlier = trips.item[~held[trips.trip]]
        popularity = torch.from_numpy(np.bincount(earlier, minlength=trips.num_items).astype(np.float32))
        return cls(baskets, torch.from_numpy(own).float(), popularity, int((~held).sum()))


@torch.no_grad()
def _fused(cut: World, trips: Trips, targets: np.ndarray) -> tuple[PreferenceUsers, Tensor, Moments]:
    """The user model of a world cut before ``targets``, fused states [P, d] and the moments."""
    users = PreferenceUsers(cut)
    rows = torch.from_numpy(trips.trip_user[targets])
    moments = trip_start_moments(trips, targets, users.starting_states(rows))
    graph = cut.user_tensors["graph"].float()
    attributes = attribute_columns(cut.users, cut.spec.attributes)
    return users, fuse(users.network, moments, graph, attributes), moments


@torch.no_grad()
def held_out_logits(cut: World, trips: Trips, targets: np.ndarray) -> Tensor:
    """Calibrated logits of q [P, N] at the start of trips ``targets``, from a world cut just before them."""
    users, fused, moments = _fused(cut, trips, targets)
    trends = Trends.of(trips.select(trips.before_last(1)), cut.items["popularity"].to_numpy())
    own = owned_before(trips, trends, targets)
    return score_catalogue(users.network, fused, users.item_vectors, users.item_statistics, moments, own).logits()


@torch.no_grad()
def rating_predictions(
    cut: World, trips: Trips, targets: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Expected ratings, real ratings, user-plus-item means and user rows of all ratings in trips ``targets``, [R]."""
    users, fused, moments = _fused(cut, trips, targets)
    length = trips.size[targets]
    moment = np.repeat(np.arange(len(targets)), length)
    event = np.concatenate([np.arange(trips.events[t], trips.events[t + 1]) for t in targets])
    item = torch.from_numpy(trips.item[event])
    zero = torch.zeros(len(event))
    pairs = OwnHistory(torch.from_numpy(moment), item, zero, zero, torch.zeros(len(event), len(TREND_DAYS)))
    output = score_pairs(users.network, fused, users.item_vectors, users.item_statistics, moments, pairs)
    expected = 5 - rating_cdf(users.network, output.rating).sum(-1)  # E[r] = 5 - sum of P(r <= k)
    held = np.zeros(len(trips.trip_user), bool)
    held[targets] = True
    known = ~held[trips.trip]
    overall = trips.feedback[known].mean()

    def offsets(groups: np.ndarray, size: int, residual: np.ndarray) -> np.ndarray:
        total = np.bincount(groups, residual, minlength=size)
        return total / (np.bincount(groups, minlength=size) + 5)  # shrunk by five pseudo-ratings

    residual = trips.feedback[known] - overall
    by_item = offsets(trips.item[known], trips.num_items, residual)
    owner = trips.trip_user[trips.trip]
    by_user = offsets(owner[known], trips.num_users, residual - by_item[trips.item[known]])
    baseline = overall + by_item[trips.item[event]] + by_user[owner[event]]
    return expected.numpy(), trips.feedback[event].astype(np.float64), baseline, owner[event]
