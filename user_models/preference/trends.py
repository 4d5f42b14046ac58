"""How much more, or less, than usual everybody has bought of an item lately."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from recgym.user_models.preference.network import TREND_DAYS
from recgym.user_models.preference.trips import Trips

_PRIOR = 2.0  # purchases as usual that are added to both sides: rare items tell little


@dataclass(frozen=True, eq=False)
class Trends:
    """A log's purchases by item and day, for counting those of the last days before any day."""

    keys: np.ndarray  # [E] int64 sorted: item * (D + 1) + day, of D days
    before: np.ndarray  # [D + 1] int64 purchases of all items before each day
    usual: np.ndarray  # [N] each item's usual share of all purchases

    @classmethod
    def of(cls, trips: Trips, popularity: np.ndarray) -> Trends:
        """The index of a log; ``popularity`` [N] says what is usual."""
        day = trips.trip_day[trips.trip]
        daily = np.bincount(day)
        share = (popularity + 1) / (popularity.sum() + len(popularity))
        return cls(np.sort(trips.item * (len(daily) + 1) + day), np.concatenate(([0], np.cumsum(daily))), share)

    def at(self, day: np.ndarray, item: np.ndarray) -> np.ndarray:
        """Log ratio of what was bought to what is usual in the ``TREND_DAYS`` before ``day``, float32 [n, windows].

        Only earlier days count, so that the trend before a trip never knows the trip.
        """
        span = len(self.before)
        end = np.minimum(day, span - 1)
        stop = np.searchsorted(self.keys, item * span + end)
        columns = []
        for days in TREND_DAYS:
            start = np.clip(day - days, 0, span - 1)
            bought = stop - np.searchsorted(self.keys, item * span + start)
            expected = (self.before[end] - self.before[start]) * self.usual[item]
            columns.append(np.log((bought + _PRIOR) / (expected + _PRIOR)))
        return np.stack(columns, axis=-1).astype(np.float32)

    def now(self) -> np.ndarray:
        """The trends of all items when the log ends, float32 [N, windows]."""
        items = np.arange(len(self.usual))
        return self.at(np.full_like(items, len(self.before) - 1), items)
