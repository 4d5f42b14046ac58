"""Distances between two samples of one quantity: Kolmogorov-Smirnov, Jensen-Shannon, Wasserstein."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from recgym.errors import RecGymError

Floats = npt.NDArray[np.float64]
BINS = 20


def ks_distance(left: npt.ArrayLike, right: npt.ArrayLike) -> float:
    """The Kolmogorov-Smirnov distance: the largest gap between the two empirical distribution functions, in [0, 1].

    Raises:
        RecGymError: a sample that is empty, not a vector or not finite.
    """
    _, below_left, below_right = _distributions(left, right)
    return float(np.abs(below_left - below_right).max())


def wasserstein_distance(left: npt.ArrayLike, right: npt.ArrayLike) -> float:
    """The Wasserstein-1 (earth mover's) distance in the unit of the values: the area between the two functions.

    Raises:
        RecGymError: a sample that is empty, not a vector or not finite.
    """
    points, below_left, below_right = _distributions(left, right)
    return float((np.abs(below_left - below_right)[:-1] * np.diff(points)).sum())


def jensen_shannon_divergence(left: npt.ArrayLike, right: npt.ArrayLike, bins: int = BINS) -> float:
    """The Jensen-Shannon divergence in bits, in [0, 1] (Lin, 1991), of the samples in at most ``bins`` shared bins.

    Where both samples together take no more than ``bins`` values, each value is a bin; otherwise the bins hold equal
    shares of both samples pooled with equal weight.

    Raises:
        RecGymError: a sample that is empty, not a vector or not finite, or fewer than two bins.
    """
    if bins < 2:
        raise RecGymError(f"bins must be at least 2, got {bins!r}")
    points, below_left, below_right = _distributions(left, right)
    if len(points) > bins:
        pooled = (below_left + below_right) / 2
        ends = np.searchsorted(pooled, np.arange(1, bins) / bins)  # last point of every bin but the last
        keep = np.unique(np.append(ends, len(points) - 1))
        below_left, below_right = below_left[keep], below_right[keep]
    p, q = np.diff(below_left, prepend=0.0), np.diff(below_right, prepend=0.0)
    middle = (p + q) / 2
    return float(max(0.0, (_relative_entropy(p, middle) + _relative_entropy(q, middle)) / 2))


def _relative_entropy(p: Floats, q: Floats) -> float:
    some = p > 0
    return float((p[some] * np.log2(p[some] / q[some])).sum())


def _distributions(left: npt.ArrayLike, right: npt.ArrayLike) -> tuple[Floats, Floats, Floats]:
    """All values of both samples, ascending, and the share of each sample at or below each."""
    samples = [_checked(name, values) for name, values in (("left", left), ("right", right))]
    points = np.unique(np.concatenate(samples))
    below = [np.searchsorted(np.sort(sample), points, side="right") / len(sample) for sample in samples]
    return points, below[0], below[1]


def _checked(name: str, values: npt.ArrayLike) -> Floats:
    sample = np.asarray(values, dtype=np.float64)
    if sample.ndim != 1 or not len(sample):
        raise RecGymError(f"the {name} sample must be a vector with at least one value, got shape {sample.shape}")
    if not np.isfinite(sample).all():
        at = int(np.flatnonzero(~np.isfinite(sample))[0])
        raise RecGymError(f"the {name} sample holds {sample[at]} at {at}; every value must be a finite number")
    return sample
