"""Credit by position: what it adds up to, that it stays unbiased and quietens the gradient, and SB3's PPO with it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode
from stable_baselines3 import PPO
from stable_baselines3.common.logger import Logger

from recgym.adapters.credit import SlateRolloutBuffer, by_position, split_reward
from recgym.adapters.plackett_luce import PlackettLuce, PlackettLucePolicy
from recgym.adapters.sb3 import SB3VecEnv
from recgym.envs.vector import RecVectorEnv
from recgym.testing.worlds import tiny_world

T, B, K = 50, 40, 5


def test_a_reward_is_split_among_what_was_consumed() -> None:
    consumed = np.array([[True, False, True, False], [False, False, True, False], [False] * 4])
    split = split_reward(np.array([3.0, 0.5, -1.0]), consumed)
    np.testing.assert_allclose(split, [[1.5, 0, 1.5, 0], [0, 0, 0.5, 0], [-0.25] * 4])


def rewards(seed: int = 0) -> np.ndarray:
    chance = np.array([0.5, 0.4, 0.3, 0.2, 0.1])
    return (np.random.default_rng(seed).random((T, B, K)) < chance).astype(np.float32)


def test_without_a_future_a_position_answers_for_its_own_reward_alone() -> None:
    own = rewards()
    values = np.full((T, B), 1.5, np.float32)
    found = by_position(own, own.sum(2) - values, values)
    np.testing.assert_allclose(found, own - own.mean((0, 1)) + own.sum(2).mean() - 1.5, atol=1e-5)


def test_the_future_is_credited_to_every_position_in_full() -> None:
    own = rewards()
    values, future = np.zeros((T, B), np.float32), np.random.default_rng(1).random((T, B), np.float32)
    with_future = by_position(own, own.sum(2) + future, values)
    without = by_position(own, own.sum(2), values)
    np.testing.assert_allclose(with_future - without, np.repeat(future[:, :, None], K, axis=2), atol=1e-5)


def test_nothing_earned_is_no_error() -> None:
    assert np.isfinite(by_position(np.zeros((T, B, K)), np.zeros((T, B)), np.zeros((T, B)))).all()


def test_the_gradient_is_that_of_whole_slates_with_less_noise() -> None:
    """Two estimates of one gradient, from 4,000 slates each, 30 times over."""
    worth = torch.linspace(0.05, 0.6, 12)
    generator = torch.Generator().manual_seed(0)
    gradients: dict[str, list[torch.Tensor]] = {"slate": [], "position": []}
    n = 4000
    for _ in range(30):
        scores = torch.zeros(12, requires_grad=True)
        slates = torch.rand(n, 12, generator=generator).argsort(1)[:, :K]  # scores of zero: uniform
        own = (torch.rand(n, K, generator=generator) < worth[slates]).float()
        total, values = own.sum(1), torch.full((n,), float(K * worth.mean()))
        policy = PlackettLuce(K).proba_distribution(scores.expand(n, -1))
        by = torch.from_numpy(by_position(own[None].numpy(), (total - values)[None].numpy(), values[None].numpy()))[0]
        for name, loss in (
            ("slate", ((total - values) * policy.log_prob(slates)).mean()),
            ("position", (by * policy.log_prob_by_position(slates)).sum(1).mean()),
        ):
            gradients[name].append(torch.autograd.grad(loss, scores, retain_graph=True)[0])
    slate, position = torch.stack(gradients["slate"]), torch.stack(gradients["position"])
    # Positions above the choice cannot depend on it, those below lose what it takes: the same direction, not identical.
    assert torch.nn.functional.cosine_similarity(slate.mean(0), position.mean(0), dim=0) > 0.98
    assert position.var(0).sum() < 0.5 * slate.var(0).sum()


@pytest.fixture(scope="module")
def venv(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SB3VecEnv]:
    world = tiny_world(tmp_path_factory.mktemp("worlds") / "tiny")
    venv = SB3VecEnv(RecVectorEnv(world=world, num_envs=8, autoreset_mode=AutoresetMode.SAME_STEP))
    yield venv
    venv.close()


def test_credits_add_up_to_the_reward_that_was_handed_out(venv: SB3VecEnv) -> None:
    venv.seed(1)
    venv.reset()
    ended = False
    for step in range(25):
        slates = np.random.default_rng(step).random((8, 100)).argsort(axis=1)[:, :10]
        _, reward, done, _ = venv.step(slates)
        before = reward.copy()
        reward += 100.0  # as SB3 adds the value of what a time limit cut off
        np.testing.assert_allclose(venv.credits().sum(1), before, atol=1e-5)
        assert (venv.credits()[~venv.last_info["consumed"]] == 0).all()
        ended = ended or bool(done.any())
    assert ended  # restarts within the step keep the credits of the slate that ended the episode


def test_sb3_trains_on_it(venv: SB3VecEnv) -> None:
    model = PPO(
        PlackettLucePolicy,
        venv,
        n_steps=4,
        batch_size=16,
        n_epochs=2,
        policy_kwargs={"hidden": 8, "by_position": True},
        rollout_buffer_class=SlateRolloutBuffer,
        device="cpu",
    )
    buffer: Any = model.rollout_buffer
    buffer.watch(venv.credits)
    model.set_logger(Logger(None, []))
    before = model.policy.scorer.direct.detach().clone()
    model.learn(64)
    assert buffer.log_probs.shape == (4 * 8, 10) and buffer.advantages.shape == (4 * 8, 10)
    assert torch.isfinite(model.policy.scorer.direct).all() and not torch.equal(model.policy.scorer.direct, before)
