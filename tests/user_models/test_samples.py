"""The weighted pairs estimate the loss over the whole catalogue without bias."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from recgym.user_models.preference.losses import purchase_loss
from recgym.user_models.preference.samples import (
    PairSampler,
    cut_segments,
    moments_before,
    segment_index,
    strangers,
)
from recgym.user_models.preference.trips import draw_tokens
from tests.user_models.test_trends import trends_of
from tests.user_models.test_trips import random_trips


def test_weighted_loss_is_unbiased_for_the_catalogue():
    trips = random_trips(3)
    tokens = draw_tokens(trips, np.random.default_rng(0), 5, 0.2)
    sampler = PairSampler(trips, trends_of(trips), own=4, other=4)
    picked = np.arange(0, len(tokens.trip), 7)
    logits = torch.randn(len(picked), trips.num_items, generator=torch.Generator().manual_seed(0))
    exact = 0.0
    for row, token in enumerate(picked):
        trip = tokens.trip[token]
        start = trips.events[trip]
        left = set(trips.item[tokens.order[start + tokens.bought[token] : trips.events[trip + 1]]])
        gone = set(trips.item[tokens.order[start : start + tokens.bought[token]]])
        for item in set(range(trips.num_items)) - gone:
            label = torch.tensor(float(item in left))
            counted = trips.size[trip] / len(left) if item in left else 1.0
            exact += float(F.binary_cross_entropy_with_logits(logits[row, item], label)) * counted
    exact /= len(picked)
    rng = np.random.default_rng(1)
    draws = []
    for _ in range(400):
        pairs = sampler.draw(tokens, picked, rng)
        draws.append(float(purchase_loss(logits[pairs.moment, pairs.item], pairs, len(picked))))
    error = np.std(draws) / np.sqrt(len(draws))
    assert np.mean(draws) == pytest.approx(exact, abs=4 * error)
    assert error < 0.02 * exact


def test_segments_cover_every_token_once():
    trips = random_trips(4)
    tokens = draw_tokens(trips, np.random.default_rng(0), 5, 0.1)
    start = tokens.users[:-1] + 3
    segments = cut_segments(tokens, start, length=6, context=4)
    index, rows, columns = segment_index(segments)
    scored = index[rows, columns]
    expected = np.concatenate([np.arange(s, e) for s, e in zip(start, tokens.users[1:], strict=True)])
    assert sorted(scored) == sorted(expected)
    owner = trips.trip_user[tokens.trip]
    for segment in segments:  # context never reaches into another user's history
        assert len(set(owner[segment.context : segment.stop])) == 1
        assert segment.start - segment.context <= 4


def test_nothing_is_known_of_strangers_and_all_of_the_others():
    trips = random_trips(5)
    tokens = draw_tokens(trips, np.random.default_rng(0), 5, 0.0)
    token = np.flatnonzero(tokens.first & (trips.number[tokens.trip] > 2))[:20]
    states = torch.randn(len(token), 8, generator=torch.Generator().manual_seed(0))
    moments = moments_before(trips, tokens, token, states)
    pairs = PairSampler(trips, trends_of(trips), own=6, other=6).draw(tokens, token, np.random.default_rng(1))
    cold, start = torch.arange(len(token)) % 2 == 0, torch.full((8,), 7.0)
    hidden, rest = strangers(moments, cold, start), pairs.of_strangers(cold)
    assert (hidden.sequence[cold] == 7).all()
    assert not hidden.pace[cold].any()
    assert not hidden.gap[cold].any()
    assert torch.equal(hidden.sequence[~cold], moments.sequence[~cold])
    assert torch.equal(hidden.pace[~cold], moments.pace[~cold])
    of_cold = cold[pairs.moment]
    assert pairs.own_counts[of_cold].any()
    assert not rest.own_counts[of_cold].any()
    assert not rest.trends[of_cold].any()
    assert torch.equal(rest.own_days[~of_cold], pairs.own_days[~of_cold])
    assert torch.equal(rest.label, pairs.label)
