"""Beyond accuracy: coverage, diversity, novelty, serendipity, concentration, popularity bias, calibration."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from recgym.errors import RecGymError
from recgym.evaluation.metrics.arrays import Bools, Floats, aligned, distributions, item_rows, numbers

SMOOTHING = 0.01  # Steck's a
HEAD = 0.2  # share of items that count as popular


def catalogue_coverage(shown: npt.ArrayLike) -> float:
    """Share of the catalogue shown at least once (Ge et al., RecSys 2010), in [0, 1].

    Args:
        shown: [N] how often each item was shown, at least 0.

    Raises:
        RecGymError: no items, or a count that is negative or not finite.
    """
    return float((numbers("shown", shown, low=0) > 0).mean())


def gini(amounts: npt.ArrayLike) -> float:
    """Gini coefficient ``sum_j (2j - n - 1) p_(j) / (n - 1)`` with the shares p ascending.

    The factor n / (n - 1) over the textbook form makes 1 reachable: 0 where all are equal, 1 where one has everything
    (Shani and Gunawardana, 2011).

    Args:
        amounts: [n] at least 0 with a positive sum, such as exposures of items; n at least 2.

    Raises:
        RecGymError: fewer than 2 amounts, one that is negative or not finite, or a sum of 0.
    """
    shares = np.sort(distributions("amounts", amounts))
    count = len(shares)
    if count < 2:
        raise RecGymError("a Gini coefficient needs at least 2 amounts, got 1")
    return float((2 * np.arange(1, count + 1) - count - 1) @ shares / (count - 1))


def intra_list_diversity(slates: npt.ArrayLike, features: npt.ArrayLike) -> Floats:
    """Mean cosine distance between the pairs of items of a slate (Ziegler et al., WWW 2005).

    Args:
        slates: [S, K] item rows, K at least 2.
        features: [N, D] of the items, not all 0 for any item; one-hot categories make it the share of pairs that
            differ in category.

    Returns:
        [S] in [0, 2] (in [0, 1] where features are not negative); 0: all alike.

    Raises:
        RecGymError: slates of one item, an item row the catalogue lacks, or an item without features.
    """
    vectors = numbers("features", features, 2)
    shown = item_rows("slates", slates, len(vectors))
    width = shown.shape[1]
    if width < 2:
        raise RecGymError("diversity needs slates of at least 2 items")
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    if (norms == 0).any():
        raise RecGymError(f"item {int(np.flatnonzero(norms == 0)[0])} has no features: its direction is undefined")
    # The sum over all pairs of unit vectors is the squared length of their sum: no [S, K, K] array.
    total = (vectors / norms)[shown].sum(1)  # [S, D]
    similarity = ((total**2).sum(1) - width) / (width * (width - 1))
    found: Floats = np.clip(1 - similarity, 0, 2)
    return found


def novelty(slates: npt.ArrayLike, popularity: npt.ArrayLike) -> Floats:
    """Mean self-information ``-log2 p(item)`` of a slate in bits (Zhou et al., PNAS 2010).

    Args:
        slates: [S, K] item rows.
        popularity: [N] logged interactions of each item; p is its share with 1 added to each, so that an item nobody
            has met is very novel rather than infinitely so.

    Returns:
        [S] bits, at least 0.

    Raises:
        RecGymError: an item row the catalogue lacks, or a popularity that is negative or not finite.
    """
    bits = information(popularity)
    found: Floats = bits[item_rows("slates", slates, len(bits))].mean(1)
    return found


def information(popularity: npt.ArrayLike) -> Floats:
    """[N] ``-log2 p(item)`` in bits, with p as in ``novelty``; raises RecGymError as it does."""
    bits: Floats = -np.log2(distributions("popularity", numbers("popularity", popularity, low=0) + 1))
    return bits


def serendipity(slates: npt.ArrayLike, useful: npt.ArrayLike, expected: npt.ArrayLike) -> Floats:
    """Share of a slate that is useful and that an obvious recommender would not have shown (Ge et al., RecSys 2010).

    Args:
        slates: [S, K] item rows.
        useful: [S, K] whether the user consumed (or would consume) the item.
        expected: [S, N] whether the obvious recommender (popularity, or the user's own favourites) shows the item.

    Returns:
        [S] in [0, 1].

    Raises:
        RecGymError: shapes that do not fit, or an item row the catalogue lacks.
    """
    obvious = numbers("expected", expected, 2, low=0, high=1) > 0
    shown = item_rows("slates", slates, obvious.shape[1])
    liked = numbers("useful", useful, 2, low=0, high=1) > 0
    aligned(slates=shown, useful=liked)
    aligned(slates=shown[:, 0], expected=obvious[:, 0])
    found: Floats = (liked & ~np.take_along_axis(obvious, shown, axis=1)).mean(1)
    return found


def average_popularity(slates: npt.ArrayLike, popularity: npt.ArrayLike) -> Floats:
    """ARP: mean popularity of the items of a slate (Yin et al., VLDB 2012).

    Args:
        slates: [S, K] item rows.
        popularity: [N] logged interactions of each item.

    Returns:
        [S] interactions; the mean over slates is the ARP.

    Raises:
        RecGymError: an item row the catalogue lacks, or a popularity that is negative or not finite.
    """
    counts = numbers("popularity", popularity, low=0)
    found: Floats = counts[item_rows("slates", slates, len(counts))].mean(1)
    return found


def long_tail(popularity: npt.ArrayLike, head: float = HEAD) -> Bools:
    """[N] whether an item is outside the ``head`` share of most popular items; ties go by item row.

    Raises:
        RecGymError: ``head`` not inside (0, 1), or a popularity that is negative or not finite.
    """
    if not 0 < head < 1:
        raise RecGymError(f"head must be a share inside (0, 1), got {head}")
    counts = numbers("popularity", popularity, low=0)
    tail = np.ones(len(counts), bool)
    tail[np.argsort(-counts, kind="stable")[: round(head * len(counts))]] = False
    return tail


def tail_share(slates: npt.ArrayLike, tail: npt.ArrayLike) -> Floats:
    """APLT: share of the long tail in a slate (Abdollahpouri et al., RecSys 2017).

    Args:
        slates: [S, K] item rows.
        tail: [N] whether each item is of the tail, as ``long_tail`` says.

    Returns:
        [S] in [0, 1]; the mean over slates is the APLT.

    Raises:
        RecGymError: an item row the catalogue lacks.
    """
    rare = numbers("tail", tail, low=0, high=1)
    found: Floats = rare[item_rows("slates", slates, len(rare))].mean(1)
    return found


def category_shares(owners: npt.ArrayLike, categories: npt.ArrayLike, num_owners: int, num_categories: int) -> Floats:
    """Distribution of categories over the items of each owner (a user's history, or what a user was shown).

    Args:
        owners: [R] row of the owner of each item.
        categories: [R] its category.
        num_owners: S.
        num_categories: C.

    Returns:
        [S, C]; an owner without items has zeros.

    Raises:
        RecGymError: lengths that differ, or a row out of range.
    """
    rows = item_rows("owners", owners, num_owners, 1)
    kinds = item_rows("categories", categories, num_categories, 1)
    aligned(owners=rows, categories=kinds)
    counts = np.bincount(rows * num_categories + kinds, minlength=num_owners * num_categories)
    table = counts.reshape(num_owners, num_categories).astype(np.float64)
    shares: Floats = table / np.maximum(table.sum(1, keepdims=True), 1)
    return shares


def miscalibration(history: npt.ArrayLike, shown: npt.ArrayLike, smoothing: float = SMOOTHING) -> Floats:
    """Steck's calibration metric ``KL(p || (1 - a) q + a p)`` in nats (RecSys 2018); lower is better.

    Args:
        history: p, [S, C] categories of what each user consumed before.
        shown: q, [S, C] categories of what each was shown; both are scaled to sum to 1.
        smoothing: a in (0, 1), which keeps a category that is never shown from costing infinitely much.

    Returns:
        [S] from 0 (the same mix) to ``-log a`` (nothing in common).

    Raises:
        RecGymError: shapes that differ, a user without history or slate, or ``smoothing`` out of range.
    """
    if not 0 < smoothing < 1:
        raise RecGymError(f"smoothing must be inside (0, 1), got {smoothing}")
    p, q = distributions("history", history, 2), distributions("shown", shown, 2)
    aligned(history=p, shown=q)
    mixed = (1 - smoothing) * q + smoothing * p
    found: Floats = (p * np.log(np.divide(p, mixed, out=np.ones_like(p), where=p > 0))).sum(1)
    return np.maximum(found, 0)


def category_entropy(
    users: npt.ArrayLike, periods: npt.ArrayLike, categories: npt.ArrayLike, num_categories: int
) -> pd.DataFrame:
    """Shannon entropy in bits of the categories each user was shown (or consumed) in each period of time.

    A fall over the periods is the narrowing that filter bubbles are charged with (Nguyen et al., WWW 2014). The
    entropy of a few items is too low whatever the mix: compare periods with as many items each.

    Args:
        users: [R] the user of each item.
        periods: [R] its period, such as ``day // 30``.
        categories: [R] its category.
        num_categories: C.

    Returns:
        columns user, period, entropy (bits, at most log2 of C), num_items; ordered by user and period.

    Raises:
        RecGymError: lengths that differ, or a category out of range.
    """
    table = {"user": np.asarray(users), "period": np.asarray(periods)}
    kinds = item_rows("categories", categories, num_categories, 1)
    aligned(**table, categories=kinds)
    groups = pd.DataFrame(table).groupby(["user", "period"])
    found = groups.size().rename("num_items").reset_index()
    cells, counts = np.unique(groups.ngroup().to_numpy() * num_categories + kinds, return_counts=True)
    owner = cells // num_categories
    shares = counts / found["num_items"].to_numpy()[owner]
    entropy = np.bincount(owner, -shares * np.log2(shares), minlength=len(found))
    found.insert(2, "entropy", np.maximum(entropy, 0))
    return found
