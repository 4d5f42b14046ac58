"""What a user's own purchases say of an item: columns of history, looked up in bulk, and the features made of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from recgym.user_models.preference.trips import Trips

HALF_LIFE_TRIPS = 12.0  # a purchase counts half in ``recent`` after so many further trips of the user
FADE = 0.5 ** (1 / HALF_LIFE_TRIPS)
# Columns of a history; all but the first two pairs are 0 where there is nothing to tell.
COUNT, DAYS, SINCE_FIRST, RECENT, KIND_RECENT, KIND_DAYS = range(6)
NUM_HISTORY = 6
NUM_REPEAT_FEATURES = 21


@dataclass(frozen=True, eq=False)
class _Index:
    """Every purchase by (user, group, trip), for looking up what came before any trip."""

    keys: np.ndarray  # [E] int64 sorted: (user * G + group) * T + trip
    first: np.ndarray  # [E] int64 position of the pair's first purchase
    recent: np.ndarray  # [E] float64 purchases of the pair up to this one, faded by the user's trips since each
    num_groups: int

    @classmethod
    def of(cls, trips: Trips, group: np.ndarray, num_groups: int) -> _Index:
        total = len(trips.trip_user)
        keys = np.sort((trips.trip_user[trips.trip] * num_groups + group) * total + trips.trip)
        pair, number = keys // total, trips.number[keys % total]
        start = np.flatnonzero(np.diff(pair, prepend=-1))
        length = np.diff(start, append=len(keys))
        recent = np.ones(len(keys))
        for rank in range(1, int(length.max(initial=0))):  # all pairs at once, purchase after purchase
            here = start[length > rank] + rank
            recent[here] += recent[here - 1] * FADE ** (number[here] - number[here - 1])
        return cls(keys, np.repeat(start, length), recent, num_groups)

    def before(
        self, trips: Trips, user: np.ndarray, group: np.ndarray, trip: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Purchases before ``trip``, trips of the first and of the last, and faded purchases; [n] each."""
        total = len(trips.trip_user)
        base = (user * self.num_groups + group) * total
        start, stop = np.searchsorted(self.keys, base), np.searchsorted(self.keys, base + trip)
        newest = np.maximum(stop - 1, 0)
        first, last = self.keys[self.first[newest]] % total, self.keys[newest] % total
        missed = np.maximum(trips.number[trip] - 1 - trips.number[last], 0)  # trips since, on which it was not bought
        return stop - start, first, last, self.recent[newest] * FADE**missed


@dataclass(frozen=True, eq=False)
class Purchases:
    """A log's purchases by user and item, and by user and kind of item."""

    trips: Trips
    kinds: np.ndarray  # [N] int64 kind of each item
    items: _Index
    by_kind: _Index

    @classmethod
    def of(cls, trips: Trips, kinds: np.ndarray) -> Purchases:
        """The index of a log."""
        item, kind = trips.item, kinds[trips.item]
        count = int(kinds.max(initial=0)) + 1
        return cls(trips, kinds, _Index.of(trips, item, trips.num_items), _Index.of(trips, kind, count))

    def lookup(self, user: np.ndarray, item: np.ndarray, trip: np.ndarray) -> np.ndarray:
        """What each user's history before a trip says of an item, float32 [n, 6].

        Columns: trips with the item; days since the last one; days since the first; trips with it, each faded by
        ``FADE`` for every trip since; the same summed over all items of its kind; days since the last of its kind.

        The record of a simulated user is bounded; the few users with more items keep all of theirs here.
        """
        day = self.trips.trip_day
        history = np.zeros((len(item), NUM_HISTORY), np.float32)
        count, first, last, recent = self.items.before(self.trips, user, item, trip)
        own = count > 0
        history[:, COUNT] = count
        history[:, DAYS] = np.where(own, day[trip] - day[last], 0)
        history[:, SINCE_FIRST] = np.where(own, day[trip] - day[first], 0)
        history[:, RECENT] = np.where(own, recent, 0)
        count, _, last, recent = self.by_kind.before(self.trips, user, self.kinds[item], trip)
        history[:, KIND_RECENT] = np.where(count > 0, recent, 0)
        history[:, KIND_DAYS] = np.where(count > 0, day[trip] - day[last], 0)
        return history


def repeat_features(own: Tensor, statistics: Tensor, pace: Tensor, gap: Tensor) -> Tensor:
    """Features of a user's own history with an item bought before, [..., 21].

    The user's pace is told here once more, because how soon an item is due depends on it more than on anything else.

    Args:
        own: columns of history, [..., 6]; see ``Purchases.lookup``.
        statistics: of the item, [..., 3]: median repurchase interval over all users (days), log(1 + popularity), share
            of purchases that were repeats.
        pace: of the user, [..., 3]: trips so far, mean log basket size, mean log(1 + days between trips).
        gap: days since the user's previous trip, [...].
    """
    count, days, since_first, recent, kind_recent, kind_days = own.unbind(-1)
    interval, popularity, repeated = statistics.unbind(-1)
    trips, mean_log_size, mean_log_gap = pace.unbind(-1)
    trips_since = days * torch.exp(-mean_log_gap)  # about how many trips the user made since
    frequency = count / trips.clamp(min=1)
    # The user's own interval with the item; the item's interval stands in for one that is not known yet.
    own_interval = (since_first - days + interval) / count.clamp(min=1)
    all_trips = (1 - FADE ** trips.clamp(min=1)) / (1 - FADE)  # what ``recent`` is if the item was bought every time
    rate, kind_rate = recent / all_trips, kind_recent / all_trips
    columns = (
        torch.log1p(count),
        frequency.clamp(max=1).sqrt(),
        torch.log1p(days) * 0.5,
        torch.log1p(days / interval),
        torch.log1p(trips_since),
        torch.log1p(trips_since * frequency),
        torch.log1p(interval) * 0.5,
        torch.log1p(trips) * 0.2,
        mean_log_size * 0.5,
        mean_log_gap * 0.5,
        torch.log1p(gap) * 0.5,
        popularity * 0.2,
        rate.clamp(max=1).sqrt(),
        torch.log(rate + 1e-3) * 0.3,
        torch.log1p(own_interval) * 0.5,
        torch.log1p(days / own_interval),
        torch.log1p(since_first) * 0.3,
        repeated * 2,
        kind_rate.sqrt(),
        torch.log1p(kind_days) * 0.5,
        recent / kind_recent.clamp(min=1e-6),
    )
    return torch.stack(torch.broadcast_tensors(*columns), dim=-1)
