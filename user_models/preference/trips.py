"""Logs as trips, and trips as event-group tokens: what the sequence Transformer is trained on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from recgym.simulation.record import MEAN_RATE
from recgym.user_models.preference.exposures import Exposures

SINGLES = 0.15  # share of trips drawn in groups of one or two; see ``draw_tokens``


@dataclass(frozen=True, eq=False)
class Trips:
    """A log of E events grouped into T trips of U users; events and trips sorted by user, then time.

    An item appears once in a trip; feedback is its quantity (1 to 20) or its rating (1 to 5).
    """

    item: np.ndarray  # [E] int64 item row
    feedback: np.ndarray  # [E] int64
    trip: np.ndarray  # [E] int64, ascending
    trip_user: np.ndarray  # [T] int64, ascending
    trip_day: np.ndarray  # [T] int64, days since the log's first day
    num_users: int
    num_items: int
    exposures: Exposures | None = None  # what was shown on the trips, where the log tells

    @cached_property
    def events(self) -> np.ndarray:
        """[T + 1] int64: trip t holds the events ``events[t]`` to ``events[t + 1]``."""
        return np.searchsorted(self.trip, np.arange(len(self.trip_user) + 1))

    @cached_property
    def users(self) -> np.ndarray:
        """[U + 1] int64: user u made the trips ``users[u]`` to ``users[u + 1]``."""
        return np.searchsorted(self.trip_user, np.arange(self.num_users + 1))

    @cached_property
    def size(self) -> np.ndarray:
        """[T] int64 items in each trip."""
        return np.diff(self.events)

    @cached_property
    def number(self) -> np.ndarray:
        """[T] int64 number of the trip in its user's history, from 0."""
        return np.arange(len(self.trip_user)) - self.users[self.trip_user]

    @cached_property
    def gap(self) -> np.ndarray:
        """[T] int64 days since the user's previous trip; 0 at the first."""
        gap = np.diff(self.trip_day, prepend=0)
        return np.where(self.number > 0, gap, 0)

    @property
    def pace(self) -> np.ndarray:
        """[T, 3] float32 as known when trip t starts: trips before it, mean log size, mean log(1 + gap) of those."""
        return self._paces[0]

    @property
    def final_pace(self) -> np.ndarray:
        """[U, 3] float32: the pace after each user's last trip."""
        return self._paces[1]

    @cached_property
    def _paces(self) -> tuple[np.ndarray, np.ndarray]:
        values = np.stack((np.log(np.maximum(self.size, 1)), np.log1p(self.gap)), axis=1)
        counts = np.diff(self.users)
        means = np.zeros((self.num_users, 2))
        pace = np.zeros((len(self.trip_user), 3), np.float32)
        pace[:, 0] = self.number
        for number in range(int(counts.max(initial=0))):
            alive = np.flatnonzero(counts > number)
            trips = self.users[alive] + number
            pace[trips, 1:] = means[alive]
            rate = max(MEAN_RATE, 1 / (number + 1))
            means[alive] += rate * (values[trips] - means[alive])
        return pace, np.concatenate((counts[:, None], means), axis=1).astype(np.float32)

    def select(self, keep: np.ndarray) -> Trips:
        """The trips where ``keep`` (bool [T]) holds. Gaps and numbers are those among the kept trips."""
        renumber = np.cumsum(keep) - 1
        events = keep[self.trip]
        return Trips(
            item=self.item[events],
            feedback=self.feedback[events],
            trip=renumber[self.trip[events]],
            trip_user=self.trip_user[keep],
            trip_day=self.trip_day[keep],
            num_users=self.num_users,
            num_items=self.num_items,
            exposures=None if self.exposures is None else self.exposures.select(keep),
        )

    def of_users(self, users: np.ndarray) -> Trips:
        """The trips of users ``users`` (int64, ascending), who become the users 0, 1, ..."""
        own = self.select(np.isin(self.trip_user, users))
        return replace(own, trip_user=np.searchsorted(users, own.trip_user), num_users=len(users))

    def with_next(self, days: np.ndarray) -> Trips:
        """With one more trip of every user, on ``days`` (int64 [U]), whose basket is not known yet: it is empty."""
        place = self.users[1:]
        number = np.arange(len(self.trip_user)) + self.trip_user  # every earlier user's trip to come lies before
        shown = self.exposures
        return Trips(
            item=self.item,
            feedback=self.feedback,
            trip=number[self.trip],
            trip_user=np.insert(self.trip_user, place, np.arange(self.num_users)),
            trip_day=np.insert(self.trip_day, place, days),
            num_users=self.num_users,
            num_items=self.num_items,
            exposures=None if shown is None else replace(shown, trip=number[shown.trip]),
        )

    def before_last(self, count: int) -> np.ndarray:
        """Bool [T]: all but each user's last ``count`` trips."""
        return self.trip_user_remaining >= count

    @cached_property
    def trip_user_remaining(self) -> np.ndarray:
        """[T] int64 trips that the user makes after this one."""
        return self.users[self.trip_user + 1] - 1 - np.arange(len(self.trip_user))


@dataclass(frozen=True, eq=False)
class Purchases:
    """Every (user, item) purchase by trip, for looking up counts and recency before any trip."""

    keys: np.ndarray  # [E] int64 sorted: (user * N + item) * L + number of the trip in its user's history
    num_items: int
    longest: int  # L, one more than the trips of any user: with trips of all users for it, keys of large logs overflow
    first_trip: np.ndarray  # [U] int64
    trip_day: np.ndarray  # [T] int64

    @classmethod
    def of(cls, trips: Trips) -> Purchases:
        """The index of a log."""
        longest = int(np.diff(trips.users).max(initial=0)) + 1
        pair = trips.trip_user[trips.trip] * trips.num_items + trips.item
        keys = np.sort(pair * longest + trips.number[trips.trip])
        return cls(keys, trips.num_items, longest, trips.users[:-1], trips.trip_day)

    def lookup(self, user: np.ndarray, item: np.ndarray, trip: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Trips before ``trip`` in which the user bought the item, and the day of the last (-1 if none).

        The record of a simulated user holds 1,024 items; the few users with more keep all of theirs here.
        """
        base, first = (user * self.num_items + item) * self.longest, self.first_trip[user]
        start = np.searchsorted(self.keys, base)
        stop = np.searchsorted(self.keys, base + trip - first)
        count = stop - start
        last = first + self.keys[np.maximum(stop - 1, 0)] % self.longest
        return count, np.where(count > 0, self.trip_day[np.minimum(last, len(self.trip_day) - 1)], -1)


@dataclass(frozen=True, eq=False)
class FirstPurchases:
    """Each user's distinct items in the order of first purchase: what was owned before a trip is a prefix."""

    items: np.ndarray  # [P] int64
    offsets: np.ndarray  # [U + 1] int64
    owned: np.ndarray  # [T] int64 number of distinct items bought before trip t

    @classmethod
    def of(cls, trips: Trips) -> FirstPurchases:
        """The index of a log."""
        user = trips.trip_user[trips.trip]
        pair = user * trips.num_items + trips.item
        _, first = np.unique(pair, return_index=True)  # events are in time order, so the first index is the first trip
        first = np.sort(first)
        offsets = np.searchsorted(user[first], np.arange(trips.num_users + 1))
        before = np.searchsorted(trips.trip[first], np.arange(len(trips.trip_user)))
        return cls(trips.item[first], offsets, before - offsets[trips.trip_user])


@dataclass(frozen=True, eq=False)
class Tokens:
    """A log drawn as event-group tokens, in time order; G is the largest group."""

    items: np.ndarray  # [K, G] int64, -1 pads
    feedback: np.ndarray  # [K, G] int64
    trip: np.ndarray  # [K] int64
    first: np.ndarray  # [K] bool: first token of its trip
    bought: np.ndarray  # [K] int64 items bought on the trip before this token
    step: np.ndarray  # [K] int64 number of the token in its trip
    order: np.ndarray  # [E] int64: the events in the drawn order; trips stay contiguous
    users: np.ndarray  # [U + 1] int64: user u owns the tokens users[u] to users[u + 1]


def draw_tokens(trips: Trips, rng: np.random.Generator, group: int, empty: float) -> Tokens:
    """Splits every trip at random into groups, as a simulated trip is split into slates.

    Each trip draws its own largest group and shuffles its items; after a group, with chance ``empty``, stands an empty
    token, as a slate of which nothing was bought. Of most slates little is bought: ``SINGLES`` of the trips come in
    groups of one or two, the others, which need fewer tokens, in groups of at most 3 to ``group``.
    """
    num_trips = len(trips.trip_user)
    order = np.argsort(trips.trip + rng.random(len(trips.trip)), kind="stable")
    rank = np.arange(len(order)) - trips.events[trips.trip]
    cap = rng.integers(min(3, group), group + 1, num_trips)
    small = rng.integers(1, min(2, group) + 1, num_trips)
    cap = np.where(rng.random(num_trips) < SINGLES, small, cap)
    groups = -(-trips.size // cap)
    group_trip = np.repeat(np.arange(num_trips), groups)
    first_group = np.cumsum(groups) - groups
    extra = (rng.random(len(group_trip)) < empty).astype(np.int64)
    place = np.arange(len(group_trip)) + np.cumsum(extra) - extra  # token number of each group
    total = len(group_trip) + int(extra.sum())
    items = np.full((total, group), -1, np.int64)
    feedback = np.zeros((total, group), np.int64)
    event_group = first_group[trips.trip] + rank // cap[trips.trip]
    items[place[event_group], rank % cap[trips.trip]] = trips.item[order]
    feedback[place[event_group], rank % cap[trips.trip]] = trips.feedback[order]
    token_trip = np.empty(total, np.int64)
    token_trip[place] = group_trip
    empties = place[extra == 1] + 1
    token_trip[empties] = group_trip[extra == 1]
    sizes = (items >= 0).sum(1)
    starts = np.searchsorted(token_trip, np.arange(num_trips))
    step = np.arange(total) - starts[token_trip]
    running = np.cumsum(sizes) - sizes
    return Tokens(
        items=items,
        feedback=feedback,
        trip=token_trip,
        first=step == 0,
        bought=running - running[starts[token_trip]],
        step=step,
        order=order,
        users=np.searchsorted(trips.trip_user[token_trip], np.arange(trips.num_users + 1)),
    )
