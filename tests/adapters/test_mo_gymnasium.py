"""Vector rewards, with MO-Gymnasium's own wrappers."""

from __future__ import annotations

import pickle

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

from recgym.adapters.mo_gymnasium import MORecEnv, MORecVectorEnv, mo_make, mo_make_vec
from recgym.errors import UnknownNameError
from recgym.scenario import Scenario, load_scenario
from recgym.testing.worlds import tiny_world
from recgym.worlds.world import World

WEIGHTS = {"purchase": 1.0, "revenue": 0.5, "unfairness": -2.0}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return tiny_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def scenario() -> Scenario:
    return load_scenario("default", {"objective": {"terms": WEIGHTS}, "items.provider": "brand"})


def test_rewards_are_the_terms_and_weighted_they_are_the_reward(world: World, scenario: Scenario) -> None:
    env = MORecEnv(world, scenario)
    plain = MORecVectorEnv(world, scenario, num_envs=3)
    assert env.objectives == plain.objectives == tuple(WEIGHTS)
    env.reset(seed=4)
    plain.reset(seed=4)
    signs = np.array([1.0, 1.0, -1.0], np.float32)
    weights = np.array(list(WEIGHTS.values())) * signs
    total = np.zeros(3)
    for _ in range(12):
        _, reward, terminated, truncated, info = env.step(np.arange(10))
        _, rewards, *_, infos = plain.step(np.tile(np.arange(10), (3, 1)))
        assert env.reward_space.contains(reward) and rewards.shape == (3, 3)
        assert np.array_equal(reward, rewards[0])
        assert np.array_equal(rewards[:, 2], -infos["terms/unfairness"])
        scalar = sum(WEIGHTS[name] * info[f"terms/{name}"] for name in WEIGHTS)
        assert float(weights @ reward) == pytest.approx(scalar, abs=1e-5)
        total += reward
        if terminated or truncated:
            break
    assert total[0] >= 0 and total[2] < 0


def test_torch_rewards_and_pickles(world: World, scenario: Scenario) -> None:
    env = MORecVectorEnv(world, scenario, num_envs=4, output="torch", autoreset_mode=AutoresetMode.SAME_STEP)
    env.reset(seed=0)
    twin = pickle.loads(pickle.dumps(env))
    slate = np.tile(np.arange(10), (4, 1))
    assert (env.step(slate)[1] == twin.step(slate)[1]).all()


def test_made_by_id_and_unknown_ids() -> None:
    assert mo_make("ecommerce-v0").objectives == ("purchase",)
    assert mo_make_vec("ecommerce-v0", num_envs=2).reward_space.shape == (1,)
    with pytest.raises(UnknownNameError, match="Did you mean 'ecommerce-v0'"):
        mo_make("ecomerce-v0")


def test_mo_gymnasium_takes_them(world: World, scenario: Scenario) -> None:
    mo_gymnasium = pytest.importorskip("mo_gymnasium")
    from mo_gymnasium.wrappers import LinearReward
    from mo_gymnasium.wrappers.vector import MOSyncVectorEnv

    gymnasium.register("mo-shop-v0", entry_point=MORecEnv, kwargs={"world": world, "scenario": scenario})
    try:
        env = LinearReward(mo_gymnasium.make("mo-shop-v0"), weight=np.array([1.0, 0.5, 2.0]))
        env.reset(seed=0)
        _, reward, *_, info = env.step(np.arange(10))
        assert np.isscalar(reward) and info["vector_reward"].shape == (3,)
        envs = MOSyncVectorEnv([lambda: mo_gymnasium.make("mo-shop-v0") for _ in range(2)])
        envs.reset(seed=0)
        assert envs.step(np.tile(np.arange(10), (2, 1)))[1].shape == (2, 3)
    finally:
        del gymnasium.registry["mo-shop-v0"]
