"""Agreement with the truth: known answers."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from recgym.errors import RecGymError
from recgym.evaluation.agreement import expected_auc, kendall, rank_correlation, regret, true_differences
from recgym.evaluation.statistics import Estimate


def gap(value: float, half: float) -> Estimate:
    return Estimate(value, value - half, value + half, 10, 10)


GAPS = {
    ("a", "b"): gap(2.0, 1.0),
    ("a", "c"): gap(-1.0, 0.5),
    ("b", "c"): gap(-3.0, 1.0),
    ("a", "d"): gap(0.5, 0.6),  # not told apart
    ("b", "d"): gap(-1.5, 1.0),
    ("c", "d"): gap(1.5, 1.0),
}


def test_kendall_counts_what_the_truth_tells_apart() -> None:
    same = kendall(GAPS, {"a": 3.0, "b": 1.0, "c": 4.0, "d": 2.0})  # d below a, but that pair is left out
    assert (same.tau, same.counted, same.left_out, same.discordant) == (1.0, 5, 1, ())
    one_off = kendall(GAPS, {"a": 5.0, "b": 1.0, "c": 4.0, "d": 2.0})
    assert one_off.tau == pytest.approx(3 / 5)  # four agree, one is turned round
    assert one_off.discordant == (("c", "a"),)
    tied = kendall(GAPS, {"a": 4.0, "b": 1.0, "c": 4.0, "d": 2.0})
    assert tied.tau == pytest.approx(4 / 5)  # a tie in the model counts for neither side
    reverse = kendall(GAPS, {"a": -3.0, "b": -1.0, "c": -4.0, "d": -2.0})
    assert reverse.tau == -1.0
    assert len(reverse.discordant) == 5
    assert math.isnan(kendall({("a", "d"): gap(0.5, 0.6)}, {"a": 1.0, "d": 0.0}).tau)
    with pytest.raises(RecGymError, match="policy 'd' has no value"):
        kendall(GAPS, {"a": 1.0, "b": 2.0, "c": 3.0})


def test_regret_is_what_the_models_favourites_give_away() -> None:
    truth = {"a": 5.0, "b": 4.0, "c": 1.0}
    assert regret(truth, {"a": 3.0, "b": 2.0, "c": 1.0}) == 0.0
    assert regret(truth, {"a": 2.0, "b": 1.0, "c": 3.0}) == 4.0
    assert regret(truth, {"a": 1.0, "b": 2.0, "c": 3.0}, k=2) == 1.0
    assert regret(truth, {"a": 1.0, "b": 2.0, "c": 3.0}, k=3) == 0.0
    with pytest.raises(RecGymError, match=r"k must lie in 1\.\.3, got 4"):
        regret(truth, truth, k=4)
    with pytest.raises(RecGymError, match="different policies"):
        regret(truth, {"a": 1.0})


def test_rank_correlation_by_row() -> None:
    left = [[1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 3.0, 4.0], [1.0, 1.0, 1.0, 1.0]]
    right = [[10.0, 20.0, 30.0, 400.0], [4.0, 3.0, 2.0, 1.0], [2.0, 1.0, 4.0, 3.0], [1.0, 2.0, 3.0, 4.0]]
    found = rank_correlation(left, right)
    assert found[:3].tolist() == pytest.approx([1.0, -1.0, 0.6])  # 1 - 6 * 4 / (4 * 15)
    assert math.isnan(found[3])


def test_expected_auc_is_the_mean_over_draws() -> None:
    rng = np.random.default_rng(0)
    chances = rng.uniform(0.05, 0.6, 12)
    scores = np.round(chances + rng.normal(0, 0.2, 12), 1)  # with ties
    won = pairs = 0.0
    for _ in range(20_000):
        bought = rng.random(12) < chances
        above = scores[bought][:, None] - scores[~bought][None, :]
        won += float(((above > 0) + 0.5 * (above == 0)).sum())
        pairs += above.size
    assert expected_auc(scores, chances) == pytest.approx(won / pairs, abs=5e-3)
    best = expected_auc(chances, chances)
    assert best >= max(expected_auc(rng.normal(size=12), chances) for _ in range(50))
    assert expected_auc(np.zeros(12), chances) == pytest.approx(0.5)
    assert expected_auc([1.0, 0.0], [1.0, 0.0]) == 1.0
    with pytest.raises(RecGymError, match="nothing to tell apart"):
        expected_auc([1.0, 2.0], [1.0, 1.0])


def test_differences_are_paired_and_tell_small_ones_apart() -> None:
    users = np.arange(100)
    luck = np.random.default_rng(1).normal(0, 10, 100)
    base = {"scenario": "s", "seed": 0, "user": users, "lane_seed": users}
    rows = pd.concat(
        pd.DataFrame({**base, "agent": agent, "reward": luck + add})
        for agent, add in (("a", 0.0), ("b", 1.0), ("c", 1.0))
    )
    found = true_differences(rows, np.random.default_rng(0))
    assert list(found) == [("a", "b"), ("a", "c"), ("b", "c")]
    assert found["a", "b"].value == pytest.approx(-1.0)  # told apart although users differ by ten times as much
    assert kendall(found, {"a": 0.0, "b": 1.0, "c": 2.0}).left_out == 1
