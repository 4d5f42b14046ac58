"""Looking ahead: known answers, nothing disturbed, and what clairvoyance would be."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from recgym.errors import RecGymError
from recgym.simulation.planning import Policy, look_ahead, ranked
from recgym.simulation.simulator import Simulator
from recgym.simulation.state import State

Simulate = Callable[..., Simulator]
OPEN = {
    "behaviour.examination.decay": 1.0,
    "behaviour.reexamination": 1.0,
    "behaviour.patience": 0.0,
    "behaviour.lift": 0.0,
    "actions": {"num_candidates": 300, "candidates": {"own": 0, "popular": 0, "uniform": 300}},
}
BAIT = torch.arange(300) < 150  # the items that sell best, and to a user who then buys nothing more


def policy(allowed: Tensor) -> Policy:
    """The best of the items allowed, bool [N]."""

    def slates(simulator: Simulator, state: State) -> Tensor:
        items = state.candidates.to(torch.int64)
        expected = simulator.expected_reward(state, items).masked_fill(~allowed[items], -1.0)
        return items.gather(1, expected.argsort(dim=1, descending=True, stable=True)[:, :10])

    return slates


@pytest.fixture
def trap(simulate: Simulate, wants: Any) -> Simulator:
    class Trapped(wants):
        def transition(self, state: Any, slate: Any, response: Any, visit: Any) -> Any:
            caught = (response.consumed & BAIT[slate.items]).any(dim=1)
            return dataclasses.replace(state, mood=torch.where(caught, -80.0, state.mood))

    logits = torch.where(BAIT, 1.0, 0.0)
    return simulate({**OPEN, "episode.max_slates": 4}, Trapped(logits))


def play(simulator: Simulator, chosen: Policy, lanes: Tensor) -> Tensor:
    """What lanes with these seeds earn over all their slates, [B]."""
    state = simulator.reset(lanes, torch.zeros_like(lanes))
    total = torch.zeros(len(lanes))
    for _ in range(simulator.session.max_slates):
        state, outcome = simulator.step(state, chosen(simulator, state))
        total += outcome.reward
    return total


def test_looking_ahead_keeps_off_the_bait_until_the_last_slate(trap: Simulator) -> None:
    lanes = torch.arange(200)
    greedy, patient = ranked(10), policy(~BAIT)

    def plan(simulator: Simulator, state: State) -> Tensor:
        return look_ahead(simulator, state, [greedy, patient], depth=4, copies=16)

    earned = {
        name: play(trap, chosen, lanes) for name, chosen in (("greedy", greedy), ("patient", patient), ("plan", plan))
    }
    means = {name: float(total.mean()) for name, total in earned.items()}
    sold, bait = 10 * 0.5, 10 * torch.sigmoid(torch.tensor(1.0)).item()
    assert means["greedy"] == pytest.approx(bait, abs=0.4)
    assert means["patient"] == pytest.approx(4 * sold, abs=0.5)
    assert means["plan"] == pytest.approx(3 * sold + bait, abs=0.5)
    assert float((earned["plan"] - earned["patient"]).mean()) > 1.5


def test_depth_one_is_greedy(trap: Simulator) -> None:
    state = trap.reset(torch.arange(50), torch.zeros(50, dtype=torch.int64))
    greedy = ranked(10)
    seen = look_ahead(trap, state, [greedy, policy(~BAIT)], depth=1, copies=200)
    assert (seen == greedy(trap, state)).all(dim=1).float().mean() > 0.98


def test_the_state_stays_as_it_is_and_lanes_do_not_depend_on_each_other(trap: Simulator) -> None:
    state = trap.reset(torch.arange(9), torch.zeros(9, dtype=torch.int64))
    state, _ = trap.step(state, ranked(10)(trap, state))
    before = state.clone().flatten()
    choices = [ranked(10), policy(~BAIT)]
    whole = look_ahead(trap, state, choices, depth=2, copies=3)
    assert all(torch.equal(value, before[name]) for name, value in state.flatten().items())
    for lanes in ([4], [8, 0, 3]):
        rows = torch.tensor(lanes)
        assert torch.equal(look_ahead(trap, state.select(rows), choices, depth=2, copies=3), whole[rows])


def test_the_same_luck_is_clairvoyant_and_fresh_luck_is_not(simulate: Simulate, wants: Any) -> None:
    """With even odds for everything there is nothing to plan: whoever earns more has looked at the draws to come."""
    simulator = simulate({**OPEN, "episode.max_slates": 1}, wants(torch.zeros(300)))
    choices = [policy(torch.arange(300) % 5 == remainder) for remainder in range(5)]
    lanes = torch.arange(2000)
    single = torch.stack([play(simulator, choice, lanes) for choice in choices])
    same = play(simulator, lambda one, state: look_ahead(one, state, choices, depth=1, luck="same"), lanes)
    fresh = play(simulator, lambda one, state: look_ahead(one, state, choices, depth=1, copies=8), lanes)
    assert torch.equal(same, single.max(dim=0).values)
    assert float(same.mean() - single[0].mean()) > 1.0
    assert abs(float(fresh.mean() - single[0].mean())) < 0.15


def test_a_slate_holds_at_most_so_many_of_a_group(trap: Simulator) -> None:
    group = torch.arange(300) % 7
    state = trap.reset(torch.arange(20), torch.zeros(20, dtype=torch.int64))
    for limit in (2, 3):
        slates = ranked(limit, group)(trap, state)
        assert all(len(row.unique()) == 10 for row in slates)
        assert max(int(torch.bincount(group[row]).max()) for row in slates) == limit
        assert BAIT[slates].all()  # there is enough bait in every group
    slates = ranked(1, group)(trap, state)  # seven groups fill seven places, the best of the rest the others
    assert all(len(group[row[:7]].unique()) == 7 for row in slates)
    assert torch.equal(ranked(10, group)(trap, state), ranked(1)(trap, state))


def test_counting_days_tells_frequent_visits_from_rare_ones(simulate: Simulate, wants: Any) -> None:
    class PutOff(wants):  # whoever buys bait stays away for a month
        def transition(self, state: Any, slate: Any, response: Any, visit: Any) -> Any:
            caught = (response.consumed & BAIT[slate.items]).any(dim=1)
            return dataclasses.replace(state, mood=torch.where(caught, 1e-6, 0.0))

        def away(self, state: Any, record: Any, uniforms: Tensor, hazard: Tensor) -> tuple[Tensor, Tensor]:
            return torch.where(state.mood > 0, 30, 1).to(torch.int32), torch.zeros(len(uniforms), dtype=torch.bool)

    settings = {**OPEN, "episode": {"kind": "horizon", "max_slates": 1, "horizon_days": 1000}}
    simulator = simulate(settings, PutOff(torch.where(BAIT, 1.0, 0.0)))
    state = simulator.reset(torch.arange(20), torch.zeros(20, dtype=torch.int64))
    choices = [ranked(10), policy(~BAIT)]
    assert BAIT[look_ahead(simulator, state, choices, depth=8, copies=8)].all()
    assert not BAIT[look_ahead(simulator, state, choices, depth=8, copies=8, days=8)].any()


BAD: list[tuple[list[Policy], dict[str, int]]] = [
    ([], {}),
    ([ranked(1)], {"depth": 0}),
    ([ranked(1)], {"copies": 0}),
    ([ranked(1)], {"days": 0}),
]


@pytest.mark.parametrize(("policies", "given"), BAD)
def test_bad_arguments(trap: Simulator, policies: list[Policy], given: dict[str, int]) -> None:
    state = trap.reset(torch.arange(2), torch.zeros(2, dtype=torch.int64))
    with pytest.raises(RecGymError, match="look_ahead needs a policy, depth >= 1, copies >= 1 and days"):
        look_ahead(trap, state, policies, **{"depth": 2, **given})
