"""The SB3 adapter against what SB3 expects of a ``VecEnv``."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gymnasium.vector import AutoresetMode
from stable_baselines3 import PPO
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import VecNormalize

from recgym.adapters.plackett_luce import PlackettLucePolicy
from recgym.adapters.sb3 import SB3VecEnv
from recgym.envs.vector import RecVectorEnv
from recgym.errors import ActionError, RecGymError
from recgym.scenario import load_scenario
from recgym.testing.worlds import tiny_world
from recgym.worlds.world import World

B, M, K = 16, 100, 10
# Users who leave soon, and a short limit: both kinds of ends happen.
SCENARIO = {"episode": {"max_slates": 4}, "behaviour": {"patience": 0.3}}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return tiny_world(tmp_path_factory.mktemp("worlds") / "tiny")


def environment(world: World, mode: AutoresetMode = AutoresetMode.SAME_STEP, **kwargs: Any) -> RecVectorEnv:
    scenario = load_scenario("default", SCENARIO)
    return RecVectorEnv(world=world, scenario=scenario, num_envs=B, autoreset_mode=mode, **kwargs)


@pytest.fixture
def venv(world: World) -> SB3VecEnv:
    return SB3VecEnv(environment(world))


def slates(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).random((B, M)).argsort(axis=1)[:, :K]


def test_rewards_are_scaled_for_learning_and_told_as_they_are(world: World) -> None:
    plain, scaled = (SB3VecEnv(environment(world)) for _ in range(2))
    scaled.reward_scale = 0.25
    for venv in (plain, scaled):
        venv.seed(3)
        venv.reset()
    ends = 0
    for step in range(4):
        _, rewards, dones, infos = plain.step(slates(step))
        _, less, _, told = scaled.step(slates(step))
        np.testing.assert_allclose(less, rewards * 0.25)
        np.testing.assert_allclose(scaled.credits(), plain.credits() * 0.25)
        for lane in np.flatnonzero(dones):
            assert told[lane]["episode"]["r"] == infos[lane]["episode"]["r"]
            ends += 1
    assert ends


def test_terminal_observations_and_time_limits(venv: SB3VecEnv, world: World) -> None:
    """Up to its first end, a lane sees what it sees in an environment that restarts one step later."""
    later = environment(world, AutoresetMode.NEXT_STEP)
    venv.seed(3)
    observations: Any = venv.reset()
    expected, _ = later.reset(seed=3)
    alive, ends = np.ones(B, dtype=bool), []
    for step in range(4):
        for key in expected:
            np.testing.assert_array_equal(observations[key][alive], expected[key][alive])
        observations, rewards, dones, infos = venv.step(slates(step))
        expected, wanted, terminated, truncated, _ = later.step(slates(step))
        assert rewards.dtype == np.float32 and rewards.shape == dones.shape == (B,)
        np.testing.assert_array_equal(rewards[alive], wanted[alive])
        np.testing.assert_array_equal(dones[alive], (terminated | truncated)[alive])
        for lane in np.flatnonzero(alive):
            assert ("terminal_observation" in infos[lane]) == bool(dones[lane])
            if dones[lane]:
                for key, values in infos[lane]["terminal_observation"].items():
                    np.testing.assert_array_equal(values, expected[key][lane])
                assert infos[lane]["TimeLimit.truncated"] == bool(truncated[lane])
                assert infos[lane]["episode"]["l"] == step + 1
                assert not np.array_equal(observations["candidates"][lane], expected["candidates"][lane])
                ends.append(bool(truncated[lane]))
        alive &= ~dones
    assert not alive.any() and len(set(ends)) == 2


def test_observations_are_not_overwritten_by_the_next_step(venv: SB3VecEnv) -> None:
    """SB3 stores an observation only after the step that follows it."""
    before: Any = venv.reset()
    copies = {key: values.copy() for key, values in before.items()}
    venv.step(slates(0))
    for key, values in before.items():
        np.testing.assert_array_equal(values, copies[key])


def test_episode_returns_are_sums_of_rewards(venv: SB3VecEnv) -> None:
    venv.reset()
    total, length = np.zeros(B), np.zeros(B)
    for step in range(12):
        _, rewards, dones, infos = venv.step(slates(step))
        total += rewards
        length += 1
        for lane in np.flatnonzero(dones):
            assert infos[lane]["episode"]["r"] == pytest.approx(total[lane])
            assert infos[lane]["episode"]["l"] == length[lane]
        total[dones] = length[dones] = 0


def test_seeds_and_options_reach_the_next_reset_only(venv: SB3VecEnv) -> None:
    users = np.arange(B)
    assert venv.seed(7) == list(range(7, 7 + B))
    venv.set_options({"users": users})
    first: Any = venv.reset()
    np.testing.assert_array_equal(venv.last_info["user"], users)
    second: Any = venv.reset()
    assert not np.array_equal(venv.last_info["user"], users)
    assert not np.array_equal(first["candidates"], second["candidates"])
    venv.seed(7)
    venv.set_options({"users": users})
    again: Any = venv.reset()
    np.testing.assert_array_equal(again["candidates"], first["candidates"])
    with pytest.raises(RecGymError, match="one dict"):
        venv.set_options([{}])


def test_attributes_and_methods(venv: SB3VecEnv) -> None:
    assert venv.get_attr("num_envs") == [B] * B
    assert venv.get_attr("num_candidates", [0, 2]) == [M, M]
    venv.set_attr("note", "hello", indices=3)
    assert venv.get_attr("note", 0) == ["hello"]
    assert venv.has_attr("world") and not venv.has_attr("nothing")
    assert venv.env_method("close", indices=[4]) == [None]
    assert venv.env_is_wrapped(Monitor) == [True] * B
    assert venv.env_is_wrapped(VecNormalize, [1]) == [False]


def test_bad_use_is_named(venv: SB3VecEnv, world: World) -> None:
    venv.reset()
    with pytest.raises(ActionError, match="step_async"):
        venv.step_wait()
    with pytest.raises(RecGymError, match="SAME_STEP"):
        SB3VecEnv(environment(world, AutoresetMode.NEXT_STEP))


def test_evaluate_policy_and_ppo_take_it_as_it_is(venv: SB3VecEnv) -> None:
    model = PPO(PlackettLucePolicy, venv, n_steps=4, batch_size=16, n_epochs=1, policy_kwargs={"hidden": 8})
    model.set_logger(Logger(None, []))  # SB3 would make itself a temporary directory
    model.learn(B * 4)
    mean, _ = evaluate_policy(model, venv, n_eval_episodes=B)
    assert 0 <= mean < 4 * K
