"""Aggregates that a few runs cannot mislead: stratified bootstrap intervals of any statistic, clustered by user.

After Agarwal et al., "Deep reinforcement learning at the edge of the statistical precipice", NeurIPS 2021.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from recgym.errors import RecGymError
from recgym.evaluation.statistics import DRAWS, LEVEL, Estimate, Floats, Ints, checked, resamples

# How often each row counts [d, R], in each of d resamples -> the statistic [d, K] of each.
Statistic = Callable[[Floats], Floats]


def bootstrap(
    statistic: Statistic,
    users: npt.ArrayLike,
    rng: np.random.Generator,
    *,
    strata: npt.ArrayLike | None = None,
    runs: npt.ArrayLike | None = None,
    draws: int = DRAWS,
    level: float = LEVEL,
) -> list[Estimate]:
    """Percentile intervals of a statistic of weighted rows, by a bootstrap of whole users.

    Each user brings all its rows, so that repeats (seeds, scenarios) do not count as independent evidence. Within a
    stratum as many users are drawn as it holds, so that strata (worlds, groups of users) keep their weight. With
    ``runs``, training runs are drawn too and a row counts as often as its user times its run: the intervals then speak
    of other users and of other trainings (the pigeonhole bootstrap; Owen, 2007).

    Args:
        statistic: weights [d, R] -> [d, K]; the weights are whole numbers.
        users: [R] the user of each row; users of different worlds need different names.
        rng: source of the resamples.
        strata: [R] the stratum of each row, one for all rows of a user; None: all in one.
        runs: [R] the training run of each row; None: the runs are taken as they are.
        draws: number of resamples.
        level: coverage of the intervals.

    Returns:
        one estimate for each of the K columns; the ends are NaN with fewer than two users. A resample on which a column
        is undefined (NaN) is left out for it.

    Raises:
        RecGymError: no rows, lengths that differ, or a user in two strata.
    """
    owner = _codes("users", users)
    num_rows, num_users = len(owner), int(owner.max()) + 1
    stratum = np.zeros(num_users, np.int64)
    if strata is not None:
        codes = _codes("strata", strata, num_rows)
        stratum[owner] = codes
        if (stratum[owner] != codes).any():
            name = np.asarray(users)[np.flatnonzero(stratum[owner] != codes)[0]]
            raise RecGymError(f"user {name!s} is in two strata; all rows of a user must be in one")
    run = None if runs is None else _codes("runs", runs, num_rows)
    points = statistic(np.ones((1, num_rows)))[0]
    if num_users < 2:
        return [Estimate(float(point), np.nan, np.nan, num_users, num_rows) for point in points]
    blocks = [statistic(weights) for weights in _weights(owner, stratum, run, draws, rng)]
    replicates = np.concatenate(blocks)  # [draws, K]
    tails = [(1 - level) / 2, (1 + level) / 2]
    out = []
    for column, point in enumerate(points.tolist()):
        defined = replicates[:, column][~np.isnan(replicates[:, column])]
        low, high = np.quantile(defined, tails) if len(defined) else (np.nan, np.nan)
        out.append(Estimate(point, float(low), float(high), num_users, num_rows))
    return out


def interquartile_mean(
    values: npt.ArrayLike,
    users: npt.ArrayLike,
    rng: np.random.Generator,
    *,
    strata: npt.ArrayLike | None = None,
    runs: npt.ArrayLike | None = None,
    draws: int = DRAWS,
    level: float = LEVEL,
) -> Estimate:
    """IQM: the mean of the middle half of the rows, with an interval as ``bootstrap``.

    Args:
        values: [R] one number a row; scores of different worlds on one scale (shares of the best known score, say).
        users: [R] the user of each row.
        rng: source of the resamples.
        strata: see ``bootstrap``.
        runs: see ``bootstrap``.
        draws: number of resamples.
        level: coverage of the interval.
    """
    numbers, owners = checked(values, users)
    order = np.argsort(numbers, kind="stable")
    ranked = numbers[order]

    def middle(weights: Floats) -> Floats:
        upper = np.cumsum(weights[:, order], axis=1)
        total = upper[:, -1:]
        kept = np.diff(np.clip(upper, total / 4, total * 3 / 4), axis=1, prepend=total / 4)
        return (kept @ ranked)[:, None] / (total / 2)

    return bootstrap(middle, owners, rng, strata=strata, runs=runs, draws=draws, level=level)[0]


def performance_profile(
    values: npt.ArrayLike,
    users: npt.ArrayLike,
    thresholds: Sequence[float],
    rng: np.random.Generator,
    *,
    strata: npt.ArrayLike | None = None,
    runs: npt.ArrayLike | None = None,
    draws: int = DRAWS,
    level: float = LEVEL,
) -> list[Estimate]:
    """The share of rows above each threshold, with intervals that each hold at one threshold, as ``bootstrap``.

    Args:
        values: [R] one number a row.
        users: [R] the user of each row.
        thresholds: [K] in the unit of ``values``.
        rng: source of the resamples.
        strata: see ``bootstrap``.
        runs: see ``bootstrap``.
        draws: number of resamples.
        level: coverage of the intervals.
    """
    numbers, owners = checked(values, users)
    above = (numbers[:, None] > np.asarray(thresholds, np.float64)).astype(np.float64)  # [R, K]

    def shares(weights: Floats) -> Floats:
        found: Floats = (weights @ above) / weights.sum(1, keepdims=True)
        return found

    return bootstrap(shares, owners, rng, strata=strata, runs=runs, draws=draws, level=level)


def probability_of_improvement(
    first: npt.ArrayLike,
    second: npt.ArrayLike,
    first_users: npt.ArrayLike,
    second_users: npt.ArrayLike,
    rng: np.random.Generator,
    *,
    draws: int = DRAWS,
    level: float = LEVEL,
) -> Estimate:
    """Chance that an episode of the first agent beats one of the second, both drawn at random; ties count half.

    The Mann-Whitney statistic over all pairs of rows, for rows that do not pair (``statistics.compare`` gives
    the chance on identical users and luck). A user that both agents met is drawn for both at once. For several
    worlds take the mean of the probabilities of each.

    Args:
        first: [R] numbers of the first agent.
        second: [Q] numbers of the second.
        first_users: [R].
        second_users: [Q].
        rng: source of the resamples.
        draws: number of resamples.
        level: coverage of the interval.
    """
    left, left_users = checked(first, first_users)
    right, right_users = checked(second, second_users)
    order = np.argsort(right, kind="stable")
    below = np.searchsorted(right[order], left, side="left")
    up_to = np.searchsorted(right[order], left, side="right")

    def chance(weights: Floats) -> Floats:
        mine, theirs = weights[:, : len(left)], weights[:, len(left) :][:, order]
        ladder = np.concatenate([np.zeros((len(weights), 1)), np.cumsum(theirs, axis=1)], axis=1)  # [d, Q + 1]
        wins = (mine * (ladder[:, below] + ladder[:, up_to]) / 2).sum(1)
        pairs = mine.sum(1) * theirs.sum(1)  # 0 where a resample drew no user of one agent
        return np.divide(wins, pairs, out=np.full(len(wins), np.nan), where=pairs > 0)[:, None]

    return bootstrap(chance, np.concatenate([left_users, right_users]), rng, draws=draws, level=level)[0]


def _codes(name: str, labels: npt.ArrayLike, length: int | None = None) -> Ints:
    array = np.asarray(labels)
    if array.ndim != 1 or len(array) == 0 or (length is not None and len(array) != length):
        wanted = "at least one" if length is None else f"{length}"
        raise RecGymError(f"{name} must be a vector with {wanted} entries, got shape {array.shape}")
    codes: Ints = np.unique(array, return_inverse=True)[1].astype(np.int64)
    return codes


def _weights(owner: Ints, stratum: Ints, run: Ints | None, draws: int, rng: np.random.Generator) -> Iterator[Floats]:
    """Blocks [d, R] of how often each row counts."""
    members = [np.flatnonzero(stratum == group) for group in range(int(stratum.max()) + 1)]
    runs = 1 if run is None else int(run.max()) + 1
    # One source a stratum, so that the blocks (whose size depends on the number of rows) draw the same luck.
    sources = rng.spawn(len(members) + 1)
    parts = [resamples(len(users), len(owner), draws, source) for users, source in zip(members, sources, strict=False)]
    for drawn in zip(*parts, resamples(runs, len(owner), draws, sources[-1]), strict=True):
        counts = np.empty((len(drawn[0]), len(stratum)))
        for users, count in zip(members, drawn[:-1], strict=True):
            counts[:, users] = count
        weights = counts[:, owner]
        yield weights if run is None else weights * drawn[-1][:, run]
