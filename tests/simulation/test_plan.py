"""Plans: bound to a state while it lives, the same on any number of threads and at any size."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode

from recgym.envs.single import RecEnv
from recgym.envs.vector import RecVectorEnv
from recgym.scenario import load_scenario
from recgym.simulation.simulator import Simulator
from recgym.worlds.world import World


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def play(world: World, lanes: int, threads: int, mode: AutoresetMode, seed: int = 0, steps: int = 9) -> list:
    """Everything that comes out of some steps, and the state at the end."""
    torch.set_num_threads(threads)
    vec = RecVectorEnv(world, num_envs=lanes, autoreset_mode=mode, output="torch")
    vec.reset(seed=seed)
    slate = torch.arange(10).repeat(lanes, 1) * 7
    out = []
    for _ in range(steps):
        observation, reward, terminated, truncated, info = vec.step(slate)
        out.append((*observation.values(), reward, terminated, truncated, info["consumed"], info["quantity"]))
    return [torch.cat([values.reshape(lanes, -1) for values in column], dim=1) for column in zip(*out, strict=True)]


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
def test_lanes_are_the_same_on_two_threads_and_in_a_batch_of_4096(
    world: World, mode: AutoresetMode, threads: None
) -> None:
    whole = play(world, 4096, 2, mode)
    for first, count, number in ((0, 1, 1), (17, 33, 2), (2040, 16, 1), (4089, 7, 2)):
        part = play(world, count, number, mode, seed=first)
        for value, same in zip(whole, part, strict=True):
            assert torch.equal(value[first : first + count], same)
    assert float(whole[3].sum()) > 1000  # episodes ended and restarted


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
