"""Several trips: the calendar, the record, satisfaction and never coming back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from recgym.scenario import load_scenario
from recgym.simulation.record import own_history
from recgym.simulation.session import Session
from recgym.simulation.simulator import Simulator
from recgym.worlds.world import World

Simulate = Callable[..., Simulator]
HORIZON = {
    "episode.kind": "horizon",
    "episode.horizon_days": 30,
    "behaviour.examination.decay": 1.0,
    "behaviour.patience": 1.0,
}


def _seeds(lanes: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.arange(lanes), torch.zeros(lanes, dtype=torch.int64)


def test_trips_follow_each_other_until_the_horizon(simulate: Simulate, world: World, wants: Any) -> None:
    simulator = simulate(HORIZON, wants(torch.full((300,), 40.0), intended=10, gap=7))
    state = simulator.reset(*_seeds(16))
    last_day = torch.tensor(world.users["last_day"].to_numpy())[state.user]
    assert (state.visit.day == last_day + 7).all() and (state.visit.gap_days == 7).all()
    slate = torch.arange(10).repeat(16, 1)
    for trip in range(5):
        assert (state.visit.trip == trip).all() and (state.visit.step == 0).all()
        counts, _ = own_history(state.record, state.visit.day, slate)
        if trip == 0:
            start = counts
        assert torch.equal(counts, start + trip)
        state, outcome = simulator.step(state, slate)
        assert outcome.trip_ended.all() and (outcome.gap_days == 7).all() and not outcome.terminated.any()
        assert outcome.truncated.all() == (trip == 4)  # day 35 is past the horizon of 30
        assert (state.visit.day - state.start_day == 7 * (trip + 1)).all()
        assert (state.visit.bought == 0).all() and (state.memory.items == -1).all()
    days = own_history(state.record, state.visit.day, slate)[1]
    assert (days == 7).all()
    assert (state.record.recent[:, :10].sort(1).values == slate).all()


def test_users_lost_for_good_terminate(simulate: Simulate, wants: Any) -> None:
    simulator = simulate(HORIZON, wants(torch.full((300,), -40.0), lost=0.25))
    state = simulator.reset(*_seeds(4000))
    _, outcome = simulator.step(state, torch.arange(10).repeat(4000, 1))
    assert outcome.trip_ended.all()
    assert abs(float(outcome.terminated.float().mean()) - 0.25) < 0.03
    assert not (outcome.terminated & outcome.truncated).any()


def test_only_lanes_whose_trip_ended_move_on(simulate: Simulate, wants: Any) -> None:
    simulator = simulate({**HORIZON, "behaviour.patience": 0.5}, wants(torch.full((300,), -40.0)))
    state = simulator.reset(*_seeds(200))
    before = state.clone()
    state, outcome = simulator.step(state, torch.arange(10).repeat(200, 1))
    stayed = ~outcome.trip_ended
    assert 0 < int(stayed.sum()) < 200
    assert torch.equal(state.visit.day[stayed], before.visit.day[stayed])
    assert (state.visit.step[stayed] == 1).all() and (state.visit.trip[stayed] == 0).all()
    assert (state.visit.trip[~stayed] == 1).all() and (outcome.gap_days[stayed] == 0).all()
    # A trip without a purchase leaves no trace in the record.
    assert torch.equal(state.record.num_trips, before.record.num_trips)
    assert torch.equal(state.record.items, before.record.items)


def test_the_hazard_is_centred_on_the_reference(simulate: Simulate, wants: Any) -> None:
    session = Session(load_scenario("default"), 0.4)
    satisfaction = torch.tensor([0.4, 0.0, 1.0])
    hazard = session.hazard(satisfaction)
    assert hazard[0] == 1.0 and hazard[1] < 1.0 < hazard[2]
    assert torch.allclose(session.satisfy(satisfaction, torch.tensor([1, 0, 3])), torch.tensor([0.52, 0.0, 1.0]))
    users = wants(torch.full((300,), 40.0), intended=1)
    simulator = simulate(HORIZON, users)
    state = simulator.reset(*_seeds(5))
    assert (users.hazards[0] == 1).all()
    simulator.step(state, torch.arange(10).repeat(5, 1))
    assert torch.allclose(users.hazards[1], torch.full((5,), 0.6 - 0.5).mul(0.5).exp())


def test_step_limit_truncates(simulate: Simulate, wants: Any) -> None:
    overrides = {"episode.kind": "horizon", "episode.max_steps": 2, "behaviour.patience": 0.0}
    simulator = simulate(overrides, wants())
    state = simulator.reset(*_seeds(8))
    state, outcome = simulator.step(state, torch.arange(10).repeat(8, 1))
    assert not outcome.truncated.any()
    _, outcome = simulator.step(state, torch.arange(10).repeat(8, 1))
    assert outcome.truncated.all()
