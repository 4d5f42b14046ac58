"""Plans: bound to a state while it lives."""

from __future__ import annotations

import gc

import numpy as np
import torch

from recgym.envs.single import RecEnv
from recgym.scenario import load_scenario
from recgym.simulation.simulator import Simulator
from recgym.worlds.world import World


def test_a_step_works_in_place_and_its_outcome_is_the_callers(world: World) -> None:
    simulator = Simulator(world, load_scenario("default"))
    state = simulator.reset(torch.arange(5), torch.zeros(5, dtype=torch.int64))
    slate = state.candidates[:, :10].to(torch.int64)
    after, first = simulator.step(state, slate)
    kept = first.consumed.clone(), first.terminated.clone(), first.reward.clone()
    again, _ = simulator.step(after, slate.flip(1))
    assert after is state and again is state
    assert all(torch.equal(a, b) for a, b in zip(kept, (first.consumed, first.terminated, first.reward), strict=True))


def test_a_plan_ends_with_its_state(world: World) -> None:
    simulator = Simulator(world, load_scenario("default"))
    state = simulator.reset(torch.arange(3), torch.zeros(3, dtype=torch.int64))
    simulator.step(state, state.candidates[:, :10].to(torch.int64))
    assert simulator._plans.known(state) is not None
    del state
    gc.collect()
    assert not simulator._plans._plans


def test_an_episode_begins_anew_in_the_memory_of_the_last(world: World) -> None:
    used, fresh = RecEnv(world), RecEnv(world)
    used.reset(seed=1)
    memory = used.state.hidden.cache.data_ptr()
    for _ in range(4):
        if used.step(np.arange(10))[2]:
            break
    a, _ = used.reset(seed=5)
    b, _ = fresh.reset(seed=5)
    assert used.state.hidden.cache.data_ptr() == memory
    for _ in range(3):
        assert all(np.array_equal(a[key], b[key]) for key in a)
        a, b = used.step(np.arange(10))[0], fresh.step(np.arange(10))[0]
