"""Known answers of every metric, and the direction in which deliberately bad agents move it."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from recgym.errors import RecGymError
from recgym.evaluation.metrics import accuracy, cold_start, engagement
from recgym.evaluation.metrics import beyond_accuracy as beyond
from recgym.evaluation.metrics import provider_fairness as provider
from recgym.evaluation.metrics import user_fairness as user


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_accuracy() -> None:
    slates, relevance = [[0, 1, 2], [3, 0, 1]], [[0, 1, 1, 1], [0, 0, 0, 0]]
    assert accuracy.precision(slates, relevance).tolist() == pytest.approx([2 / 3, 0])
    assert accuracy.recall(slates, relevance)[0] == pytest.approx(2 / 3) and np.isnan(
        accuracy.recall(slates, relevance)[1]
    )
    gains = 1 / math.log2(3) + 1 / 2
    assert accuracy.ndcg(slates, relevance)[0] == pytest.approx(gains / (1 + gains))
    assert accuracy.mrr(slates, relevance).tolist() == [0.5, 0]
    with pytest.raises(RecGymError, match="twice"):
        accuracy.precision([[1, 1]], [[0, 1]])
    with pytest.raises(RecGymError, match=r"slates\[0, 1\] is 7"):
        accuracy.precision([[1, 7]], [[0, 1]])


def test_engagement() -> None:
    assert engagement.session_depth([1, 1, 1, 2], [0, 0, 1, 0])["depth"].tolist() == [2, 1, 1]
    total = engagement.reward([1, 1, 2], [1.0, 2.0, 5.0])
    assert total["total"].tolist() == [3, 5] and total["per_step"].tolist() == [1.5, 5]
    assert engagement.return_times([1, 2, 1, 1], [10, 3, 0, 3])["gap"].tolist() == [3, 7]
    kept = engagement.retention([1, 1, 2, 3, 3], [0, 5, 0, 0, 20], 7, 30)
    assert kept["returned"].tolist() == [1, 0, 0] and kept["active"].tolist() == [0, 0, 1]
    with pytest.raises(RecGymError, match="observed until 30"):
        engagement.retention([1], [25], 7, 30)
    worth = engagement.lifetime_value([1, 1], [0, 365], [10, 11], yearly_discount=0.1)
    assert worth["value"].tolist() == pytest.approx([20])
    assert engagement.satisfaction([1, 3, 5], 1, 5).tolist() == [0, 0.5, 1]
    with pytest.raises(RecGymError, match=r"ratings\[0\] is 0"):
        engagement.satisfaction([0], 1, 5)


def test_beyond_accuracy() -> None:
    assert beyond.catalogue_coverage([2, 0, 1, 0]) == 0.5
    assert beyond.gini([3, 3, 3]) == pytest.approx(0) and beyond.gini([0, 0, 9]) == pytest.approx(1)
    assert beyond.gini([1, 3]) == pytest.approx(0.5)
    assert beyond.intra_list_diversity([[0, 1, 2]], [[1, 0], [2, 0], [0, 1]])[0] == pytest.approx(2 / 3)
    assert beyond.novelty([[0, 1]], [0, 1, 4])[0] == pytest.approx(2.5)
    assert beyond.serendipity([[0, 1, 2, 3]], [[1, 1, 0, 0]], [[1, 0, 0, 0]])[0] == 0.25
    assert beyond.average_popularity([[0, 2]], [4, 9, 2])[0] == 3
    tail = beyond.long_tail([9, 1, 1, 1, 5])
    assert tail.tolist() == [False, True, True, True, True]
    assert beyond.tail_share([[0, 1]], tail)[0] == 0.5
    assert beyond.category_shares([0, 0, 0, 0], [0, 1, 1, 1], 2, 2).tolist() == [[0.25, 0.75], [0, 0]]
    off = beyond.miscalibration([[1, 0], [1, 1]], [[0, 1], [1, 1]])
    assert off.tolist() == pytest.approx([-math.log(0.01), 0])
    bits = beyond.category_entropy([1, 1, 1, 1], [0, 0, 1, 1], [0, 1, 1, 1], 2)
    assert bits["entropy"].tolist() == [1, 0] and bits["num_items"].tolist() == [2, 2]


def test_cold_start() -> None:
    assert cold_start.history_groups([0, 1, 5, 6, 20, 21]).tolist() == ["0", "1–5", "1–5", "6–20", "6–20", ">20"]
    lost = cold_start.regret([1, 2, 1, 1], [0, 1, 1, 0], [1, 1, 1, 1], 2)
    assert lost["regret"].tolist() == [1, 0] and lost["interactions"].tolist() == [2, 1]
    base = {"scenario": "s", "agent": "a", "privileged": False, "num_steps": 1, "num_hits": 1, "num_consumed": 1}
    more = {"num_shown": 1, "num_new": 0, "popularity_shown": 1, "revenue": np.nan}
    rows = pd.DataFrame({**base, **more, "user": range(4), "history_trips": [0, 3, 9, 30], "reward": [0.0, 2, 4, 6]})
    table = cold_start.by_history_length(rows, draws=50)
    values = table[table["metric"] == "reward"].set_index("group")["value"].to_dict()
    assert values == {"overall": 3, "cold": 1, "warm": 5, "0": 0, "1–5": 2, "6–20": 4, ">20": 6}


def test_group_gap_beside_permuted_labels() -> None:
    users = np.arange(300)
    labels = np.repeat(["a", "b", "unknown"], 100)
    noise = rng(1).normal(0, 1, 300)
    unfair = user.group_gap(noise + np.repeat([2, 0, 9], 100), users, labels, rng(), draws=300)
    fair = user.group_gap(noise, users, labels, rng(), draws=300)
    assert unfair.gap.value == pytest.approx(2, abs=0.4) and unfair.gap.low > 1
    assert unfair.worst_group == "b" and unfair.p_value < 0.01 and fair.p_value > 0.05
    assert unfair.permuted_gap > 0 and unfair.worst.value < unfair.permuted_worst
    assert unfair.groups["unknown"].value > 8
    with pytest.raises(RecGymError, match="'b' has 49 users"):
        user.group_gap(noise[:149], users[:149], labels[:149], rng())


def test_parity_and_errors_of_groups() -> None:
    assert user.ranking_parity([1, 3], [10, 10]) == pytest.approx(0.5)
    assert user.ranking_parity([2, 4], [10, 20]) == 0
    users, labels = np.arange(100), np.repeat(["f", "m"], 50)
    found = user.error_unfairness(np.repeat([2, 4], 50), np.full(100, 3), np.zeros(100), users, labels, "f")
    assert (found.value, found.absolute, found.under, found.over) == (2, 0, 1, 1)
    assert user.differential_fairness([[9, 9], [4, 4]]) == pytest.approx(0)
    assert user.differential_fairness([[3, 1], [1, 3]]) == pytest.approx(math.log(2))


def test_provider_fairness() -> None:
    shown = provider.exposure([[0, 1], [0, 2]], 3, [1, 0.5])
    assert shown.tolist() == [2, 0.5, 0.5]
    groups = ["x", "y", "y"]
    assert provider.demographic_parity(shown, groups).ratio("x", "y") == 4
    assert provider.exposed_utility(shown, [4, 1, 1], groups).parity == 1
    assert provider.realised_utility([2, 1, 1], [1, 1, 1], groups).parity == 0.5
    target = provider.target_exposure([0, 1, 1], [1, 0.5])
    assert target.tolist() == [0, 0.75, 0.75]
    static = provider.expected_exposure([0, 1, 0.5], target)
    assert (static.loss, static.disparity, static.relevance) == (0.125, 1.25, 2.25)
    assert static.loss == pytest.approx(static.disparity - static.relevance + target @ target)
    assert provider.unequal_attention([1, 1], [3, 1]) == 0.5
    assert provider.awrf(shown, groups, {"x": 1, "y": 1}) == pytest.approx(1 / 6)


def test_bad_agents_move_the_metrics_the_right_way() -> None:
    """40 items, popularity falling; categories by turns; one agent spreads, one shows hits, one repeats itself."""
    popularity, brand = np.arange(40, 0, -1) ** 2, np.repeat(["national", "private"], 20)
    kinds = np.eye(4)[np.arange(40) % 4]
    spread = np.stack([rng(seed).permutation(40)[:4] for seed in range(200)])
    hits = np.stack([rng(seed).permutation(8)[:4] for seed in range(200)])
    narrow = np.tile([0, 4, 8, 12], (200, 1))  # one category, always the same
    tail = beyond.long_tail(popularity)
    assert beyond.average_popularity(hits, popularity).mean() > beyond.average_popularity(spread, popularity).mean()
    assert beyond.tail_share(hits, tail).mean() < beyond.tail_share(spread, tail).mean()
    assert beyond.novelty(hits, popularity).mean() < beyond.novelty(spread, popularity).mean()
    fair, biased, same = (provider.exposure(slates, 40) for slates in (spread, hits, narrow))
    assert beyond.gini(fair) < beyond.gini(biased) < beyond.gini(same)
    assert beyond.catalogue_coverage(same) < beyond.catalogue_coverage(fair)
    assert beyond.intra_list_diversity(narrow, kinds).max() == 0 < beyond.intra_list_diversity(spread, kinds).mean()
    mixes = [kinds[slates].mean(1) for slates in (spread, narrow)]
    history = np.full((200, 4), 0.25)
    assert beyond.miscalibration(history, mixes[0]).mean() < beyond.miscalibration(history, mixes[1]).mean()
    parity = [provider.demographic_parity(e, brand).parity for e in (fair, biased)]
    assert parity[0] > 0.8 and parity[1] == 0
    assert provider.unequal_attention(fair, np.ones(40)) < provider.unequal_attention(biased, np.ones(40))
    even = {"national": 1, "private": 1}
    assert provider.awrf(fair, brand, even) < 0.1 < provider.awrf(biased, brand, even)
