"""Fairness to users: gaps between groups beside what chance alone would show, parity, and unfair errors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from recgym.errors import RecGymError
from recgym.evaluation import aggregate, statistics
from recgym.evaluation.metrics.arrays import Floats, aligned, numbers
from recgym.evaluation.statistics import Estimate
from recgym.simulation.population import UNKNOWN

MIN_USERS = 50
PERMUTATIONS = 1_000


@dataclass(frozen=True)
class GroupGap:
    """A utility by group of users.

    Attributes:
        groups: label -> mean of the utility, with its interval; ``unknown`` is among them where it has users.
        gap: largest mean less the smallest over the known groups, with its interval.
        worst: smallest mean over the known groups, with its interval.
        worst_group: label of the worst.
        permuted_gap: mean gap when the labels of users are shuffled: what a gap is without any difference, since the
            largest of several noisy means is biased upward.
        permuted_worst: mean of the worst group under shuffled labels.
        p_value: chance of a gap as large under shuffled labels.
    """

    groups: Mapping[str, Estimate]
    gap: Estimate
    worst: Estimate
    worst_group: str
    permuted_gap: float
    permuted_worst: float
    p_value: float


def group_gap(
    values: npt.ArrayLike,
    users: npt.ArrayLike,
    groups: npt.ArrayLike,
    rng: np.random.Generator,
    *,
    draws: int = statistics.DRAWS,
    permutations: int = PERMUTATIONS,
) -> GroupGap:
    """The mean utility of each group, the gap and the worst group, beside both under permuted labels.

    Users are resampled within their groups. On a 0/1 outcome the gap is statistical parity (Dwork et al., 2012); over
    the rows where the outcome was deserved it is equal opportunity (Hardt et al., 2016).

    Args:
        values: [R] a utility, more is better, one an episode.
        users: [R] the user of each.
        groups: [R] the label of each user's group; ``unknown`` is reported but is not in the gap.
        rng: source of the resamples and permutations.
        draws: resamples.
        permutations: of the labels.

    Raises:
        RecGymError: fewer than two known groups, a known group under 50 users (its mean would be mostly noise), a user
            in two groups, lengths that differ, or a value that is not finite.
    """
    utility, owners = statistics.checked(values, users)
    labels = np.asarray(groups).astype(str)
    aligned(values=utility, groups=labels)
    known = labels != UNKNOWN
    names = _known_groups(owners, labels)
    _, first, owner = np.unique(owners[known], return_index=True, return_inverse=True)
    code = np.searchsorted(names, labels[known])  # [R'] ``names`` is sorted
    member = code[first]  # [C] group of each user
    onehot = np.eye(len(names))[code]  # [R', G]
    gains = onehot * utility[known, None]

    def spread(weights: Floats) -> Floats:
        means = (weights @ gains) / (weights @ onehot)  # [d, G]
        return np.stack([np.ptp(means, axis=1), means.min(1)], axis=1)

    gap, worst = aggregate.bootstrap(spread, owners[known], rng, strata=labels[known], draws=draws)
    found = {
        str(name): statistics.mean(utility[labels == name], owners[labels == name], rng, draws=draws)
        for name in [*names, *([UNKNOWN] if not known.all() else [])]
    }
    sums, sizes = np.bincount(owner, utility[known]), np.bincount(owner)
    shuffled = np.empty((permutations, len(names)))
    for at in range(permutations):
        drawn = rng.permutation(member)
        shuffled[at] = np.bincount(drawn, sums) / np.bincount(drawn, sizes)
    gaps = np.ptp(shuffled, axis=1)
    return GroupGap(
        groups=found,
        gap=gap,
        worst=worst,
        worst_group=str(min(names, key=lambda name: found[str(name)].value)),
        permuted_gap=float(gaps.mean()),
        permuted_worst=float(shuffled.min(1).mean()),
        p_value=float((1 + (gaps >= gap.value * (1 - 1e-12)).sum()) / (1 + permutations)),
    )


def ranking_parity(shown: npt.ArrayLike, available: npt.ArrayLike) -> float:
    """RSP: std over mean across groups of P(shown at k | group) (Zhu et al., SIGIR 2020); 0 is fair.

    REO, ranking-based equal opportunity, is the same of relevant items alone: pass how many relevant ones were shown
    and how many there were.

    Args:
        shown: [G] items (or user-item pairs) of each group that were shown.
        available: [G] those that could have been, above 0.

    Raises:
        RecGymError: fewer than two groups, more shown than available, nothing shown, or lengths that differ.
    """
    taken, could = numbers("shown", shown, low=0), numbers("available", available, low=1)
    aligned(shown=taken, available=could)
    if len(taken) < 2 or (taken > could).any() or not taken.any():
        raise RecGymError(f"parity needs two groups and 0 < shown <= available, got {taken} of {could}")
    return float(relative_spread(taken / could))


def relative_spread(rates: npt.ArrayLike) -> Floats:
    """Standard deviation over mean along the last axis; NaN where the mean is 0."""
    found = np.asarray(rates, np.float64)
    mean = found.mean(-1)
    spread: Floats = np.divide(found.std(-1), mean, out=np.full(np.shape(mean), np.nan), where=mean > 0)
    return spread


@dataclass(frozen=True)
class ErrorUnfairness:
    """Yao and Huang (NeurIPS 2017), each at least 0 and 0 where errors are alike; means over items.

    Attributes:
        value: of signed errors.
        absolute: of the size of errors.
        under: of how much is underestimated.
        over: of how much is overestimated.
    """

    value: float
    absolute: float
    under: float
    over: float


def error_unfairness(
    predicted: npt.ArrayLike,
    true: npt.ArrayLike,
    items: npt.ArrayLike,
    users: npt.ArrayLike,
    groups: npt.ArrayLike,
    group: str,
) -> ErrorUnfairness:
    """How differently a group's ratings are mispredicted, item by item, from those of all other known groups.

    For each item the mean prediction less the mean rating is taken in the group and outside it; items that only one
    side rated are left out.

    Args:
        predicted: [R] ratings.
        true: [R] ratings.
        items: [R] the item of each.
        users: [R] the user of each.
        groups: [R] the label of the user; rows of ``unknown`` are left out.
        group: the label that is set against the rest.

    Raises:
        RecGymError: a group the labels lack, a known group under 50 users, no item rated on both sides, lengths that
            differ, or a number that is not finite.
    """
    errors = numbers("predicted", predicted) - numbers("true", true)
    labels, rated, owners = np.asarray(groups).astype(str), np.asarray(items), np.asarray(users)
    aligned(predicted=errors, items=rated, users=owners, groups=labels)
    names = _known_groups(owners, labels)
    if group not in names:
        raise RecGymError(f"unknown group {group!r}; groups: {', '.join(names)}")
    _, item = np.unique(rated, return_inverse=True)
    size = int(item.max()) + 1
    sides = [labels == group, (labels != group) & (labels != UNKNOWN)]
    counts = np.stack([np.bincount(item[side], minlength=size) for side in sides])
    both = (counts > 0).all(0)
    if not both.any():
        raise RecGymError(f"no item was rated both in group {group!r} and outside it")
    sums = np.stack([np.bincount(item[side], errors[side], minlength=size) for side in sides])
    inside, outside = sums[:, both] / counts[:, both]
    parts = (lambda x: x, np.abs, lambda x: np.maximum(-x, 0), lambda x: np.maximum(x, 0))
    return ErrorUnfairness(*(float(np.abs(part(inside) - part(outside)).mean()) for part in parts))


def differential_fairness(counts: npt.ArrayLike, smoothing: float = 1.0) -> float:
    """Epsilon such that rates of every outcome in any two groups are within ``e^(+-epsilon)``; 0 is fair.

    Foulds et al., ICDE 2020, with rates ``(N_ys + a) / (N_s + Y a)``.

    Args:
        counts: [G, Y] how often each outcome befell each group; at least two of each.
        smoothing: a, above 0.

    Raises:
        RecGymError: fewer than two groups or outcomes, a negative count, or ``smoothing`` not above 0.
    """
    table = numbers("counts", counts, 2, low=0)
    if min(table.shape) < 2 or not smoothing > 0:
        raise RecGymError(f"two groups, two outcomes and smoothing > 0 are needed, got {table.shape}, {smoothing}")
    rates = np.log((table + smoothing) / (table.sum(1, keepdims=True) + smoothing * table.shape[1]))
    return float(np.ptp(rates, axis=0).max())


def _known_groups(users: npt.NDArray[np.generic], labels: npt.NDArray[np.str_]) -> list[str]:
    """The known labels, sorted; raises RecGymError where they are too few or one has too few users."""
    names = sorted(set(labels.tolist()) - {UNKNOWN})
    if len(names) < 2:
        raise RecGymError(f"fairness needs at least two known groups, got {names}")
    for name in names:
        size = len(np.unique(users[labels == name]))
        if size < MIN_USERS:
            raise RecGymError(f"group {name!r} has {size} users; under {MIN_USERS} its mean is mostly noise")
    return names
