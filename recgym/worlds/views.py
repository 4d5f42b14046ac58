"""What a bundle predicts for held-out trips, and what was known before them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from recgym.user_models.preference.attributes import attribute_columns
from recgym.user_models.preference.losses import rating_cdf
from recgym.user_models.preference.network import MAX_FEEDBACK
from recgym.user_models.preference.scoring import (
    fuse,
    owned_before,
    score_answers,
    score_catalogue,
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

    @property
    def rates(self) -> Tensor:
        """Share of trips that hold each item, [N]."""
        return (self.popularity / self.num_trips).clamp(1e-9, 1 - 1e-6)

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


class CutView:
    """What a world cut just before trips ``targets`` predicts at their start."""

    @torch.no_grad()
    def __init__(self, cut: World, trips: Trips, targets: np.ndarray) -> None:
        self.trips, self.targets = trips, targets
        self.users = PreferenceUsers(cut)
        rows = torch.from_numpy(trips.trip_user[targets])
        self.moments = trip_start_moments(trips, targets, self.users.starting_states(rows))
        attributes = attribute_columns(cut.users, cut.spec.attributes)
        self.fused = fuse(self.users.network, self.moments, cut.user_tensors["graph"].float(), attributes)  # [P, d]

    @torch.no_grad()
    def logits(self) -> Tensor:
        """Calibrated logits of q, [P, N]."""
        users = self.users
        past = self.trips.select(self.trips.before_last(1))
        own = owned_before(self.trips, Trends.of(past, users.world.items["popularity"].to_numpy()), self.targets)
        vectors, statistics = users.item_vectors, users.item_statistics
        return score_catalogue(users.network, self.fused, vectors, statistics, self.moments, own).logits()

    @torch.no_grad()
    def answers(self) -> Answers:
        """Quantities or ratings of all items in the trips, with the chances that the model gives to each grade."""
        trips, users = self.trips, self.users
        output, event = score_answers(
            *(users.network, self.fused, users.item_vectors, users.item_statistics, self.moments, trips, self.targets)
        )
        if "rating" in users.world.spec.responses:
            cdf = rating_cdf(users.network.rating_thresholds(), output.rating).double().numpy()
            edges = np.concatenate((np.zeros((len(event), 1)), cdf, np.ones((len(event), 1))), axis=1)
            chances = np.diff(edges, axis=1)
        else:
            chances = geometric_chances(torch.sigmoid(output.stop).double().numpy())
        values = np.arange(1, chances.shape[1] + 1)
        return Answers(chances, values, trips.feedback[event], trips.trip_user[trips.trip[event]], trips.item[event])


@dataclass(frozen=True, eq=False)
class Answers:
    """R graded answers (quantities or ratings) of held-out trips, and what the model expects of them."""

    chances: np.ndarray  # [R, V] chance of each grade, given that the item is bought or watched
    values: np.ndarray  # [V] int64 grades, ascending
    grade: np.ndarray  # [R] int64 grades given
    user: np.ndarray  # [R] int64 user rows
    item: np.ndarray  # [R] int64 item rows


def geometric_chances(stop: np.ndarray) -> np.ndarray:
    """Chances [R, 20] of quantities 1 to 20, geometric with parameter ``stop`` [R]; the last takes all above."""
    powers = (1 - stop[:, None]) ** np.arange(MAX_FEEDBACK)
    chances: np.ndarray = powers * stop[:, None]
    chances[:, -1] = powers[:, -1]
    return chances
