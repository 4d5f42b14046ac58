"""TorchRL's own wrappers around our environments: its checks pass, and what it collects is what we answer."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode

import recgym
from recgym.testing.worlds import tiny_world
from recgym.worlds.world import World

envs = pytest.importorskip("torchrl.envs")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return tiny_world(tmp_path_factory.mktemp("worlds") / "tiny")


def test_one_user_through_its_wrapper_is_the_same_user(world: World) -> None:
    wrapped = envs.GymWrapper(recgym.make(world=world))
    envs.check_env_specs(wrapped)
    wrapped.set_seed(3)
    torch.manual_seed(0)  # of the random policy
    played = wrapped.rollout(12, break_when_any_done=False)
    slates = played["action"].argmax(-1).numpy()  # one-hot [T, K, M] -> [T, K]
    env = recgym.make(world=world)
    env.reset(seed=3)
    observation, _ = env.reset()  # TorchRL resets to seed, and again to begin
    for step, slate in enumerate(slates):
        assert np.array_equal(played["user"][step].numpy(), observation["user"])
        observation, reward, terminated, truncated, _ = env.step(slate)
        assert float(played["next", "reward"][step]) == reward
        assert bool(played["next", "done"][step]) == (terminated or truncated)
        if terminated or truncated:
            observation, _ = env.reset()


def test_a_batch_of_users_is_collected_in_one_call(world: World) -> None:
    vec = recgym.make_vec(world=world, num_envs=8, autoreset_mode=AutoresetMode.DISABLED)
    wrapped = envs.GymWrapper(vec)
    assert wrapped.batch_size == torch.Size([8])
    envs.check_env_specs(wrapped)
    played = wrapped.rollout(20, break_when_any_done=False)
    assert played["next", "reward"].shape == (8, 20, 1) and played["next", "reward"].sum() > 0
    assert played["next", "done"].any()  # some users left, and others came


def test_a_module_of_tensordict_acts_and_the_id_is_known(world: World) -> None:
    nn = pytest.importorskip("tensordict.nn")

    def best(candidates: torch.Tensor) -> torch.Tensor:
        rows = candidates[..., 16].topk(10).indices  # the 10 most popular
        return torch.nn.functional.one_hot(rows, candidates.shape[-2])

    assert "recgym/ecommerce-v0" in gymnasium.registry
    env = envs.GymEnv("recgym/ecommerce-v0")
    played = env.rollout(5, policy=nn.TensorDictModule(best, ["candidates"], ["action"]))
    assert played["action"].sum() == 10 * len(played)
