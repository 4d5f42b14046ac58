"""Tests of paired differences: randomisation p-values by user, Holm's correction, and how many users to ask for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
import numpy.typing as npt
import pandas as pd

from recgym.errors import RecGymError
from recgym.evaluation.statistics import LEVEL, Floats, by_cluster, checked, paired_gaps, paired_values, resample_blocks

DRAWS = 10_000
DRAWS_PER_TEST = 2_000  # so that a small family and a large one can both go below 0.001
POWER = 0.8


def paired_p_value(
    differences: npt.ArrayLike, users: npt.ArrayLike, rng: np.random.Generator, *, draws: int = DRAWS
) -> float:
    """``paired_p_values`` of one pair: differences [R] -> p-value."""
    values, clusters = checked(differences, users)
    return float(paired_p_values(values[:, None], clusters, rng, draws=draws)[0])


def paired_p_values(
    differences: npt.ArrayLike, users: npt.ArrayLike, rng: np.random.Generator, *, draws: int = DRAWS
) -> Floats:
    """Two-sided p-values of mean differences of 0, by turning the signs of whole users at random (Fisher, 1935).

    Exact where the differences of a user are as likely with either sign, as when two agents are exchangeable. The
    drawn signs and those observed count together, so that the p-value is never 0 (Phipson and Smyth, 2010).

    Args:
        differences: [R, P] first agent minus second of each pair, on the same user and luck; all pairs meet the same
            signs.
        users: [R] the user of each row.
        rng: source of the signs.
        draws: number of sign patterns.

    Returns:
        [P] in (0, 1].

    Raises:
        RecGymError: no rows, lengths that differ, or a difference that is not finite.
    """
    values = np.asarray(differences, np.float64)
    if values.ndim != 2:
        raise RecGymError(f"differences must be [R, P], got shape {values.shape}")
    columns = [checked(column, users)[0] for column in values.T]
    sums = by_cluster(np.stack(columns, axis=1), np.unique(np.asarray(users), return_inverse=True)[1])  # [C, P]
    # A pattern that ties with the observed one may round below it.
    observed = np.abs(sums.sum(0)) - 1e-9 * np.abs(sums).sum(0)
    extreme = np.zeros(sums.shape[1], np.int64)
    for size in resample_blocks(draws, len(sums)):
        signs = rng.integers(0, 2, (size, len(sums)), dtype=np.int8) * 2.0 - 1
        extreme += (np.abs(signs @ sums) >= observed).sum(0)
    found: Floats = (1 + extreme) / (1 + draws)
    return found


def holm(p_values: Sequence[float] | npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Adjusted p-values of a family of tests (Holm, 1979): reject where one is at most alpha.

    ``max over i <= j of min(1, (m - i + 1) p_(i))``. The chance of even one false rejection is then at most alpha,
    however the tests depend on one another.

    Args:
        p_values: [m] in [0, 1], in any order.

    Returns:
        [m] in [0, 1], in the order given.

    Raises:
        RecGymError: not a vector, or a value outside [0, 1].
    """
    raw = np.asarray(p_values, np.float64)
    if raw.ndim != 1 or not ((raw >= 0) & (raw <= 1)).all():
        raise RecGymError(f"p-values must be a vector of numbers in [0, 1], got {raw.tolist()}")
    order = np.argsort(raw, kind="stable")
    adjusted = np.empty_like(raw)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(raw[order] * np.arange(len(raw), 0, -1)))
    return adjusted


def paired_tests(
    rows: pd.DataFrame,
    pairs: Sequence[tuple[str, str]],
    rng: np.random.Generator,
    *,
    value: str = "reward",
    draws: int | None = None,
) -> pd.DataFrame:
    """Every pair of agents in every scenario, as one family under Holm's correction.

    Name a pair in one direction alone: its mirror is the same test again, and would be paid for twice.

    Args:
        rows: rows of ``evaluate``.
        pairs: (first, second) agents.
        rng: source of the signs.
        value: the column compared.
        draws: sign patterns; the smallest adjusted p-value is the number of tests over ``draws + 1``. None: 10,000, and
            at least 2,000 a test.

    Returns:
        columns scenario, first, second, difference, p_value, adjusted.

    Raises:
        UnknownNameError: an agent that has no rows.
        RecGymError: agents that did not meet the same users and seeds, or no pairs.
    """
    if draws is None:
        draws = max(DRAWS, DRAWS_PER_TEST * len(pairs) * rows["scenario"].nunique())
    tables = []
    for scenario, part in rows.groupby("scenario", sort=False) if pairs else ():
        gaps, users = paired_gaps(part, pairs, value)
        p_values = paired_p_values(gaps, users, rng, draws=draws)
        names = pd.DataFrame(pairs, columns=["first", "second"])
        tables.append(names.assign(scenario=scenario, difference=gaps.mean(0), p_value=p_values))
    if not tables:
        raise RecGymError("there are no pairs of agents to test")
    table = pd.concat(tables, ignore_index=True)[["scenario", "first", "second", "difference", "p_value"]]
    return table.assign(adjusted=holm(table["p_value"]))


def paired_spread(rows: pd.DataFrame, first: str, second: str, value: str = "reward") -> pd.Series:
    """Standard deviation over users of the mean paired difference, by scenario: the input of ``num_users_needed``.

    It falls as more seeds are played with each user, down to what users really differ by.

    Args:
        rows: rows of ``evaluate``, of a pilot of as many seeds as the evaluation will have.
        first: an agent.
        second: the agent it is compared with.
        value: the column compared.

    Raises:
        UnknownNameError: an agent that has no rows.
        RecGymError: two agents that did not meet the same users and seeds, or a scenario with fewer than two users.
    """
    both = paired_values(rows, first, second, value)
    gaps = (both["first"] - both["second"]).groupby([both[key] for key in ("scenario", "user")], sort=False).mean()
    spread = gaps.groupby("scenario", sort=False).std()
    if spread.isna().any():
        raise RecGymError(f"scenario {spread[spread.isna()].index[0]!r} has fewer than two users: no spread to measure")
    return spread


def num_users_needed(
    difference: float, spread: float, *, power: float = POWER, level: float = LEVEL, num_tests: int = 1
) -> int:
    """How many users show a mean paired difference: ``(z_a + z_b)^2 (spread / d)^2 + z_a^2 / 2``.

    Two-sided, a normal approximation with Guenther's (1981) term for the t test, which the interval of a few users is
    close to.

    Args:
        difference: d, the smallest difference worth finding, in the unit of the value; not 0.
        spread: standard deviation over users of the paired difference, above 0; see ``paired_spread``.
        power: chance that the interval excludes 0 where the true difference is ``difference``, in (0.5, 1).
        level: coverage of the interval, in (0, 1).
        num_tests: size of the family under Holm's correction, whose strictest step is level's complement over it.

    Raises:
        RecGymError: an argument out of its range.
    """
    for name, given, fine, valid in (
        ("difference", difference, difference != 0 and math.isfinite(difference), "a number other than 0"),
        ("spread", spread, spread > 0 and math.isfinite(spread), "above 0"),
        ("power", power, 0.5 < power < 1, "between 0.5 and 1"),
        ("level", level, 0 < level < 1, "between 0 and 1"),
        ("num_tests", num_tests, num_tests >= 1, "at least 1"),
    ):
        if not fine:
            raise RecGymError(f"{name} must be {valid}, got {given}")
    normal = NormalDist()
    tail, reach = normal.inv_cdf(1 - (1 - level) / 2 / num_tests), normal.inv_cdf(power)
    return max(2, math.ceil(((tail + reach) * spread / difference) ** 2 + tail**2 / 2))
