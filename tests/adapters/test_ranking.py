"""While learning to rank, what a trip has shown already comes last, and the rest as the actions say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from recgym.adapters.ranking import RankedVecEnv
from recgym.agents.protocol import agent_class, parse_config, top_slate
from recgym.agents.training import training_env
from recgym.envs.actions import linear_scores
from recgym.scenario import load_scenario
from recgym.testing.worlds import tiny_world
from recgym.worlds.world import World

LANES = 6


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    path: Path = tmp_path_factory.mktemp("worlds") / "tiny"
    return tiny_world(path, num_items=150)  # few items, so that candidates come back


@pytest.mark.parametrize("name", ["ppo", "sac"])
@pytest.mark.parametrize("actions", ["scores", "weights"])
def test_what_was_shown_comes_last(world: World, name: str, actions: str) -> None:
    cls = agent_class(name)
    agent: Any = cls(world, parse_config(cls, {"num_envs": LANES, "actions": actions}))
    scenario = load_scenario("default", {"behaviour": {"patience": 0.0}})
    venv = agent.wrap(training_env(agent, world, scenario))
    assert isinstance(venv, RankedVecEnv)
    venv.seed(0)
    venv.reset()
    rng, again = np.random.default_rng(0), 0
    for _ in range(5):
        seen = torch.as_tensor(venv.last_seen["candidates"])
        action = rng.uniform(-1, 1, (LANES, venv.action_space.shape[0])).astype(np.float32)
        before = action.copy()
        items = torch.as_tensor(venv.env.state.candidates).long()
        scores = torch.as_tensor(action) if actions == "scores" else linear_scores(torch.as_tensor(action), seen)
        if actions == "weights":  # the weight of what was shown is not up to the action
            scores = scores - torch.as_tensor(action[:, agent._shown : agent._shown + 1]) * seen[:, :, agent._shown]
        expected = items.gather(1, torch.as_tensor(top_slate(venv.env.slate_size, agent.shown_last(scores, seen))))
        venv.step(action)
        assert np.array_equal(action, before)  # what SB3 keeps of the decision is what it decided
        shown = np.asarray(venv.last_info["slate"])
        assert np.array_equal(shown, expected.numpy())
        again += int((seen[:, :, agent._shown] > 0).sum())
    assert again > 0
    venv.close()


def test_slates_learn_by_themselves_what_becomes_of_items_shown(world: World) -> None:
    cls = agent_class("ppo")
    agent: Any = cls(world, parse_config(cls, {"num_envs": LANES}))
    assert agent.repeats and not isinstance(
        agent.wrap(training_env(agent, world, load_scenario("default"))), RankedVecEnv
    )
