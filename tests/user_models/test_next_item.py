"""Next-item training: what a planted order teaches, what is never looked at, what may compete."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from recgym.user_models.preference.config import GraphConfig, ModelConfig, NetworkConfig, NextItemConfig
from recgym.user_models.preference.next_item import Events, ndcg, rank, segments, train
from recgym.user_models.preference.sides import Sides

USERS, ITEMS, LENGTH = 120, 30, 12
CONFIG = ModelConfig(
    network=NetworkConfig(dim=32, layers=1, feedforward=32, hidden=16, window=8, dropout=0.0),
    graph=GraphConfig(id_dropout=0.0),
    next_item=NextItemConfig(epochs=12, learning_rate=0.003, segment=16, batch=8),
)
SIDES = Sides(torch.zeros(ITEMS, 1), torch.zeros(ITEMS, 1), torch.zeros(USERS, 1))


def planted(seed: int = 0) -> Events:
    """Every user walks the items in one circular order, from a place of their own, and skips some."""
    rng = np.random.default_rng(seed)
    steps = np.cumsum(rng.choice([1, 2], (USERS, LENGTH), p=[0.9, 0.1]), axis=1)
    return Events(
        user=np.repeat(np.arange(USERS), LENGTH),
        item=((rng.integers(0, ITEMS, (USERS, 1)) + steps) % ITEMS).ravel(),
        feedback=np.full(USERS * LENGTH, 4),
        time=np.tile(np.arange(LENGTH) * 1000, USERS),
        num_users=USERS,
        num_items=ITEMS,
    )


def test_learns_an_order_that_popularity_cannot_tell() -> None:
    events = planted()
    before = events.before_last(1)
    fit = train(SIDES, before, CONFIG, seed=0)
    scores = rank(fit.model, SIDES, before)
    assert ndcg(scores, events.last()) > 0.8
    popularity = torch.from_numpy(np.bincount(before.item, minlength=ITEMS)).expand(USERS, -1)
    assert ndcg(popularity, events.last()) < 0.3


def test_what_a_user_has_had_is_never_ranked() -> None:
    events = planted()
    fit = train(SIDES, events, CONFIG, seed=0, epochs=1)
    scores = rank(fit.model, SIDES, events)
    assert bool(torch.isneginf(scores[torch.from_numpy(events.user), torch.from_numpy(events.item)]).all())
    torch.testing.assert_close(scores.exp().sum(1), torch.ones(USERS))


def test_users_without_events_stand_at_the_beginning() -> None:
    events = planted()
    model = train(SIDES, events, CONFIG, seed=0, epochs=1).model
    whole = rank(model, SIDES, events)
    some = rank(model, SIDES, events.select(events.user % 2 == 0))
    assert torch.equal(some[::2], whole[::2])
    with torch.no_grad():
        start = model.network.start.expand(USERS, -1)
        expected = model.logits(model.vectors(SIDES), start, SIDES.users).log_softmax(1)
    torch.testing.assert_close(some[1::2], expected[1::2])


def test_training_never_uses_what_is_held_out() -> None:
    events = planted()
    before = events.before_last(1)
    fits = [
        train(SIDES, before, CONFIG, 0, held_out=last, epochs=2) for last in (events.last(), events.last()[::-1].copy())
    ]
    assert [[row["loss"] for row in fit.history] for fit in fits][0] == [row["loss"] for row in fits[1].history]


def test_the_future_does_not_reach_a_state() -> None:
    events = planted()
    model = train(SIDES, events, CONFIG, seed=0, epochs=1).model.eval()
    rows = np.arange(LENGTH)[None]
    changed = events.select(np.arange(len(events)))
    changed.item[LENGTH - 1] = (changed.item[LENGTH - 1] + 5) % ITEMS
    vectors = model.vectors(SIDES)
    with torch.no_grad():
        first, second = (model.states(vectors, each, rows)[0] for each in (events, changed))
    torch.testing.assert_close(first[:-1], second[:-1])
    assert not torch.allclose(first[-1], second[-1])


def test_same_seed_same_model() -> None:
    events = planted()
    first, second = (rank(train(SIDES, events, CONFIG, seed=1, epochs=2).model, SIDES, events) for _ in range(2))
    torch.testing.assert_close(first, second, rtol=0, atol=0)


def test_only_events_of_one_second_change_places() -> None:
    events = planted()
    assert (events.reordered(np.random.default_rng(0)).item == events.item).all()
    tied = Events(events.user, events.item, events.feedback, events.time // 2000, USERS, ITEMS)
    mixed = tied.reordered(np.random.default_rng(0))
    assert (mixed.item != events.item).any()
    assert (np.sort(mixed.item.reshape(-1, 2)) == np.sort(events.item.reshape(-1, 2))).all()


def test_segments_hold_every_user_apart_and_nearly_every_event() -> None:
    events = planted()
    seen = np.zeros(len(events), int)
    for rows in segments(events, 5, 4, np.random.default_rng(0)):
        for run in rows:
            inside = run[run >= 0]
            assert len(np.unique(events.user[inside])) == 1
            assert len(inside) <= 5
            assert (np.diff(inside) == 1).all()
            seen[inside] += 1
    assert seen.max() == 1
    assert seen.mean() > 0.8  # a run of a single event has nothing to predict


def test_gap_levels_tell_one_second_from_days() -> None:
    events = Events(np.array([0, 0, 0, 1]), np.arange(4), np.full(4, 3), np.array([5, 5, 5 + 3 * 86_400, 9]), 2, 4)
    level = events.level
    assert level[0] == level[1] == level[3] == 0
    assert level[2] > 1


def test_ties_count_against_the_wanted_item() -> None:
    assert ndcg(torch.zeros(1, 30), np.array([3])) == 0.0
    assert ndcg(torch.eye(5)[[2]], np.array([2])) == pytest.approx(1.0)
