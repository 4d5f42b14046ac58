"""Each learner reaches 90% of the optimum on the identity recommender in under a minute (slow)."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest

from recgym.agents import ActContext, Agent, make_agent
from recgym.agents.collaborative import CollaborativeAgent
from recgym.agents.features.slates import OBSERVED
from recgym.agents.ppo import PPOAgent, PPOConfig
from recgym.agents.protocol import agent_class, parse_config
from recgym.agents.scoring import ScoringAgent
from recgym.registration import AGENTS
from recgym.testing.identity import identity_env
from recgym.testing.worlds import tiny_world
from recgym.worlds.world import World

LANES, K = 64, 10
FROM_A_ROLLOUT = [name for name in AGENTS.names() if issubclass(agent_class(name), ScoringAgent | CollaborativeAgent)]


@pytest.fixture(scope="module")
def big_world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return tiny_world(tmp_path_factory.mktemp("worlds") / "big", num_items=1000, num_users=60)


def mean_reward(agent: Agent, world: World, num_steps: int = 20) -> float:
    env = identity_env(world, LANES, observation=agent.observes)
    observations, _ = env.reset(seed=10**6)
    total = 0.0
    for step in range(num_steps):
        context = ActContext(np.arange(LANES), np.full(LANES, step), K)
        slates = agent.act(observations, context, env=env if agent.privileged else None)
        observations, rewards, *_ = env.step(slates)
        total += float(rewards.mean())
    return total / num_steps


def learned(world: World, seed: int) -> PPOAgent:
    agent = PPOAgent(world, PPOConfig(num_envs=LANES, batch_size=256), seed)
    agent.train(identity_env(world, LANES, observation=agent.observes), 40_000)
    return agent


@pytest.mark.slow
def test_ppo_reaches_ninety_percent_of_the_optimum_in_a_minute(big_world: World) -> None:
    optimum = mean_reward(make_agent("greedy", big_world), big_world)
    assert optimum > 9.5  # enough wanted candidates to fill a slate
    assert mean_reward(make_agent("random", big_world), big_world) < 0.4 * optimum
    start = time.process_time()
    agent = learned(big_world, seed=0)
    assert time.process_time() - start < 60
    assert mean_reward(agent, big_world) >= 0.9 * optimum


RL = {"num_envs": LANES}
# Settings and slates: enough, and not much more.
LEARNERS: dict[str, tuple[dict[str, Any], int]] = {
    "epsilon_greedy": ({}, 10_000),
    "linucb": ({}, 10_000),
    "thompson": ({}, 10_000),
    "thompson linear": ({"likelihood": "linear"}, 10_000),
    "thompson diagonal": ({"covariance": "diagonal"}, 10_000),
    "bcq": ({"updates": 500}, 6_000),
    "cql": ({"updates": 500}, 6_000),
    "dqn": (RL, 20_000),
    "qrdqn": (RL, 20_000),
    "maskable_ppo": ({**RL, "batch_size": 256}, 30_000),
    "reinforce": (RL, 40_000),
    "slateq": (RL, 30_000),
    "wolpertinger": (RL, 40_000),
    "sac": (RL, 20_000),
    "hac": (RL, 20_000),
}


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("learner", list(LEARNERS))
def test_learners_reach_ninety_percent_of_the_optimum_in_a_minute(big_world: World, learner: str, seed: int) -> None:
    settings, steps = LEARNERS[learner]
    cls = agent_class(learner.split()[0])
    agent = cls(big_world, parse_config(cls, settings), seed)
    optimum = mean_reward(make_agent("greedy", big_world), big_world)
    assert mean_reward(agent, big_world) < 0.6 * optimum  # nothing was learned yet
    start = time.process_time()
    agent.train(identity_env(big_world, LANES, observation=agent.observes, action_mode=agent.action_mode), steps)
    assert time.process_time() - start < 60
    assert mean_reward(agent, big_world) >= 0.9 * optimum


@pytest.mark.slow
@pytest.mark.parametrize(("actions", "steps"), [("scores", 40_000), ("weights", 80_000)])
def test_ppo_learns_scores_and_weights_too(big_world: World, actions: str, steps: int) -> None:
    agent = PPOAgent(big_world, PPOConfig(num_envs=LANES, batch_size=256, actions=actions), 0)
    optimum = mean_reward(make_agent("greedy", big_world), big_world)
    agent.train(identity_env(big_world, LANES, observation=agent.observes, action_mode=actions), steps)
    assert mean_reward(agent, big_world) >= 0.9 * optimum


@pytest.mark.slow
def test_sac_learns_scores_too(big_world: World) -> None:
    cls = agent_class("sac")
    agent = cls(big_world, parse_config(cls, {**RL, "actions": "scores"}), 0)
    optimum = mean_reward(make_agent("greedy", big_world), big_world)
    agent.train(identity_env(big_world, LANES, observation=agent.observes, action_mode="scores"), 20_000)
    assert mean_reward(agent, big_world) >= 0.9 * optimum


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_ppo_learns_from_every_seed(big_world: World, seed: int) -> None:
    optimum = mean_reward(make_agent("greedy", big_world), big_world)
    assert mean_reward(learned(big_world, seed), big_world) >= 0.9 * optimum


@pytest.mark.slow
@pytest.mark.parametrize("name", FROM_A_ROLLOUT)
def test_learners_from_a_logged_rollout_reach_ninety_percent_in_a_minute(name: str, big_world: World) -> None:
    """Of the identity users' wants the world's own log says nothing: only the rollout does."""
    optimum = mean_reward(make_agent("greedy", big_world), big_world)
    cls = agent_class(name)
    settings = {"batch_size": 64, "epochs": 6} if issubclass(cls, ScoringAgent) else {}
    agent = cls(big_world, parse_config(cls, settings), seed=0)
    start = time.process_time()
    slates = 6_000 if issubclass(cls, ScoringAgent) else 12_000  # filters know no features: they meet every item
    agent.train(identity_env(big_world, LANES, observation=OBSERVED), slates)
    assert time.process_time() - start < 60
    assert mean_reward(agent, big_world) >= 0.9 * optimum
