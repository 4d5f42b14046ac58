"""The ranking loss: a softmax over each moment's candidates, every moment alike."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from recgym.user_models.preference.losses import WHOLE_BASKET, purchase_loss, ranking_loss
from recgym.user_models.preference.samples import Pairs, PairSampler
from recgym.user_models.preference.trips import draw_tokens
from tests.user_models.test_trends import trends_of
from tests.user_models.test_trips import random_trips


def pairs_of(moment: list[int], label: list[float], weight: list[float]) -> Pairs:
    nothing = torch.zeros(len(moment))
    return Pairs(
        moment=torch.tensor(moment),
        item=torch.arange(len(moment)),
        label=torch.tensor(label),
        weight=torch.tensor(weight),
        whole=nothing + 1,
        feedback=nothing,
        own_counts=nothing,
        own_days=nothing,
        trends=nothing[:, None],
    )


def test_it_is_the_mean_surprise_of_what_was_bought():
    logit = torch.tensor([0.3, -1.0, 2.0, 0.5, 0.1, -0.7], dtype=torch.float32)
    pairs = pairs_of([0, 0, 0, 1, 1, 1], [1.0, 0.0, 0.0, 1.0, 1.0, 0.0], [1.0, 2.0, 3.0, 1.0, 1.0, 2.0])
    first = np.log(np.exp(0.3) + 2 * np.exp(-1.0) + 3 * np.exp(2.0)) - 0.3
    second = np.log(np.exp(0.5) + np.exp(0.1) + 2 * np.exp(-0.7)) - (0.5 + 0.1) / 2
    assert float(ranking_loss(logit, pairs, 2)) == pytest.approx((first + second) / 2, rel=1e-5)


def test_a_moment_counts_the_same_whatever_its_basket_up_to_whole_baskets():
    """With equal logits, n purchases among 2 n items are worth log(2 n) for any n up to a whole basket."""
    for size, share in ((1, 1.0), (7, 1.0), (40, 40 / WHOLE_BASKET)):
        pairs = pairs_of([0] * 2 * size, [1.0] * size + [0.0] * size, [1.0] * 2 * size)
        loss = float(ranking_loss(torch.zeros(2 * size), pairs, 1))
        assert loss == pytest.approx(share * np.log(2 * size), rel=1e-5)


def test_what_was_bought_before_on_a_trip_does_not_lessen_the_want_for_the_rest():
    trips = random_trips(4)
    tokens = draw_tokens(trips, np.random.default_rng(2), 5, 0.0)
    token = np.flatnonzero(tokens.bought > 0)
    pairs = PairSampler(trips, trends_of(trips), own=4, other=4).draw(tokens, token, np.random.default_rng(3))
    bought = torch.zeros(len(token)).index_add(0, pairs.moment, pairs.label * pairs.whole)
    assert bought.tolist() == pytest.approx(trips.size[tokens.trip[token]].tolist())
    assert (pairs.whole[pairs.label == 0] == 1).all()
    # Twice the purchases at the same weight: the best constant chance has twice the odds.
    pairs = pairs_of([0] * 10, [1.0] * 2 + [0.0] * 8, [1.0] * 10)
    counted = replace(pairs, whole=torch.where(pairs.label > 0, 2.0, 1.0))
    logit = torch.tensor(np.log(4 / 8), dtype=torch.float32).requires_grad_()
    purchase_loss(logit.expand(10), counted, 1).backward()
    assert float(logit.grad) == pytest.approx(0, abs=1e-6)


def test_sampled_candidates_stand_for_the_catalogue():
    trips = random_trips(3)
    tokens = draw_tokens(trips, np.random.default_rng(0), 5, 0.0)
    picked = np.arange(0, len(tokens.trip), 7)
    logits = torch.randn(len(picked), trips.num_items, generator=torch.Generator().manual_seed(0))
    exact = 0.0
    for row, token in enumerate(picked):
        start, trip = trips.events[tokens.trip[token]], tokens.trip[token]
        order = trips.item[tokens.order[start : trips.events[trip + 1]]]
        gone, left = order[: tokens.bought[token]], order[tokens.bought[token] :]
        candidates = sorted(set(range(trips.num_items)) - set(gone))
        exact += float(logits[row, candidates].logsumexp(0) - logits[row, left].mean())
    rng = np.random.default_rng(1)
    sampler = PairSampler(trips, trends_of(trips), own=64, other=64)
    draws = [sampler.draw(tokens, picked, rng) for _ in range(40)]
    found = [float(ranking_loss(logits[pairs.moment, pairs.item], pairs, len(picked))) for pairs in draws]
    assert np.mean(found) == pytest.approx(exact / len(picked), rel=0.02)


def test_large_logits_neither_overflow_nor_lose_the_gradient():
    logit = torch.tensor([80.0, 79.0, -40.0], requires_grad=True)
    loss = ranking_loss(logit, pairs_of([0, 0, 0], [0.0, 1.0, 0.0], [1.0, 1.0, 5.0]), 1)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(np.log1p(np.e), rel=1e-5)
    assert logit.grad is not None and logit.grad.isfinite().all() and logit.grad[1] < 0


def test_each_moment_has_its_own_largest_logit():
    logit = torch.tensor([80.0, 0.0, 0.0, 0.0], requires_grad=True)
    loss = ranking_loss(logit, pairs_of([0, 0, 1, 1], [1.0, 0.0, 1.0, 0.0], [1.0] * 4), 2)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(np.log(2) / 2, rel=1e-5)
    assert logit.grad is not None and logit.grad[2:].tolist() == pytest.approx([-0.25, 0.25])
