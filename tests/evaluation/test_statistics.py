"""Known answers of the intervals: coverage, clustering, pairing."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from recgym.errors import RecGymError, UnknownNameError
from recgym.evaluation import aggregate, statistics


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def episodes(agent: str, values: np.ndarray, seeds: int = 1) -> pd.DataFrame:
    users = np.tile(np.arange(len(values) // seeds), seeds)
    seed = np.repeat(np.arange(seeds), len(values) // seeds)
    keys = {"agent": agent, "scenario": "default", "seed": seed, "user": users, "lane_seed": seed * 1000 + users}
    return pd.DataFrame({**keys, "reward": values})


@pytest.mark.parametrize("method", ["bca", "percentile"])
def test_interval_covers_the_true_mean_95_times_in_100(method: statistics.Method) -> None:
    source, covered, repeats = rng(1), 0, 400
    for _ in range(repeats):
        effects = source.normal(0, 1, 40)  # one level per user, three episodes each
        values = np.repeat(effects, 3) + source.normal(0, 0.5, 120)
        found = statistics.mean(values, np.repeat(np.arange(40), 3), source, draws=400, method=method)
        covered += found.low <= 0 <= found.high
    assert 0.91 <= covered / repeats <= 0.985


def test_treating_repeats_as_independent_would_understate_the_interval() -> None:
    effects = rng(2).normal(0, 1, 60)
    values = np.repeat(effects, 5)
    clustered = statistics.mean(values, np.repeat(np.arange(60), 5), rng())
    naive = statistics.mean(values, np.arange(300), rng())
    width = clustered.high - clustered.low
    assert clustered.value == pytest.approx(naive.value)
    assert width == pytest.approx((naive.high - naive.low) * math.sqrt(5), rel=0.15)


def test_percentile_interval_matches_the_normal_theory() -> None:
    values = rng(3).normal(2, 1, 2_000)
    found = statistics.mean(values, np.arange(2_000), rng(), method="percentile")
    half = 1.96 * values.std() / math.sqrt(2_000)
    assert found.low == pytest.approx(values.mean() - half, abs=0.006)
    assert found.high == pytest.approx(values.mean() + half, abs=0.006)


def test_ratio_weights_long_episodes_more() -> None:
    found = statistics.ratio([1, 9], [1, 3], [0, 1], rng())
    assert found.value == 2.5
    assert found.low == 1.0 and found.high == 3.0


def test_interquartile_mean_ignores_the_tails() -> None:
    assert aggregate.interquartile_mean([0, 1, 2, 1000], range(4), rng()).value == 1.5
    values = rng(4).normal(5, 1, 400)
    found = aggregate.interquartile_mean(values, np.arange(400), rng())
    middle = np.sort(values)[100:300].mean()
    assert found.value == pytest.approx(middle)
    assert found.low < middle < found.high


def test_pairing_on_the_same_luck_narrows_the_difference() -> None:
    luck = rng(5).normal(0, 3, 300)
    first, second = episodes("a", luck + 0.5), episodes("b", luck + rng(6).normal(0, 0.1, 300))
    [comparison] = statistics.compare(pd.concat([first, second]), "a", "b", rng())
    unpaired = [statistics.mean(rows["reward"], rows["user"], rng()) for rows in (first, second)]
    assert comparison.difference.value == pytest.approx(0.5, abs=0.05)
    assert comparison.difference.excludes_zero
    assert (comparison.difference.high - comparison.difference.low) * 10 < unpaired[0].high - unpaired[0].low
    assert comparison.improvement.value > 0.99
    assert str(comparison).startswith("a - b: +0.5")


def test_identical_agents_differ_by_nothing() -> None:
    values = rng(7).normal(0, 1, 50)
    rows = pd.concat([episodes("a", values), episodes("b", values)])
    [comparison] = statistics.compare(rows, "a", "b", rng())
    assert (comparison.difference.value, comparison.difference.low, comparison.difference.high) == (0, 0, 0)
    assert comparison.improvement.value == 0.5
    assert not comparison.difference.excludes_zero


def test_comparison_is_antisymmetric_and_repeatable() -> None:
    rows = pd.concat(
        [episodes("a", rng(8).exponential(1, 90), seeds=3), episodes("b", rng(9).exponential(1, 90), seeds=3)]
    )
    [forward], [again] = (statistics.compare(rows, "a", "b", rng()) for _ in range(2))
    [backward] = statistics.compare(rows, "b", "a", rng())
    assert forward == again
    assert forward.difference.value == pytest.approx(-backward.difference.value)
    assert forward.difference.num_users == 30 and forward.difference.num_rows == 90


def test_one_user_has_no_interval() -> None:
    found = statistics.mean([1.0, 3.0], [4, 4], rng())
    assert found.value == 2 and math.isnan(found.low) and math.isnan(found.high)
    assert found.to_dict()["low"] is None
    assert not found.excludes_zero


def test_rows_that_do_not_pair_are_refused() -> None:
    rows = pd.concat([episodes("a", np.zeros(4)), episodes("b", np.zeros(3))])
    with pytest.raises(RecGymError, match="1 episodes of one have no counterpart"):
        statistics.compare(rows, "a", "b", rng())
    other = episodes("c", np.zeros(4)).assign(lane_seed=7)
    with pytest.raises(RecGymError, match="lane seeds differ"):
        statistics.compare(pd.concat([rows, other]), "a", "c", rng())
    with pytest.raises(UnknownNameError, match="'popularty'.*'popularity'"):
        statistics.compare(rows.replace("b", "popularity"), "a", "popularty", rng())


@pytest.mark.parametrize(
    ("values", "users", "message"),
    [([], [], "no rows"), ([1.0], [1, 2], "one length"), ([1.0, math.nan], [1, 2], "row 1 holds nan")],
)
def test_values_that_cannot_be_summarised_are_refused(values: list[float], users: list[int], message: str) -> None:
    with pytest.raises(RecGymError, match=message):
        statistics.mean(values, users, rng())
