"""Known answers of one trip: examination, wants, leaving, reward."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from recgym import compiled
from recgym.errors import ActionError, ScenarioError
from recgym.scenario import load_scenario
from recgym.simulation.simulator import Simulator
from recgym.simulation.state import State
from recgym.worlds.world import World

Simulate = Callable[..., Simulator]
SURE, NEVER = torch.full((300,), 40.0), torch.full((300,), -40.0)
ATTENTIVE = {"behaviour.examination.decay": 1.0, "behaviour.reexamination": 1.0}


def start(simulator: Simulator, lanes: int = 64) -> State:
    return simulator.reset(torch.arange(lanes), torch.zeros(lanes, dtype=torch.int64))


def first(state: State, count: int = 10) -> torch.Tensor:
    return state.candidates[:, :count].to(torch.int64)


def test_users_who_want_everything_buy_everything(simulate: Simulate, wants: Any) -> None:
    simulator = simulate(ATTENTIVE, wants(SURE))
    state, outcome = simulator.step(s := start(simulator), first(s))
    assert outcome.consumed.all() and outcome.examined.all()
    assert (outcome.reward == 10).all() and (outcome.terms["purchase"] == 10).all()
    assert set(outcome.quantity.unique().tolist()) == {1, 2}
    assert (state.visit.bought == 10).all() and not outcome.terminated.any()


def test_patience_decides_when_nothing_is_bought(simulate: Simulate, wants: Any) -> None:
    hasty = simulate({"behaviour.patience": 1.0}, wants(NEVER))
    _, outcome = hasty.step(s := start(hasty), first(s))
    assert outcome.terminated.all() and not outcome.truncated.any() and (outcome.reward == 0).all()
    patient = simulate({"behaviour.patience": 0.0, "episode.max_slates": 3}, wants(NEVER))
    state = start(patient)
    for step in range(3):
        state, outcome = patient.step(state, first(state))
        assert not outcome.terminated.any()
        assert outcome.truncated.all() == (step == 2)
    some = simulate({"behaviour.patience": 0.3}, wants(NEVER))
    _, outcome = some.step(s := start(some, 4000), first(s))
    assert abs(float(outcome.terminated.float().mean()) - 0.3) < 0.03


def test_lanes_that_ended_may_be_stepped_on(simulate: Simulate, wants: Any) -> None:
    """An item is then refused more often than there are slates in an episode."""
    overrides = {**ATTENTIVE, "behaviour.patience": 0.0, "episode.max_slates": 2, "actions.slate_size": 1}
    simulator, plain = (simulate(overrides, wants(NEVER)) for _ in range(2))
    state, twin = start(simulator, 4), start(plain, 4)
    slate = torch.full((4, 1), 17)
    for _ in range(8):
        state, outcome = simulator.step(state, slate)
        with compiled.reference():
            twin, expected = plain.step(twin, slate)
        assert outcome.examined.all() and expected.examined.all()
    assert (state.memory.refusals > 2).any() and torch.equal(state.memory.refusals, twin.memory.refusals)


def test_a_met_need_ends_the_trip(simulate: Simulate, wants: Any) -> None:
    simulator = simulate({**ATTENTIVE, "behaviour.patience": 0.0}, wants(SURE, intended=15))
    state, outcome = simulator.step(s := start(simulator), first(s))
    assert not outcome.terminated.any()
    others = (first(state, 100) + 0)[:, 10:20]
    _, outcome = simulator.step(state, others)
    assert outcome.terminated.all() and outcome.trip_ended.all()


def test_an_item_is_bought_once_and_duplicates_are_passed_over(simulate: Simulate, wants: Any) -> None:
    simulator = simulate(ATTENTIVE, wants(SURE))
    slate = torch.tensor([[5, 5, 6, 7, 5, 8, 9, 10, 11, 11]]).repeat(8, 1)
    state, outcome = simulator.step(start(simulator, 8), slate)
    assert outcome.duplicate[0].tolist() == [False, True, False, False, True, False, False, False, False, True]
    assert torch.equal(outcome.consumed, ~outcome.duplicate)
    _, outcome = simulator.step(state, slate)
    assert not outcome.consumed.any() and not outcome.examined.any()


def test_showing_a_slate_again_wins_nothing(simulate: Simulate, wants: Any) -> None:
    """The want is one draw by trip and item, wherever and whenever the item is shown."""
    simulator = simulate({**ATTENTIVE, "behaviour.patience": 0.0}, wants(torch.zeros(300)))
    slate = torch.arange(10).repeat(500, 1)
    state, once = simulator.step(start(simulator, 500), slate)
    assert 0.5 < float(once.consumed.float().mean()) < 0.8  # sigmoid(0.7) = 0.67
    for shift in (0, 3, 7):
        state, again = simulator.step(state, slate.roll(shift, 1))
        assert not again.consumed.any()
        assert torch.equal(again.examined.roll(-shift, 1), ~once.consumed)


def test_wants_do_not_depend_on_position_or_step(simulate: Simulate, wants: Any) -> None:
    simulator = simulate(ATTENTIVE, wants(torch.zeros(300)))
    slate = torch.arange(10).repeat(50, 1)
    _, straight = simulator.step(start(simulator, 50), slate)
    _, turned = simulator.step(start(simulator, 50), slate.flip(1))
    assert torch.equal(straight.consumed, turned.consumed.flip(1))
    assert torch.equal(straight.quantity, turned.quantity.flip(1))
    later, _ = simulator.step(start(simulator, 50), slate + 50)
    _, later_outcome = simulator.step(later, slate)
    assert torch.equal(straight.consumed, later_outcome.consumed)


@pytest.mark.parametrize("model", ["position", "cascade"])
def test_examination_by_position(simulate: Simulate, model: str, wants: Any) -> None:
    overrides = {"behaviour.examination.model": model, "behaviour.examination.decay": 0.8}
    simulator = simulate(overrides, wants(NEVER))
    _, outcome = simulator.step(s := start(simulator, 8000), first(s))
    expected = 0.8 ** torch.arange(10)
    assert float((outcome.examined.float().mean(0) - expected).abs().max()) < 0.02
    if model == "cascade":  # a scan has no gaps
        assert (outcome.examined.int().diff(dim=1) <= 0).all()


def test_a_cascade_stops_at_the_first_purchase(simulate: Simulate, wants: Any) -> None:
    overrides = {"behaviour.examination.model": "cascade", "behaviour.examination.decay": 1.0}
    simulator = simulate(overrides, wants(torch.full((300,), -0.7)))  # sigmoid(-0.7 + 0.7) = 0.5
    _, outcome = simulator.step(s := start(simulator, 8000), first(s))
    assert int(outcome.consumed.sum(1).max()) == 1
    expected = 0.5 ** torch.arange(10)
    assert float((outcome.examined.float().mean(0) - expected).abs().max()) < 0.02
    assert (outcome.quantity[~outcome.consumed] == 0).all()


def test_reexamination_decays_with_every_refusal(simulate: Simulate, wants: Any) -> None:
    overrides = {"behaviour.examination.decay": 1.0, "behaviour.reexamination": 0.5, "behaviour.patience": 0.0}
    simulator = simulate(overrides, wants(NEVER))
    slate = torch.arange(10).repeat(4000, 1)
    state = start(simulator, 4000)
    refusals = torch.zeros(4000, 10)
    for _ in range(3):
        state, outcome = simulator.step(state, slate)
        for count in range(3):
            some = refusals == count
            if some.sum() > 1000:
                assert abs(float(outcome.examined[some].float().mean()) - 0.5**count) < 0.02
        refusals += outcome.examined


def test_expected_reward_is_what_is_earned(simulate: Simulate, wants: Any) -> None:
    """Calibration of the oracle, also after refusals while wants rise: the posterior of the one draw."""
    users = wants(torch.linspace(-3, 0, 300), drift=0.8)
    simulator = simulate({**ATTENTIVE, "behaviour.patience": 0.0}, users)
    slate = torch.arange(0, 300, 30).repeat(20_000, 1)
    state = start(simulator, 20_000)
    for _ in range(4):
        expected = simulator.expected_reward(state, slate)
        state, outcome = simulator.step(state, slate)
        assert abs(float(expected.sum(1).mean() - outcome.reward.mean())) < 0.03
        assert (simulator.expected_reward(state, slate)[outcome.consumed] == 0).all()  # bought already


def test_expected_reward_is_zero_after_a_refusal_at_the_same_odds(simulate: Simulate, wants: Any) -> None:
    simulator = simulate({**ATTENTIVE, "behaviour.patience": 0.0}, wants(torch.zeros(300)))
    slate = torch.arange(10).repeat(100, 1)
    state, _ = simulator.step(start(simulator, 100), slate)
    assert (simulator.expected_reward(state, slate) == 0).all()
    assert (simulator.expected_reward(state, slate + 10) > 0.6).all()


def test_revenue_and_liked_terms(simulate: Simulate, world: World, films: World, wants: Any) -> None:
    users = wants(torch.full((300,), -0.7))
    shop = simulate({"objective": {"terms": {"revenue": 2.0, "purchase": 1.0}}, **ATTENTIVE}, users)
    slate = torch.arange(10).repeat(20_000, 1)
    state = start(shop, 20_000)
    expected = shop.expected_reward(state, slate)
    state, outcome = shop.step(state, slate)
    price = torch.tensor((world.items["price"] * (1 - world.items["discount"])).to_numpy()[:10], dtype=torch.float32)
    assert torch.allclose(outcome.terms["revenue"], (outcome.quantity * price).sum(1), atol=1e-3)
    assert torch.allclose(outcome.reward, 2 * outcome.terms["revenue"] + outcome.terms["purchase"], atol=1e-3)
    # The stand-in's quantities have mean 1.5, its appraisal says 1 / 0.5 = 2.
    assert abs(float((expected[:, 0].mean() - 1) / (2 * price[0] * 2 * 0.5 + 0.5 - 1)) - 1) < 1e-3
    cinema = simulate(ATTENTIVE, users, world=films)
    state = start(cinema, 20_000)
    expected = cinema.expected_reward(state, slate)
    _, outcome = cinema.step(state, slate)
    assert torch.equal(outcome.reward, (outcome.rating >= 4).sum(1).float())
    assert abs(float(expected.sum(1).mean() - outcome.reward.mean())) < 0.05
    with pytest.raises(ScenarioError, match=r"'liked'.*does not apply to world 'tiny'.*purchase, revenue"):
        Simulator(world, load_scenario("default", {"objective": {"terms": {"liked": 1.0}}}), user_model=users)


def test_a_refused_slate_leaves_the_state_alone(simulate: Simulate) -> None:
    simulator = simulate()
    state = start(simulator, 4)
    before = state.clone().flatten()
    good = first(state)
    bad = good.clone()
    bad[2, 3] = 300
    for slate, message in [
        (bad, r"item row 300 at position 3 of lane 2 must lie in 0..299"),
        (good[:, :9], r"shape \(4, 10\), got \(4, 9\)"),
        (good.int(), r"torch.int64, got torch.int32"),
    ]:
        with pytest.raises(ActionError, match=message):
            simulator.step(state, slate)
    after = state.flatten()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_an_exception_inside_a_step_leaves_the_state_alone(simulate: Simulate, wants: Any) -> None:
    class Broken(wants):
        def transition(self, *args: object) -> None:  # type: ignore[override]
            raise RuntimeError("broken")

    simulator = simulate(users=Broken())
    state = start(simulator, 4)
    before = state.clone().flatten()
    with pytest.raises(RuntimeError, match="broken"):
        simulator.step(state, first(state))
    after = state.flatten()
    assert all(torch.equal(before[name], after[name]) for name in before)
