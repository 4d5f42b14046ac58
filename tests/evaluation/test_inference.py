"""Known answers of aggregates, p-values, sample sizes and off-policy estimates."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest

from recgym.errors import RecGymError
from recgym.evaluation import aggregate, off_policy, significance, statistics
from recgym.evaluation.off_policy import Logged


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_profiles_and_probability_of_improvement() -> None:
    found = aggregate.performance_profile([1, 2, 3, 4], range(4), [0, 2, 5], rng(), draws=50)
    assert [point.value for point in found] == [1, 0.5, 0]
    better = aggregate.probability_of_improvement([1, 2], [0, 1], [0, 1], [2, 3], rng(), draws=50)
    assert better.value == 0.875  # three wins and one tie of four


def test_strata_keep_their_size_and_runs_widen_the_interval() -> None:
    values, users = np.repeat([0.0, 10.0], 50), np.arange(100)
    fixed = aggregate.performance_profile(values, users, [5], rng(), strata=values)[0]
    loose = aggregate.performance_profile(values, users, [5], rng())[0]
    assert fixed.low == fixed.high == 0.5 and loose.low < 0.45
    with pytest.raises(RecGymError, match="two strata"):
        aggregate.interquartile_mean([1, 2], [0, 0], rng(), strata=[0, 1])
    runs, people = np.repeat(np.arange(5), 40), np.tile(np.arange(40), 5)
    scores = runs + rng(1).normal(0, 0.1, 200)
    narrow, wide = (aggregate.interquartile_mean(scores, people, rng(), runs=each) for each in (None, runs))
    assert wide.high - wide.low > 5 * (narrow.high - narrow.low)


def test_holm_and_p_values() -> None:
    assert significance.holm([0.01, 0.04, 0.03, 0.005]).tolist() == pytest.approx([0.03, 0.06, 0.06, 0.02])
    exact = significance.paired_p_value([1, 1, 1, 1], range(4), rng(), draws=20_000)
    assert exact == pytest.approx(2 / 16, abs=0.01)
    clustered = significance.paired_p_value(np.ones(8), np.repeat(range(4), 2), rng(), draws=20_000)
    assert clustered == pytest.approx(2 / 16, abs=0.01)  # repeats of a user are no more evidence
    with pytest.raises(RecGymError, match="0, 1"):
        significance.holm([1.2])


def test_a_large_family_can_still_be_told_from_chance() -> None:
    agents = [f"agent{number}" for number in range(9)]
    users = np.arange(60)
    about = {"scenario": "s", "seed": 0, "lane_seed": users, "user": users}
    rows = pd.concat([pd.DataFrame({**about, "agent": agent, "reward": float(at)}) for at, agent in enumerate(agents)])
    pairs = list(itertools.combinations(agents, 2))
    assert significance.paired_tests(rows, pairs, rng())["adjusted"].max() < 0.001


def test_pairs_that_met_other_users_are_not_compared_together() -> None:
    users = np.arange(20)
    about = {"scenario": "s", "seed": 0, "lane_seed": users, "reward": 1.0}
    rows = pd.concat(
        [pd.DataFrame({**about, "agent": agent, "user": users + 20 * (agent in "cd")}) for agent in "abcd"]
    )
    pairs = [("a", "b"), ("c", "d")]
    for compare in (significance.paired_tests, statistics.compare_all):
        with pytest.raises(RecGymError, match="'c' and 'd' met other users or seeds than 'a' and 'b'"):
            compare(rows, pairs, rng())


def test_sample_size_has_the_power_it_promises() -> None:
    assert significance.num_users_needed(0.5, 1.0) == 34  # G*Power, paired t test
    assert significance.num_users_needed(0.5, 1.0, num_tests=10) > 34
    draws = rng(2).normal(0.5, 1, (4_000, 34))
    t = draws.mean(1) / (draws.std(1, ddof=1) / np.sqrt(34))
    assert (t > 2.035).mean() == pytest.approx(0.8, abs=0.03)
    with pytest.raises(RecGymError, match="spread must be above 0, got 0.0"):
        significance.num_users_needed(0.5, 0.0)


def test_off_policy_known_answers() -> None:
    args = (Logged([1.0, 0.0, 2.0], [0.5, 0.5, 0.25], [0.25, 0.5, 0.5], range(3)), rng())
    assert off_policy.ips(*args, draws=50).value == pytest.approx(1)
    assert off_policy.snips(*args, draws=50).value == pytest.approx(3 / 3.5)
    assert off_policy.effective_sample_size([1, 1, 0]) == 2
    dm = off_policy.direct_method([[0.5, 0.5]], [[1, 3]], [0], rng())
    dr = off_policy.doubly_robust(Logged([4], [0.5], [0.25], [0]), [1], [[0.5, 0.5]], [[1, 3]], rng())
    assert dm.value == 2 and dr.value == 2 + 2 * (4 - 3)
    chances = ([[0.5, 0.5]], [[0.25, 1.0]], [0])
    slate = (Logged([[1.0, 2.0]], *chances), rng())
    assert off_policy.item_position(*slate).value == 2 + 1
    assert off_policy.reward_interaction(*slate).value == 2 + 2
    assert off_policy.pseudo_inverse(Logged([3.0], *chances), rng()).value == 3 * (1 - 2 + 2.5)
    with pytest.raises(RecGymError, match=r"logging\[0\] is 0"):
        off_policy.ips(Logged([1.0], [0.5], [0.0], [0]), rng())
    with pytest.raises(RecGymError, match="must have one shape"):
        off_policy.ips(Logged([1.0, 2.0], [0.5], [0.5], [0]), rng())
    with pytest.raises(RecGymError, match="target must have 2 dimensions"):
        off_policy.item_position(Logged([[1.0]], [0.5], [0.5], [0]), rng())


def test_off_policy_estimates_are_unbiased() -> None:
    """A world of 3 actions whose truth is known; q-hats are wrong on purpose."""
    source, rows = rng(3), 60_000
    worth, acted, wanted = np.array([0.1, 0.5, 0.8]), np.array([0.6, 0.3, 0.1]), np.array([0.1, 0.3, 0.6])
    truth = worth @ wanted
    actions = source.choice(3, rows, p=acted)
    rewards = (source.random(rows) < worth[actions]).astype(float)
    users, policy, wrong = np.arange(rows) // 10, np.tile(wanted, (rows, 1)), np.tile([0.5, 0.5, 0.5], (rows, 1))
    common = (Logged(rewards, wanted[actions], acted[actions], users), rng())
    dr = off_policy.doubly_robust(common[0], actions, policy, wrong, rng(), draws=100)
    for found in (off_policy.ips(*common, draws=100), off_policy.snips(*common, draws=100), dr):
        assert found.value == pytest.approx(truth, abs=0.03) and found.low - 0.01 < truth < found.high + 0.01
    biased = off_policy.direct_method(policy, wrong, users, rng(), draws=100)
    assert abs(biased.value - truth) > 0.1


def test_slate_estimates_are_unbiased() -> None:
    source, rows = rng(4), 60_000
    worth, acted, wanted = np.array([[0.1, 0.9], [0.3, 0.5]]), np.array([0.7, 0.3]), np.array([0.3, 0.7])
    slates = source.choice(2, (rows, 2), p=acted)
    gains = worth[[0, 1], slates]
    truth = (worth @ wanted).sum()
    users = np.arange(rows)
    chances = (wanted[slates], acted[slates], users)
    for estimator in (off_policy.item_position, off_policy.reward_interaction):
        assert estimator(Logged(gains, *chances), rng(), draws=50).value == pytest.approx(truth, abs=0.03)
    assert off_policy.pseudo_inverse(Logged(gains.sum(1), *chances), rng(), draws=50).value == pytest.approx(
        truth, abs=0.03
    )
