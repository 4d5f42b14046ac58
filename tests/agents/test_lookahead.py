"""Look-ahead as an agent: what the planner finds, as positions among the candidates."""

from __future__ import annotations

import numpy as np
import torch

from recgym.agents import ActContext, make_agent
from recgym.agents.lookahead import positions
from recgym.envs.vector import RecVectorEnv
from recgym.simulation.planning import look_ahead, ranked
from recgym.worlds.world import World


def test_positions_are_where_items_stand() -> None:
    candidates = torch.tensor([[5, 9, 2, 7], [1, 0, 3, 8]])
    assert positions(candidates, torch.tensor([[7, 5], [0, 8]])).tolist() == [[3, 0], [1, 3]]


def test_shows_what_the_planner_finds_and_leaves_the_environment_alone(world: World) -> None:
    agent = make_agent("lookahead", world, depth=2, copies=4, limits=(2,))
    env = RecVectorEnv(world=world, num_envs=6, observation=agent.observes)
    observations, _ = env.reset(seed=3)
    before = env.get_state()
    context = ActContext(env.lane_seeds, np.zeros(6, np.int64), 10)
    slates = agent.act(observations, context, env=env)
    assert all(torch.equal(tensor, before[name]) for name, tensor in env.get_state().items())
    names = world.items["category"].astype(str).to_numpy()
    group = torch.from_numpy(np.unique(names, return_inverse=True)[1].astype(np.int64))
    found = look_ahead(env.simulator, env.state, [ranked(world.num_items), ranked(2, group)], depth=2, copies=4)
    shown = np.take_along_axis(observations["candidate_items"], slates, axis=1)
    assert np.array_equal(shown, found.numpy())


def test_without_alternatives_it_is_greedy(world: World) -> None:
    agent, greedy = make_agent("lookahead", world, depth=1, copies=1, limits=()), make_agent("greedy", world)
    env = RecVectorEnv(world=world, num_envs=6, observation=agent.observes)
    observations, _ = env.reset(seed=4)
    context = ActContext(env.lane_seeds, np.zeros(6, np.int64), 10)
    expected = greedy.act(observations, context, env=env)
    assert np.array_equal(agent.act(observations, context, env=env), expected)
