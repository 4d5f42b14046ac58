"""Means with bootstrap intervals clustered by user, and paired differences on common random numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from recgym.errors import RecGymError, unknown_name

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Method = Literal["bca", "percentile"]

DRAWS = 2_000
LEVEL = 0.95
PAIR_KEYS = ["scenario", "seed", "user"]  # two agents' rows with these equal saw the same user with the same luck
_BLOCK = 4_000_000  # entries of a resampling matrix held at once
_NORMAL = NormalDist()


@dataclass(frozen=True)
class Estimate:
    """A point estimate with its interval.

    Attributes:
        value: the estimate on the rows as they are.
        low: lower end of the interval; NaN where fewer than two users make an interval impossible.
        high: upper end.
        num_users: clusters that were resampled.
        num_rows: episodes.
    """

    value: float
    low: float
    high: float
    num_users: int
    num_rows: int

    def to_dict(self) -> dict[str, Any]:
        """JSON values; NaN becomes None."""
        return {key: None if value != value else value for key, value in asdict(self).items()}

    @property
    def excludes_zero(self) -> bool:
        """Whether the whole interval lies on one side of 0."""
        return self.low > 0 or self.high < 0


def mean(
    values: npt.ArrayLike,
    users: npt.ArrayLike,
    rng: np.random.Generator,
    *,
    draws: int = DRAWS,
    level: float = LEVEL,
    method: Method = "bca",
) -> Estimate:
    """The mean over episodes, with a cluster bootstrap interval.

    Users are resampled with replacement and each brings all its rows, so that repeated episodes of one user do not
    count as independent evidence (Cameron, Gelbach and Miller, 2008).

    Args:
        values: [R] one number an episode.
        users: [R] the user of each episode.
        rng: source of the resamples.
        draws: number of resamples.
        level: coverage of the interval.
        method: ``bca`` (bias-corrected and accelerated; Efron, 1987) or ``percentile``.

    Raises:
        RecGymError: no rows, lengths that differ, or a value that is not finite.
    """
    values, users = checked(values, users)
    return ratio(values, np.ones_like(values), users, rng, draws=draws, level=level, method=method)


def ratio(
    numerators: npt.ArrayLike,
    denominators: npt.ArrayLike,
    users: npt.ArrayLike,
    rng: np.random.Generator,
    *,
    draws: int = DRAWS,
    level: float = LEVEL,
    method: Method = "bca",
) -> Estimate:
    """``sum(numerators) / sum(denominators)`` (reward per step, say), with a cluster bootstrap interval as ``mean``.

    Args:
        numerators: [R].
        denominators: [R], not negative, with a positive sum for every user.
        users: [R] the user of each row.
        rng: source of the resamples.
        draws: number of resamples.
        level: coverage of the interval.
        method: ``bca`` or ``percentile``.
    """
    tops, clusters = checked(numerators, users)
    bottoms = checked(denominators, users)[0]
    sizes = np.bincount(np.unique(clusters, return_inverse=True)[1], bottoms)
    if (sizes <= 0).any():
        raise RecGymError("a ratio needs denominators with a positive sum for every user")
    return ratios(tops[:, None], bottoms[:, None], clusters, rng, draws=draws, level=level, method=method)[0]


def means(
    columns: Sequence[npt.ArrayLike],
    users: npt.ArrayLike,
    rng: np.random.Generator,
    *,
    draws: int = DRAWS,
    level: float = LEVEL,
    method: Method = "bca",
) -> list[Estimate]:
    """``mean`` of each of ``columns`` ([R] each), all on the same resamples: many means for the price of about one."""
    values = np.stack([checked(column, users)[0] for column in columns], axis=1)
    return ratios(values, np.ones(values.shape), users, rng, draws=draws, level=level, method=method)


def ratios(
    numerators: npt.ArrayLike,
    denominators: npt.ArrayLike,
    users: npt.ArrayLike,
    rng: np.random.Generator,
    *,
    draws: int = DRAWS,
    level: float = LEVEL,
    method: Method = "bca",
) -> list[Estimate]:
    """``ratio`` of each of K columns, all on the same resamples.

    Args:
        numerators: [R, K].
        denominators: [R, K], not negative, each column with a positive sum; a user may have none.
        users: [R] the user of each row.
        rng: source of the resamples.
        draws: number of resamples; one without any denominator is left out for its column.
        level: coverage of the intervals.
        method: ``bca`` or ``percentile``.

    Raises:
        RecGymError: shapes that differ, no rows, a number that is not finite, or a denominator out of range.
    """
    tops, bottoms = np.asarray(numerators, np.float64), np.asarray(denominators, np.float64)
    clusters = np.asarray(users)
    if tops.ndim != 2 or tops.shape != bottoms.shape or len(tops) != len(clusters) or not tops.size:
        raise RecGymError(
            f"ratios need [R, K] numerators and denominators and [R] users, R and K at least 1, got {tops.shape}, "
            f"{bottoms.shape} and {clusters.shape}"
        )
    if not np.isfinite(tops).all() or not np.isfinite(bottoms).all() or (bottoms < 0).any():
        raise RecGymError("ratios need finite numbers, and denominators that are not negative")
    _, index = np.unique(clusters, return_inverse=True)
    sums, sizes = by_cluster(tops, index), by_cluster(bottoms, index)  # [C, K]
    if (sizes.sum(0) <= 0).any():
        raise RecGymError(
            f"column {int(np.flatnonzero(sizes.sum(0) <= 0)[0])} has no denominator: its ratio is undefined"
        )
    num_users = len(sums)
    points = sums.sum(0) / sizes.sum(0)
    if num_users < 2:
        return [Estimate(float(point), np.nan, np.nan, num_users, len(tops)) for point in points]
    blocks = [_over(w @ sums, w @ sizes) for w in resamples(num_users, num_users, draws, rng)]
    replicates = np.concatenate(blocks)  # [draws, K]
    jackknife = _over(sums.sum(0) - sums, sizes.sum(0) - sizes)  # [C, K]
    out = []
    for column, point in enumerate(points.tolist()):
        drawn, without = replicates[:, column], jackknife[:, column]
        low, high = _interval(point, drawn[~np.isnan(drawn)], without[~np.isnan(without)], level, method)
        out.append(Estimate(point, low, high, num_users, len(tops)))
    return out


def by_cluster(values: Floats, index: Ints) -> Floats:
    """Sums [C, K] of the rows of ``values`` [R, K] by cluster ``index`` [R], from 0."""
    order = np.argsort(index, kind="stable")
    starts = np.flatnonzero(np.diff(index[order], prepend=-1))
    found: Floats = np.add.reduceat(values[order], starts, axis=0)
    return found


def _over(top: Floats, bottom: Floats) -> Floats:
    return np.divide(top, bottom, out=np.full(top.shape, np.nan), where=bottom > 0)


@dataclass(frozen=True)
class Comparison:
    """How agent ``first`` fares against ``second`` on identical users with identical luck."""

    scenario: str
    first: str
    second: str
    difference: Estimate  # mean of (first - second) over paired episodes
    improvement: Estimate  # chance that first does better on a paired episode, ties counting half
    p_value: float | None = None  # of no difference, after Holm's correction for the leaderboard; None: not tested

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        names = {"scenario": self.scenario, "first": self.first, "second": self.second}
        ends = {"difference": self.difference.to_dict(), "improvement": self.improvement.to_dict()}
        return {**names, **ends, "p_value": self.p_value}

    def __str__(self) -> str:
        """The comparison as one line, such as ``frequency - popularity: +0.41 [0.35, 0.47]``."""
        gap = self.difference
        interval = "" if gap.low != gap.low else f" [{gap.low:.2f}, {gap.high:.2f}]"
        return f"{self.first} - {self.second}: {gap.value:+.2f}{interval}"


def paired_values(rows: pd.DataFrame, first: str, second: str, value: str = "reward") -> pd.DataFrame:
    """The two agents' ``value`` side by side: columns scenario, seed, user, first, second; one row per shared episode.

    Raises:
        UnknownNameError: an agent that has no rows.
        RecGymError: the two did not meet the same users and seeds, so that a paired difference would be wrong.
    """
    sides = []
    for agent in (first, second):
        side = rows.loc[rows["agent"] == agent, [*PAIR_KEYS, "lane_seed", value]]
        if side.empty:
            raise unknown_name("agent in these rows:", agent, rows["agent"].unique())
        sides.append(side)
    pairs = sides[0].merge(sides[1], on=PAIR_KEYS, how="outer", suffixes=("_first", "_second"), indicator=True)
    if (pairs["_merge"] != "both").any() or (pairs["lane_seed_first"] != pairs["lane_seed_second"]).any():
        lonely = int((pairs["_merge"] != "both").sum())
        raise RecGymError(
            f"{first!r} and {second!r} cannot be paired: {lonely} episodes of one have no counterpart in the other, "
            "or their lane seeds differ. Evaluate both in one run."
        )
    pairs = pairs.rename(columns={f"{value}_first": "first", f"{value}_second": "second"})
    return pairs[[*PAIR_KEYS, "first", "second"]]


def paired_gaps(
    rows: pd.DataFrame, pairs: Sequence[tuple[str, str]], value: str = "reward"
) -> tuple[Floats, npt.NDArray[Any]]:
    """Differences of several pairs of agents on the same episodes of one scenario.

    Args:
        rows: rows of ``evaluate``, of one scenario.
        pairs: P pairs (first, second) of agents.
        value: the column compared.

    Returns:
        [R, P] first less second of each pair, and [R] the user of each episode.

    Raises:
        UnknownNameError: an agent that has no rows.
        RecGymError: two agents, or two pairs, that did not meet the same users and seeds.
    """
    sides = [paired_values(rows, first, second, value) for first, second in pairs]
    for pair, side in zip(pairs, sides, strict=True):
        if not side[PAIR_KEYS].equals(sides[0][PAIR_KEYS]):
            raise RecGymError(
                f"{' and '.join(map(repr, pair))} met other users or seeds than {' and '.join(map(repr, pairs[0]))}: "
                "compare the pairs one by one, or evaluate all agents in one run"
            )
    return np.stack([(side["first"] - side["second"]).to_numpy(float) for side in sides], axis=1), sides[0]["user"]


def compare(
    rows: pd.DataFrame,
    first: str,
    second: str,
    rng: np.random.Generator,
    *,
    value: str = "reward",
    draws: int = DRAWS,
    level: float = LEVEL,
) -> list[Comparison]:
    """The paired difference ``first - second`` of ``value``, one comparison per scenario.

    Args:
        rows: rows of ``evaluate``.
        first: an agent.
        second: the agent it is compared with.
        rng: source of the resamples.
        value: the column compared.
        draws: number of resamples.
        level: coverage of the intervals.
    """
    return compare_all(rows, [(first, second)], rng, value=value, draws=draws, level=level)


def compare_all(
    rows: pd.DataFrame,
    pairs: Sequence[tuple[str, str]],
    rng: np.random.Generator,
    *,
    value: str = "reward",
    draws: int = DRAWS,
    level: float = LEVEL,
) -> list[Comparison]:
    """``compare`` of all ``pairs`` of agents on the same resamples: scenario by scenario, in the order given."""
    found: list[Comparison] = []
    for scenario, part in rows.groupby("scenario", sort=False) if pairs else ():
        gaps, users = paired_gaps(part, pairs, value)
        estimates = means([*gaps.T, *(np.sign(gaps.T) + 1) / 2], users, rng, draws=draws, level=level)
        for at, (first, second) in enumerate(pairs):
            found.append(Comparison(str(scenario), first, second, estimates[at], estimates[len(pairs) + at]))
    return found


def checked(values: npt.ArrayLike, users: npt.ArrayLike) -> tuple[Floats, npt.NDArray[Any]]:
    """``values`` and ``users`` as vectors; raises RecGymError where lengths differ, or one is missing or not finite."""
    numbers, clusters = np.asarray(values, dtype=np.float64), np.asarray(users)
    if numbers.ndim != 1 or numbers.shape != clusters.shape:
        raise RecGymError(f"values and users must be vectors of one length, got {numbers.shape} and {clusters.shape}")
    if len(numbers) == 0:
        raise RecGymError("there are no rows to summarise")
    if not np.isfinite(numbers).all():
        at = int(np.flatnonzero(~np.isfinite(numbers))[0])
        raise RecGymError(f"row {at} holds {numbers[at]}; every value must be a finite number")
    return numbers, clusters


def resamples(num_users: int, width: int, draws: int, rng: np.random.Generator) -> Iterator[Floats]:
    """Blocks [d, C] of how often each user is drawn in each of ``draws`` resamples; ``width`` bounds the memory."""
    chances = np.full(num_users, 1 / num_users)
    for size in resample_blocks(draws, max(num_users, width)):
        yield rng.multinomial(num_users, chances, size=size).astype(np.float64)


def resample_blocks(draws: int, width: int) -> Iterator[int]:
    """Sizes that sum to ``draws``, of blocks of rows of ``width`` numbers that fit in memory."""
    block = max(1, _BLOCK // width)
    for start in range(0, draws, block):
        yield min(block, draws - start)


def _interval(point: float, replicates: Floats, jackknife: Floats, level: float, method: Method) -> tuple[float, float]:
    """The ends of the percentile or BCa interval (Efron and Tibshirani, 1993, chapter 14)."""
    tails = np.array([(1 - level) / 2, (1 + level) / 2])
    spread = jackknife.mean() - jackknife  # [C]
    # All users alike: every resample gives the same number, and the acceleration would divide by 0.
    if method == "bca" and np.ptp(replicates) > 0 and (spread**2).sum() > 0:
        share = (replicates < point).mean() + (replicates == point).mean() / 2
        share = min(max(share, 0.5 / len(replicates)), 1 - 0.5 / len(replicates))
        bias = _NORMAL.inv_cdf(float(share))
        acceleration = (spread**3).sum() / (6 * (spread**2).sum() ** 1.5)
        shifted = bias + np.array([_NORMAL.inv_cdf(float(tail)) for tail in tails])
        adjusted = bias + shifted / (1 - acceleration * shifted)
        tails = np.array([_NORMAL.cdf(float(z)) for z in adjusted])
    low, high = np.quantile(replicates, tails)
    return float(low), float(high)
