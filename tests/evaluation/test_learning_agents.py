"""Agents that learn online in an evaluation: frozen by default; else rows that do not depend on how it is cut."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from recgym.agents import Agent, make_agent
from recgym.agents.online import Transitions
from recgym.evaluation import stage
from recgym.evaluation.runner import evaluate
from recgym.worlds.world import World


def run(world: World, agent: Agent, **changes: Any) -> pd.DataFrame:
    return evaluate(world, agents=agent, **{"users": 20, "seeds": 2, "progress": False, **changes})


def tensors(agent: Agent) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in agent.tensors().items()}


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[Transitions]:
    """What agents of class LinUCB are told."""
    from recgym.agents.linucb import LinUCBAgent

    seen: list[Transitions] = []
    update = LinUCBAgent.update

    def noting(agent: LinUCBAgent, transitions: Transitions) -> None:
        seen.append(transitions)
        update(agent, transitions)

    monkeypatch.setattr(LinUCBAgent, "update", noting)
    return seen


def test_a_trained_agent_is_frozen(world: World, told: list[Transitions]) -> None:
    agent = make_agent("linucb", world)
    before = tensors(agent)
    first = run(world, agent)
    assert not told
    assert all(torch.equal(tensor, before[name]) for name, tensor in agent.tensors().items())
    pd.testing.assert_frame_equal(first, run(world, agent))


def test_one_that_adapts_is_told_of_every_slate_once(world: World, told: list[Transitions]) -> None:
    rows = run(world, make_agent("linucb", world, adapt=True))
    assert sum(len(one.slates) for one in told) == rows["num_steps"].sum()
    assert sum(one.rewards.sum() for one in told) == pytest.approx(rows["reward"].sum())
    assert sum(one.ended.sum() for one in told) == len(rows)
    assert all(one.examined is None for one in told)


@pytest.mark.parametrize("name", ["epsilon_greedy", "linucb", "thompson"])
def test_rows_of_one_that_adapts_do_not_depend_on_the_chunks(
    world: World, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "LEARNING_BLOCK", 8)
    agent = make_agent(name, world, adapt=True)
    before = tensors(agent)
    rows = run(world, agent)
    for chunk in (3, 20):
        pd.testing.assert_frame_equal(run(world, agent, chunk=chunk), rows)
    assert all(torch.equal(tensor, before[key]) for key, tensor in agent.tensors().items())
    # Nor on the other blocks and seeds: the first block alone is the same.
    alone = run(world, agent, users=8, seeds=[1])
    part = rows[(rows["seed"] == 1) & rows["user"].isin(alone["user"])].reset_index(drop=True)
    pd.testing.assert_frame_equal(alone, part)
    assert not np.array_equal(rows["num_consumed"], run(world, make_agent(name, world))["num_consumed"])
