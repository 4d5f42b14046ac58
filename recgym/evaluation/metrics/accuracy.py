"""Accuracy of slates against the true responses, the whole catalogue counted: one number a slate."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from recgym.errors import RecGymError
from recgym.evaluation.metrics.arrays import Floats, discounts, item_rows, numbers, row_sums


def precision(slates: npt.ArrayLike, relevance: npt.ArrayLike) -> Floats:
    """Share of a slate's items that are relevant (relevance above 0).

    Args:
        slates: [S, K] item rows, best first.
        relevance: [S, N] of every item for the user of the slate, at least 0: what the user would do with it.

    Returns:
        [S] in [0, 1].

    Raises:
        RecGymError: shapes that do not fit, an item row the catalogue lacks, an item twice in a slate, or a relevance
            that is negative or not finite.
    """
    gains, _ = _gains(slates, relevance)
    found: Floats = (gains > 0).mean(1)
    return found


def recall(slates: npt.ArrayLike, relevance: npt.ArrayLike) -> Floats:
    """Share of a user's relevant items that the slate shows; arguments and errors as ``precision``.

    Returns:
        [S] in [0, 1]; NaN where the user has no relevant item, since nothing could have been found.
    """
    gains, true = _gains(slates, relevance)
    return _ratio((gains > 0).sum(1).astype(np.float64), (true > 0).sum(1).astype(np.float64))


def ndcg(slates: npt.ArrayLike, relevance: npt.ArrayLike) -> Floats:
    """Normalised discounted cumulative gain: ``sum_j relevance_j / log2(j + 1)``, over that of the best slate.

    Jarvelin and Kekalainen, 2002, with linear gains so that true probabilities or amounts can be given as relevance.
    Arguments and errors as ``precision``.

    Returns:
        [S] in [0, 1]; NaN where the user has no relevant item.
    """
    gains, true = _gains(slates, relevance)
    width = gains.shape[1]
    best = -np.sort(-true, axis=1)[:, :width]
    weights = discounts(width)
    return _ratio(row_sums(gains, weights), row_sums(best, weights))


def mrr(slates: npt.ArrayLike, relevance: npt.ArrayLike) -> Floats:
    """Reciprocal rank of the first relevant item (Voorhees, 1999); arguments and errors as ``precision``.

    Returns:
        [S] in [0, 1]: 1 where the first item is relevant, 0 where none is; the mean over slates is the MRR.
    """
    gains, _ = _gains(slates, relevance)
    hits = gains > 0
    found: Floats = np.where(hits.any(1), 1 / (hits.argmax(1) + 1), 0.0)
    return found


def _gains(slates: npt.ArrayLike, relevance: npt.ArrayLike) -> tuple[Floats, Floats]:
    """[S, K] the relevance of what is shown, and [S, N] of everything."""
    true = numbers("relevance", relevance, 2, low=0)
    shown = item_rows("slates", slates, true.shape[1])
    if len(shown) != len(true):
        raise RecGymError(f"slates and relevance need one row a slate each, got {len(shown)} and {len(true)}")
    if (np.diff(np.sort(shown, axis=1), axis=1) == 0).any():
        raise RecGymError("a slate shows an item twice")
    return np.take_along_axis(true, shown, axis=1), true


def _ratio(top: Floats, bottom: Floats) -> Floats:
    return np.divide(top, bottom, out=np.full(len(top), np.nan), where=bottom > 0)
