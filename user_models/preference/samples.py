"""Training samples: segments of token sequences, and weighted pairs whose loss is unbiased for the whole catalogue."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from recgym.user_models.preference.network import TREND_DAYS
from recgym.user_models.preference.scoring import Moments, OwnHistory
from recgym.user_models.preference.trends import Trends
from recgym.user_models.preference.trips import FirstPurchases, Purchases, Tokens, Trips


class Segment(NamedTuple):
    """A run of one user's tokens: scored from ``start`` to ``stop``, read from ``context``."""

    context: int
    start: int
    stop: int


def cut_segments(tokens: Tokens, start: np.ndarray, length: int, context: int) -> list[Segment]:
    """Segments of at most ``length`` scored tokens that cover each user's tokens from ``start`` [U] on."""
    segments = []
    for user, first in enumerate(start):
        begin, end = int(tokens.users[user]), int(tokens.users[user + 1])
        low = int(first)
        while low < end:
            segments.append(Segment(max(begin, low - context), low, min(low + length, end)))
            low += length
    return segments


def batches(segments: list[Segment], size: int, rng: np.random.Generator) -> list[list[Segment]]:
    """Batches of segments of similar length, in random order."""
    order = sorted(range(len(segments)), key=lambda i: (segments[i].stop - segments[i].context, rng.random()))
    groups = [[segments[i] for i in order[low : low + size]] for low in range(0, len(order), size)]
    return [groups[i] for i in rng.permutation(len(groups))]


def segment_index(batch: list[Segment]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Token numbers [S, L] (-1 pads), and the rows and columns of the scored tokens [P]."""
    width = max(s.stop - s.context for s in batch)
    context = np.array([s.context for s in batch])
    index = context[:, None] + np.arange(width)
    index = np.where(index < np.array([s.stop for s in batch])[:, None], index, -1)
    scored = index >= np.array([s.start for s in batch])[:, None]
    rows, columns = np.nonzero(scored)
    return index, rows, columns


def moments_before(
    trips: Trips, tokens: Tokens, token: np.ndarray, sequence: Tensor, *, end_of_previous: bool = False
) -> Moments:
    """The moments just before tokens ``token`` [P]; with ``end_of_previous``, as the trip before has just ended."""
    trip = tokens.trip[token] - (1 if end_of_previous else 0)
    inside = np.ones(len(token)) if end_of_previous else (tokens.step[token] > 0)
    bought = trips.size[trip] if end_of_previous else tokens.bought[token]

    def tensor(values: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))

    return Moments(
        user=torch.from_numpy(trips.trip_user[trip]),
        sequence=sequence,
        pace=tensor(trips.pace[trip]),
        gap=tensor(trips.gap[trip]),
        inside=tensor(inside),
        bought=tensor(bought),
        day=tensor(trips.trip_day[trip]),
    )


def strangers(moments: Moments, cold: Tensor, start: Tensor) -> Moments:
    """The moments, those in ``cold`` (bool [P]) as if nothing were known of their users, whose state is ``start`` [d].

    Nothing known: no trips so far, hence no pace, and no gap to a trip before this one.
    """
    known = ~cold
    return replace(
        moments,
        sequence=torch.where(cold[:, None], start, moments.sequence),
        pace=moments.pace * known[:, None],
        gap=moments.gap * known,
    )


@dataclass(frozen=True, eq=False)
class Pairs(OwnHistory):
    """Pairs with labels and weights."""

    label: Tensor  # [Q] float32: 1 where the item was still bought on the trip
    weight: Tensor  # [Q] float32: inverse inclusion rate
    whole: Tensor  # [Q] float32: of positives, the trip's items over those not bought yet; else 1
    feedback: Tensor  # [Q] float32: quantity or rating of positives

    def of_strangers(self, cold: Tensor) -> Pairs:
        """The pairs, without what is known of the users of moments in ``cold`` (bool [P])."""
        known = ~cold[self.moment]
        return replace(
            self,
            own_counts=self.own_counts * known,
            own_days=self.own_days * known,
            trends=self.trends * known[:, None],
        )


class PairSampler:
    """Draws, for moments within trips, what was still bought and weighted negatives.

    The negatives are stratified: items that the user bought before (where most of the chance lies) and all others,
    drawn by popularity. Inverse inclusion rates make the weighted log loss an unbiased estimate of the log loss over
    the whole catalogue, so that probabilities come out calibrated and not only ranked. Items already bought on the
    trip are left out: they cannot be bought again.

    Within a trip only a part of the basket is left to be bought. That a trip ends is the business of the intended
    basket size, so q must not say it a second time: positives count for those that were bought before them (``whole``).
    """

    def __init__(self, trips: Trips, trends: Trends, own: int, other: int) -> None:
        self.trips, self.trends, self.own, self.other = trips, trends, own, other
        self.purchases = Purchases.of(trips)
        self.first = FirstPurchases.of(trips)
        self.baskets = np.sort(trips.trip * trips.num_items + trips.item)
        popularity = np.bincount(trips.item, minlength=trips.num_items).astype(np.float64)
        weight = (popularity + 1.0) ** 0.75
        self.proposal = 0.9 * weight / weight.sum() + 0.1 / trips.num_items
        self.cumulative = np.cumsum(self.proposal)

    def _in_basket(self, trip: np.ndarray, item: np.ndarray) -> np.ndarray:
        keys = trip * self.trips.num_items + item
        place = np.minimum(np.searchsorted(self.baskets, keys), len(self.baskets) - 1)
        return self.baskets[place] == keys

    def draw(self, tokens: Tokens, token: np.ndarray, rng: np.random.Generator) -> Pairs:
        """Pairs for the moments just before tokens ``token`` [P]."""
        trips = self.trips
        trip, count = tokens.trip[token], len(token)
        user = trips.trip_user[trip]
        # Positives: what the trip still holds.
        left = trips.size[trip] - tokens.bought[token]
        moment = np.repeat(np.arange(count), left)
        within = np.arange(int(left.sum())) - np.repeat(np.cumsum(left) - left, left)
        event = tokens.order[(trips.events[trip] + tokens.bought[token])[moment] + within]
        # Negatives among the user's own earlier items, and among all others.
        owned = self.first.owned[trip]
        rank = (rng.random((count, self.own)) * owned[:, None]).astype(np.int64)
        place = np.minimum(self.first.offsets[user][:, None] + rank, len(self.first.items) - 1)
        own_item = self.first.items[place]
        own_weight = np.broadcast_to(owned[:, None] / self.own, own_item.shape)
        other_item = np.searchsorted(self.cumulative, rng.random((count, self.other)) * self.cumulative[-1])
        other_item = np.minimum(other_item, trips.num_items - 1)
        other_weight = 1.0 / (self.other * self.proposal[other_item])
        rows = np.concatenate((moment, np.repeat(np.arange(count), self.own), np.repeat(np.arange(count), self.other)))
        item = np.concatenate((trips.item[event], own_item.ravel(), other_item.ravel()))
        label = np.concatenate((np.ones(len(moment)), np.zeros(len(item) - len(moment))))
        weight = np.concatenate((np.ones(len(moment)), own_weight.ravel(), other_weight.ravel()))
        if trips.exposures is not None:
            weight = np.where(trips.exposures.shown(trip[rows], item), 0.0, weight)
        feedback = np.concatenate((trips.feedback[event], np.zeros(len(item) - len(moment))))
        whole = np.concatenate(((trips.size[trip] / np.maximum(left, 1))[moment], np.ones(len(item) - len(moment))))
        counts, last = self.purchases.lookup(user[rows], item, trip[rows])
        negative = label == 0
        weight[negative & self._in_basket(trip[rows], item)] = 0.0
        start_of_other = len(moment) + count * self.own
        weight[start_of_other:][counts[start_of_other:] > 0] = 0.0
        keep = weight > 0
        today = trips.trip_day[trip[rows]]
        days = np.where(counts > 0, today - last, 0)
        lately = np.zeros((len(item), len(TREND_DAYS)), np.float32)
        owned = keep & (counts > 0)
        lately[owned] = self.trends.at(today[owned], item[owned])

        def tensor(values: np.ndarray) -> Tensor:
            return torch.from_numpy(values[keep].astype(np.float32))

        return Pairs(
            moment=torch.from_numpy(rows[keep]),
            item=torch.from_numpy(item[keep]),
            label=tensor(label),
            weight=tensor(weight),
            whole=tensor(whole),
            feedback=tensor(feedback),
            own_counts=tensor(counts),
            own_days=tensor(days),
            trends=tensor(lately),
        )
