"""What recommendations do to wants: each part by itself, with answers known beforehand."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from recgym.errors import ScenarioError
from recgym.scenario import load_scenario
from recgym.simulation.mood import dearness
from recgym.simulation.simulator import Simulator
from recgym.simulation.state import State
from recgym.worlds.world import World

LANES = torch.arange(64)


def start(world: World, **overrides: Any) -> tuple[Simulator, State]:
    changes = {name.replace("__", "."): value for name, value in overrides.items()}
    simulator = Simulator(world, load_scenario("default", {"episode.kind": "horizon", **changes}))
    return simulator, simulator.reset(LANES, LANES * 0)


def same_topic(simulator: Simulator, count: int = 10) -> tuple[Tensor, Tensor]:
    """Items of the largest topic, and one of another."""
    topics = simulator.moods.topics
    largest = topics.bincount().argmax()
    return (topics == largest).nonzero().squeeze(1)[:count], (topics != largest).nonzero().squeeze(1)[:1]


def test_nothing_is_kept_and_nothing_changes_by_default(world: World) -> None:
    simulator, state = start(world)
    assert state.mood is None
    assert torch.equal(simulator.moods.lift(state, state.candidates.long()), torch.full((64, 100), 0.7))


def test_boredom_lowers_the_logit_by_what_was_looked_at_and_fades(world: World) -> None:
    simulator, state = start(world, behaviour__boredom={"strength": 0.5, "half_life": 7.0})
    mine, other = same_topic(simulator)
    state, outcome = simulator.step(state, mine.repeat(64, 1))
    stayed = ~outcome.trip_ended
    looked = outcome.examined.sum(1)[stayed]
    lift = simulator.moods.lift(state, torch.cat((mine[:1], other)).repeat(64, 1))[stayed]
    torch.testing.assert_close(lift[:, 0], 0.7 - 0.5 * looked.float().log1p())
    assert (lift[:, 1] == 0.7).all()
    assert state.mood is not None and state.mood.exposures is not None
    left = outcome.trip_ended
    assert left.any()
    kept = state.mood.exposures.sum(1)[left]
    expected = outcome.examined.sum(1)[left] * 0.5 ** (outcome.gap_days[left] / 7.0)
    torch.testing.assert_close(kept, expected.float())


def test_taste_drifts_towards_what_is_shown(world: World) -> None:
    simulator, state = start(world, behaviour__drift={"strength": 2.0, "rate": 0.1}, behaviour__patience=0.0)
    mine, other = same_topic(simulator)
    both = torch.cat((mine[:1], other)).repeat(64, 1)
    before = simulator.moods.lift(state, both)
    torch.testing.assert_close(before, torch.full_like(before, 0.7))
    share = (simulator.moods.topics == simulator.moods.topics[mine[0]]).float().mean()
    state, outcome = simulator.step(state, mine.repeat(64, 1))
    lift = simulator.moods.lift(state, both)[outcome.examined.any(1)]
    torch.testing.assert_close(lift[:, 0], torch.full_like(lift[:, 0], float(0.7 + 2.0 * 0.1 * (1 - share))))
    assert (lift[:, 1] < 0.7).all()


def test_taste_shifts_on_its_day_once_and_alike_for_one_user(world: World) -> None:
    simulator, state = start(world, behaviour__shift={"strength": 1.0, "day": 10})
    items = torch.arange(world.num_items).repeat(64, 1)
    assert (simulator.moods.lift(state, items) == 0.7).all()
    for _ in range(200):
        state, _ = simulator.step(state, state.candidates[:, :10].long())
    days = state.visit.day - state.start_day
    assert (days >= 10).all()
    lift = simulator.moods.lift(state, items)
    assert set(np.round(lift.unique().numpy(), 4)) == {np.float32(-0.3), np.float32(1.7)}
    assert 0.3 < float((lift > 0.7).float().mean()) < 0.7
    for topic in range(simulator.moods.num_topics):
        assert (lift[:, simulator.moods.topics == topic].std(dim=1) == 0).all()
    first = {}
    for lane, user in enumerate(state.user.tolist()):
        assert torch.equal(first.setdefault(user, lift[lane]), lift[lane])


def test_promotions_last_as_long_as_the_budget(world: World) -> None:
    promotions = {"slots": 2, "discount": 0.5, "budget": 5.0}
    simulator, state = start(
        world,
        actions__promotions=promotions,
        objective={"terms": {"revenue": 1.0}},
        behaviour__price_elasticity=3.0,
    )
    spent = torch.zeros(64)
    for _ in range(30):
        assert state.mood is not None and state.mood.spent is not None
        slate = state.candidates[:, :10].long()
        lift, promoted = simulator.moods.offer(state, slate)
        assert promoted is not None
        assert torch.equal(promoted[:, 0], spent < 5.0) and not promoted[:, 2:].any()
        torch.testing.assert_close(lift[promoted], torch.full_like(lift[promoted], 0.7 + 3.0 * math.log(2.0)))
        state, outcome = simulator.step(state, slate)
        value = simulator.objective.price[slate] * outcome.quantity
        spent = spent + 0.5 * (value * promoted).sum(1)
        torch.testing.assert_close(outcome.reward, (value * (1 - 0.5 * promoted.float())).sum(1))
        assert state.mood is not None and state.mood.spent is not None
        torch.testing.assert_close(state.mood.spent, spent)
    assert (spent >= 5.0).any() and (spent > 0).float().mean() > 0.5


def test_what_is_put_aside_is_bought_later_once(world: World) -> None:
    terms = {"click": 0.0, "purchase": 1.0}
    simulator, state = start(world, behaviour__delay={"share": 1.0, "trips": 1.0}, objective={"terms": terms})
    assert state.mood is not None
    clicks, purchases, waited = torch.zeros(64), torch.zeros(64), torch.zeros(64)
    for step in range(80):
        slate = (torch.arange(10) * 5 + step % 5).repeat(64, 1)
        first = state.visit.step == 0
        assert state.mood is not None and state.mood.waiting is not None and state.mood.due is not None
        expected = ((state.mood.waiting >= 0) & (state.mood.due <= state.visit.trip[:, None])).sum(1) * first
        state, outcome = simulator.step(state, slate)
        assert not outcome.consumed.any()  # everything is put aside
        assert torch.equal(outcome.terms["purchase"], expected.float())
        clicks += outcome.terms["click"]
        purchases += outcome.terms["purchase"]
        assert state.mood is not None and state.mood.waiting is not None
        waited = (state.mood.waiting >= 0).sum(1).float()
        for row in state.mood.waiting:
            items = row[row >= 0]
            assert len(items.unique()) == len(items)
    assert purchases.sum() > 20
    assert (purchases <= clicks).all() and (clicks <= purchases + waited).all()
    owned = state.record.counts.sum(1) - simulator.reset(LANES, LANES * 0).record.counts.sum(1)
    assert (owned[purchases > waited + 5] > 0).all()


def test_what_waits_is_not_wanted_again(world: World) -> None:
    """The expected reward of what is shown comes true where some of it has been put aside on an earlier trip."""
    delay = {"share": 0.6, "trips": 6.0}
    simulator, state = start(world, behaviour__delay=delay, objective={"terms": {"click": 1.0, "purchase": 1.0}})
    expected = earned = spread = met = 0.0
    for step in range(60):
        slate = (torch.arange(10) * 5 + step % 5).repeat(64, 1)
        assert state.mood is not None and state.mood.waiting is not None
        waits = (state.mood.waiting[:, None, :] == slate[:, :, None]).any(dim=2)
        chance, _ = simulator.chance(state, slate)
        worth = simulator.expected_reward(state, slate)
        assert (chance[waits] == 0).all() and (worth[waits] == 0).all()
        state, outcome = simulator.step(state, slate)
        expected += float(worth[outcome.examined].sum())
        earned += float(outcome.terms["click"].sum() + outcome.consumed.sum())  # without what was put aside before
        spread += float((4 * chance * (1 - chance))[outcome.examined].sum())
        met += float((waits & outcome.examined).sum())
    assert met > 100
    assert abs(earned - expected) < 3 * spread**0.5


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"behaviour.delay.share": 0.5}, "behaviour.delay.share: needs episodes of several trips"),
        ({"actions.promotions.slots": 11}, "slots: 11 exceeds slate_size 10"),
        ({"behaviour.boredom.strength": -1.0}, "greater than or equal to 0"),
    ],
)
def test_bad_moods_are_refused(overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(ScenarioError, match=message):
        load_scenario("default", overrides)


def test_dearness_is_the_share_of_purchases_that_cost_less() -> None:
    price, bought = torch.tensor([3.0, 1.0, 2.0, 2.0]), torch.tensor([2.0, 4.0, 1.0, 1.0], dtype=torch.float64)
    found = dearness(price, bought)
    assert found.tolist() == [7 / 8, 1 / 4, 5 / 8, 5 / 8]
    assert (found * bought).sum() / bought.sum() == 0.5
    assert dearness(price, bought * 0).tolist() == [7 / 8, 1 / 8, 1 / 2, 1 / 2]  # nothing was bought: items count once


def test_users_return_later_to_where_dear_items_are_shown(world: World) -> None:
    simulator, state = start(world, behaviour__price_image={"effect": 4.0, "rate": 0.5}, behaviour__patience=0.0)
    assert state.mood is not None and state.mood.dearness is not None
    assert simulator.moods.hazard(state.mood).tolist() == [1.0] * 64
    order = simulator.moods.dearness.argsort()
    images, gaps = [], []
    for slate in (order[:10], order[-10:]):
        _, begun = start(world, behaviour__price_image={"effect": 4.0, "rate": 0.5}, behaviour__patience=0.0)
        after, outcome = simulator.step(begun, slate.repeat(64, 1))
        looked = outcome.examined.sum(1)
        mean = (simulator.moods.dearness[slate] * outcome.examined).sum(1) / looked.clamp(min=1)
        expected = torch.where(looked > 0, 0.5 + 0.5 * (mean - 0.5), 0.5)
        assert after.mood is not None and after.mood.dearness is not None
        torch.testing.assert_close(after.mood.dearness, expected)
        torch.testing.assert_close(simulator.moods.hazard(after.mood), (-4.0 * (expected - 0.5)).exp())
        images.append(float(expected.mean()))
        gaps.append(outcome.gap_days.where(outcome.trip_ended & ~outcome.terminated, -1))
    assert images[0] < 0.5 < images[1]
    both = (gaps[0] >= 0) & (gaps[1] >= 0)
    assert (gaps[1] >= gaps[0])[both].all() and (gaps[1] > gaps[0])[both].any()


def test_promotions_need_prices(films: World) -> None:
    with pytest.raises(ScenarioError, match="actions.promotions: nothing is paid in world"):
        Simulator(films, load_scenario("default", {"actions.promotions.slots": 2}))
    with pytest.raises(ScenarioError, match="behaviour.price_image: nothing is paid in world"):
        Simulator(films, load_scenario("default", {"behaviour.price_image.effect": 2.0}))


def test_lanes_that_restart_have_no_mood_left(world: World) -> None:
    simulator, state = start(world, behaviour__boredom={"strength": 0.5}, behaviour__delay={"share": 0.5})
    for _ in range(5):
        state, _ = simulator.step(state, state.candidates[:, :10].long())
    lanes = torch.tensor([3, 40])
    before: Callable[[], Tensor] = lambda: state.mood.exposures.clone()  # type: ignore[union-attr]  # noqa: E731
    kept = before()
    simulator.restart(state, lanes, lanes, lanes * 0)
    assert state.mood is not None and state.mood.waiting is not None
    assert (before()[lanes] == 0).all() and (state.mood.waiting[lanes] == -1).all()
    others = torch.ones(64, dtype=torch.bool)
    others[lanes] = False
    assert torch.equal(before()[others], kept[others]) and (kept[others] > 0).any()
