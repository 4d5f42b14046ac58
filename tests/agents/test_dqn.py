"""What Q-learning promises: bounds of what can be earned, and the loss between them."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from recgym.agents.dqn import BoundedDQN, DQNAgent, value_bounds, value_loss, values
from recgym.agents.protocol import make_agent, parse_config
from recgym.agents.training import training_env
from recgym.scenario import load_scenario
from recgym.worlds.world import World

SMALL = {"num_envs": 4, "num_steps": 2, "batch_size": 8, "checkpoint_rollouts": 2, "calibration_steps": 2}


def bounds(world: World, gamma: float = 0.5, **changes: Any) -> tuple[float, float] | None:
    scenario = load_scenario("default", {"episode": {"max_slates": 2}, **changes})
    env = training_env(make_agent("dqn", world, **SMALL), world, scenario)
    try:
        return value_bounds(env, gamma)
    finally:
        env.close()


def test_what_can_be_earned_is_known_where_no_term_is_without_bound(world: World) -> None:
    assert bounds(world) == (0.0, 1.5)  # two slates of one item, the second at half its worth
    assert bounds(world, gamma=0.0) == (0.0, 1.0)
    assert bounds(world, gamma=1.0, episode={"kind": "horizon", "max_steps": 7}) == (0.0, 7.0)
    assert bounds(world, objective={"terms": {"purchase": 2.0, "novelty": 0.5}}) == (0.0, 3.75)
    unfair = {"items": {"provider": "brand"}, "objective": {"terms": {"purchase": 1.0, "unfairness": -2.0}}}
    assert bounds(world, **unfair) == (-3.0, 1.5)


def test_what_is_paid_or_comes_later_has_no_bound(world: World) -> None:
    assert bounds(world, objective={"terms": {"purchase": 1.0, "revenue": 0.1}}) is None
    delayed = {"behaviour": {"delay": {"share": 0.3}}, "episode": {"kind": "horizon", "max_steps": 2}}
    assert bounds(world, **delayed) is None
    assert bounds(world, **delayed, objective={"terms": {"click": 1.0, "purchase": 0.0}}) == (0.0, 1.5)


@pytest.mark.parametrize("limits", [(0.0, 12.5), (-30.0, 15.0), None])
def test_the_loss_is_least_at_the_mean_of_the_targets(limits: tuple[float, float] | None) -> None:
    targets = torch.tensor([[0.0], [0.0], [0.0], [12.0]])  # skewed: Huber's loss is least elsewhere
    output = torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.SGD([output], 0.5)
    for _ in range(500):
        optimizer.zero_grad()
        value_loss(output.expand(4)[:, None], targets, limits).backward()
        optimizer.step()
    assert values(output, limits).item() == pytest.approx(3.0, abs=1e-3)


def test_targets_out_of_bounds_are_taken_for_the_bound() -> None:
    output = torch.tensor([[0.3]])
    beyond, bound = (value_loss(output, torch.tensor([[target]]), (0.0, 1.0)) for target in (1.7, 1.0))
    assert beyond == bound


def test_a_trained_dqn_knows_its_bounds_and_ranks_by_value(world: World) -> None:
    agent = DQNAgent(world, parse_config(DQNAgent, SMALL), 0)
    env = training_env(agent, world, load_scenario("default"))
    agent.train(env, 64)
    model = agent.model
    assert isinstance(model, BoundedDQN) and model.bounds == value_bounds(env, agent.config.gamma)
    assert model._n_updates > 0
    user, candidates = agent.inputs(env.reset(seed=0)[0])
    with torch.no_grad():
        logits = agent.scores(user, candidates)
        q = values(logits, model.bounds)
    assert 0.0 <= q.min() and q.max() <= 1.0  # of a slate: the discount is 0
    assert torch.equal(logits.argmax(1), q.argmax(1))
