"""What a platform showed while its log was written: such pairs say nothing of q alone, and all of the lift."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

LIFTS = (-5.0, 5.0)  # among which the lift is sought


@dataclass(frozen=True, eq=False)
class Exposures:
    """X pairs of a trip and an item that was shown on it, each once, sorted by trip and item.

    Whether an item is bought that was shown tells of the showing as well as of the want. Where what is shown depends on
    what is on file alone (a known logging policy), leaving shown pairs out loses data and biases nothing.
    """

    trip: np.ndarray  # [X] int64
    item: np.ndarray  # [X] int64
    examined: np.ndarray  # [X] float64, the chance that the user looked at the item at least once on the trip
    num_items: int

    def select(self, keep: np.ndarray) -> Exposures:
        """Those of the trips where ``keep`` (bool [T]) holds, which are numbered anew."""
        kept = keep[self.trip]
        number = np.cumsum(keep) - 1
        return Exposures(number[self.trip[kept]], self.item[kept], self.examined[kept], self.num_items)

    def shown(self, trip: np.ndarray, item: np.ndarray) -> np.ndarray:
        """Whether each item was shown on each trip, bool; two int64 arrays of one shape."""
        if not len(self.trip):
            return np.zeros(trip.shape, bool)
        keys = self.trip * self.num_items + self.item
        wanted = trip * self.num_items + item
        return keys[np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)] == wanted

    def of(self, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The pairs of trips ``targets`` (int64 [P], ascending): rows in targets, items, chances of examination."""
        place = np.minimum(np.searchsorted(targets, self.trip), max(len(targets) - 1, 0))
        inside = targets[place] == self.trip if len(targets) else np.zeros(len(self.trip), bool)
        return place[inside], self.item[inside], self.examined[inside]


def fit_lift(logit: np.ndarray, examined: np.ndarray, bought: np.ndarray) -> tuple[float, float] | None:
    """The lift of ``logit P(buy | examined) = logit q + lift``, by maximum likelihood on X shown pairs.

    Who does not look buys with chance q, so ``P(bought | shown) = e sigmoid(logit q + lift) + (1 - e) sigmoid(logit
    q)`` with e the chance of examination. Identified where what is shown does not depend on the want.

    Args:
        logit: of q, [X].
        examined: e, [X].
        bought: on the same trip, bool [X].

    Returns:
        The lift and its standard error, from the curvature of the log likelihood at its maximum (two decimals); None
        where it has no maximum within ``LIFTS``, as where nothing was shown or nothing that was shown was bought.
    """

    def likelihood(lift: float) -> float:
        chance = examined / (1 + np.exp(-logit - lift)) + (1 - examined) / (1 + np.exp(-logit))
        chance = chance.clip(1e-12, 1 - 1e-12)
        return float(np.where(bought, np.log(chance), np.log1p(-chance)).sum())

    low, high = LIFTS
    coarse = float(max(np.arange(low, high + 0.01, 0.25), key=likelihood))
    if coarse in LIFTS:
        return None
    lift = float(max(np.arange(coarse - 0.25, coarse + 0.25, 0.005), key=likelihood))
    step = 0.05
    curvature = (likelihood(lift + step) - 2 * likelihood(lift) + likelihood(lift - step)) / step**2
    return lift, float(1 / np.sqrt(max(-curvature, 1e-12)))
