"""Whether predictions come true: log loss, Brier score, reliability in equal-mass bins and what chance alone costs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from recgym.errors import RecGymError

Floats = npt.NDArray[np.float64]
Mass = Literal["pairs", "predicted"]
BINS = 10
CLOSE = (0.8, 1.25)  # a bin is close where observed / predicted lies within
SMALLEST = 1e-12  # chances are kept this far from 0 and 1 in logarithms


@dataclass(frozen=True)
class Reliability:
    """Predictions sorted into bins of equal mass, and what came of them."""

    predicted: Floats  # [bins] mean prediction
    observed: Floats  # [bins] mean outcome
    count: npt.NDArray[np.int64]  # [bins]

    @property
    def error(self) -> float:
        """Mean absolute difference of observed and predicted over all pairs (the expected calibration error)."""
        return float(np.abs(self.observed - self.predicted) @ self.count / self.count.sum())

    @property
    def num_close(self) -> int:
        """Bins whose observed / predicted lies within ``CLOSE``."""
        low, high = CLOSE
        return int(((self.observed >= low * self.predicted) & (self.observed <= high * self.predicted)).sum())

    def rows(self, digits: int = 6) -> list[list[float]]:
        """JSON values: [mean predicted, mean observed, pairs] of each bin."""
        return [
            [round(float(p), digits), round(float(o), digits), int(n)]
            for p, o, n in zip(self.predicted, self.observed, self.count, strict=True)
        ]


@dataclass(frozen=True)
class Floor:
    """What chance alone does to the calibration of a perfect model."""

    error: float  # mean calibration error
    error_95: float  # exceeded by one perfect model in twenty
    num_close: float  # mean number of bins within ``CLOSE``


def reliability(
    predicted: npt.ArrayLike, observed: npt.ArrayLike, bins: int = BINS, mass: Mass = "pairs"
) -> Reliability:
    """Sorts predictions into ``bins`` bins of equal mass, fewer where there are fewer predictions.

    Args:
        predicted: [R] chances or expected values.
        observed: [R] what happened: 0 or 1 for chances, the values themselves otherwise.
        bins: number of bins.
        mass: what the bins hold equal shares of: ``pairs``, or ``predicted``, the sum of the predictions, which gives
            bins of rare events as much to go by as those of frequent ones.

    Raises:
        RecGymError: no rows, lengths that differ, values that are not finite, or no bin.
    """
    p, y = _pair(predicted, observed)
    if bins < 1:
        raise RecGymError(f"bins must be at least 1, got {bins!r}")
    parts = _bins(p, bins, mass)
    return Reliability(
        predicted=np.array([p[part].mean() for part in parts]),
        observed=np.array([y[part].mean() for part in parts]),
        count=np.array([len(part) for part in parts]),
    )


def log_losses(chances: npt.ArrayLike, outcomes: npt.ArrayLike) -> Floats:
    """Negative log likelihood of each outcome (0 or 1) in nats, [R].

    Raises:
        RecGymError: no rows, lengths that differ, chances outside [0, 1] or outcomes other than 0 and 1.
    """
    p, y = _chances(chances, outcomes)
    p = p.clip(SMALLEST, 1 - SMALLEST)
    losses: Floats = -np.where(y == 1, np.log(p), np.log1p(-p))
    return losses


def brier_scores(chances: npt.ArrayLike, outcomes: npt.ArrayLike) -> Floats:
    """Squared error of each chance, [R] (Brier, 1950). See ``log_losses`` for the errors."""
    p, y = _chances(chances, outcomes)
    scores: Floats = (p - y) ** 2
    return scores


def calibration_floor(
    chances: npt.ArrayLike,
    values: npt.ArrayLike,
    rng: np.random.Generator,
    *,
    bins: int = BINS,
    mass: Mass = "pairs",
    draws: int = 200,
    same: npt.NDArray[np.int64] | None = None,
) -> Floor:
    """The calibration error that a perfect model would show on as many outcomes.

    Outcomes are drawn from the predictions themselves, so all error is chance.

    Args:
        chances: [R, V] predicted chance of each value, rows sum to 1.
        values: [V] the values, ascending: (0, 1) for an event, (1, ..., 5) for a rating.
        rng: source of the draws.
        bins: number of bins.
        mass: see ``reliability``.
        draws: number of simulated sets of outcomes.
        same: [R] numbers from 0; rows of one number are one event looked at several times, and share its outcome.

    Raises:
        RecGymError: no rows, shapes that do not fit, or rows that do not sum to 1.
    """
    table, support = np.asarray(chances, dtype=np.float64), np.asarray(values, dtype=np.float64)
    if table.ndim != 2 or not len(table) or support.shape != table.shape[1:]:
        raise RecGymError(f"chances must be [R, V] and values [V], got {table.shape} and {support.shape}")
    if (table < -1e-9).any() or not np.allclose(table.sum(1), 1, atol=1e-4):
        raise RecGymError("every row of chances must hold no negative number and sum to 1")
    expected = table @ support
    parts = _bins(expected, bins, mass)
    order = np.concatenate(parts)
    table, expected = table[order].cumsum(1)[:, :-1], expected[order]
    counts = np.array([len(part) for part in parts])
    starts = np.cumsum(counts) - counts
    predicted = np.add.reduceat(expected, starts) / counts
    errors, close = np.empty(draws), np.empty(draws)
    event = order if same is None else same[order]
    num_events = int(event.max()) + 1
    for draw in range(draws):
        place = (table < rng.random(num_events)[event, None]).sum(1)
        drawn = Reliability(predicted, np.add.reduceat(support[place], starts) / counts, counts)
        errors[draw], close[draw] = drawn.error, drawn.num_close
    return Floor(float(errors.mean()), float(np.quantile(errors, 0.95)), float(close.mean()))


def _bins(predicted: Floats, bins: int, mass: Mass) -> list[npt.NDArray[np.int64]]:
    """Rows of each bin, by ascending prediction; empty bins are left out."""
    order = np.argsort(predicted, kind="stable")
    if mass == "pairs" or predicted.min() < 0 or predicted.sum() == 0:
        parts = np.array_split(order, bins)
    else:
        share = np.cumsum(predicted[order]) / predicted.sum()
        parts = np.split(order, np.searchsorted(share, np.arange(1, bins) / bins))
    return [part for part in parts if len(part)]


def _chances(chances: npt.ArrayLike, outcomes: npt.ArrayLike) -> tuple[Floats, Floats]:
    p, y = _pair(chances, outcomes)
    if (p < 0).any() or (p > 1).any():
        at = int(np.flatnonzero((p < 0) | (p > 1))[0])
        raise RecGymError(f"chance {at} is {p[at]}; chances lie in [0, 1]")
    if not np.isin(y, (0, 1)).all():
        at = int(np.flatnonzero(~np.isin(y, (0, 1)))[0])
        raise RecGymError(f"outcome {at} is {y[at]}; outcomes are 0 or 1")
    return p, y


def _pair(predicted: npt.ArrayLike, observed: npt.ArrayLike) -> tuple[Floats, Floats]:
    p, y = np.asarray(predicted, dtype=np.float64), np.asarray(observed, dtype=np.float64)
    if p.ndim != 1 or p.shape != y.shape or not len(p):
        raise RecGymError(f"predictions and outcomes must be vectors of one length, got {p.shape} and {y.shape}")
    if not (np.isfinite(p).all() and np.isfinite(y).all()):
        raise RecGymError("predictions and outcomes must be finite numbers")
    return p, y
