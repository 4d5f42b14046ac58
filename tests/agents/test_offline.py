"""BCQ's filter, CQL's penalty and the value of a slot against answers worked out by hand; learning from given logs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode

from recgym.agents import Agent, make_agent
from recgym.agents.bcq import allowed
from recgym.agents.cql import conservatism
from recgym.agents.exploration import Behaviour
from recgym.agents.offline import Batch, slot_value
from recgym.data.rollouts import collect
from recgym.envs.vector import RecVectorEnv
from recgym.errors import AgentError, DataError, UnknownNameError
from recgym.testing.worlds import tiny_world
from recgym.worlds.world import World

OFFLINE = ["bcq", "cql"]
SMALL = {"updates": 6, "batch_size": 8, "num_envs": 4, "hidden": 8}


def environment(world: World, agent: Agent) -> RecVectorEnv:
    mode = AutoresetMode.SAME_STEP
    return RecVectorEnv(world=world, num_envs=4, observation=agent.observes, autoreset_mode=mode)


def test_bcq_allows_what_the_log_shows_often_enough() -> None:
    shares = torch.tensor([[0.5, 0.3, 0.15, 0.05], [0.25, 0.25, 0.25, 0.25]])
    logits = shares.log() + 3.0  # a softmax does not see the constant
    assert allowed(logits, 0.29).tolist() == [[True, True, True, False], [True] * 4]
    assert allowed(logits, 0.31).tolist() == [[True, True, False, False], [True] * 4]
    assert allowed(logits, 1.0).tolist() == [[True, False, False, False], [True] * 4]
    assert allowed(logits, 0.0).all()


def test_the_worth_of_a_slot_is_the_mean_of_the_best_allowed() -> None:
    choose = torch.tensor([[3.0, 2.0, 1.0, 9.0], [1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 3.0, 4.0]])
    value = torch.tensor([[10.0, 20.0, 30.0, 40.0]] * 3)
    open_to = torch.tensor([[True, True, True, False], [False, True, False, False], [False] * 4])
    assert slot_value(choose, value, open_to, 2).tolist() == [15.0, 20.0, 0.0]
    assert slot_value(value, value, open_to, 1).tolist() == [30.0, 20.0, 0.0]  # with slates of one: the max


def test_cqls_penalty_and_its_gradient() -> None:
    q = torch.tensor([[1.0, 2.0, 0.0, -1.0], [0.5, 0.5, 0.5, 0.5]], requires_grad=True)
    slate = torch.tensor([[1, 3], [0, 2]])
    penalty = conservatism(q, slate)
    by_hand = np.mean([np.log(np.exp([1, 2, 0, -1]).sum()) - 0.5, np.log(4 * np.exp(0.5)) - 0.5])
    assert penalty.item() == pytest.approx(by_hand, abs=1e-6)
    penalty.backward()
    shown = torch.zeros(2, 4).scatter_(1, slate, 0.5)
    torch.testing.assert_close(q.grad, (q.detach().softmax(1) - shown) / 2)  # lowers what Q likes, lifts what was shown


def batch(world: World, goes_on: float) -> Batch:
    generator = torch.Generator().manual_seed(0)

    def features(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=generator)

    from recgym.envs.features import CANDIDATE_FEATURES, USER_FEATURES

    num_user, num_candidate = len(USER_FEATURES(world)), len(CANDIDATE_FEATURES(world))
    return Batch(
        user=features(3, num_user),
        candidates=features(3, 7, num_candidate),
        slate=torch.tensor([[0, 1], [2, 3], [4, 5]]),
        credit=torch.tensor([[1.0, 0.0], [0.0, 0.0], [1.0, 1.0]]),
        next_user=features(3, num_user),
        next_candidates=features(3, 7, num_candidate),
        next_fresh=torch.ones(3, 7, dtype=torch.bool),
        goes_on=torch.full((3,), goes_on),
    )


@pytest.mark.parametrize("goes_on", [0.0, 1.0])
def test_the_losses_are_those_of_the_papers(world: World, goes_on: float) -> None:
    given = batch(world, goes_on)
    cql = make_agent("cql", world, alpha=0.3, gamma=0.5)
    q = cql.network["q"](given.user, given.candidates)
    after = cql.network["target"](given.next_user, given.next_candidates).topk(2, dim=1).values.mean(1)
    target = given.credit + 0.5 * goes_on * after[:, None]
    squares = 0.5 * (q.gather(1, given.slate) - target).square().mean()
    torch.testing.assert_close(cql.loss(given), squares + 0.3 * conservatism(q, given.slate))

    bcq = make_agent("bcq", world, gamma=0.5, threshold=0.9, logit_penalty=0.0)
    torch.nn.init.normal_(bcq.network["behaviour"].direct, generator=torch.Generator().manual_seed(1))
    networks, next_state = bcq.network, (given.next_user, given.next_candidates)
    likely = networks["behaviour"](*next_state).softmax(1)
    masked = networks["q"](*next_state).masked_fill(likely / likely.amax(1, keepdim=True) <= 0.9, -torch.inf)
    best = masked.topk(2, dim=1)
    values = networks["target"](*next_state).gather(1, best.indices)
    finite = best.values.isfinite()
    assert 0 < (~masked.isfinite()).sum() < masked.numel()
    future = (values * finite).sum(1) / finite.sum(1)
    target = given.credit + 0.5 * goes_on * future[:, None]
    q = networks["q"](given.user, given.candidates).gather(1, given.slate)
    huber = torch.nn.functional.huber_loss(q, target)
    imitation = -networks["behaviour"](given.user, given.candidates).log_softmax(1).gather(1, given.slate).mean()
    torch.testing.assert_close(bcq.loss(given), huber + imitation)


def same(one: Agent, two: Agent) -> bool:
    return all(torch.equal(tensor, two.tensors()[key]) for key, tensor in one.tensors().items())


@pytest.mark.parametrize("name", OFFLINE)
def test_learns_the_same_from_given_logs_as_from_its_own(
    world: World, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = make_agent(name, world, behaviour="frequency", exploration=0.2, **SMALL)
    env = environment(world, own)
    own.train(env, 40)
    policy = Behaviour(make_agent("frequency", world), 0.2)
    rollouts = collect(policy, env, 40, keys=own.observes, seed=own.seed)
    given = make_agent(name, world, logs=str(rollouts.save(tmp_path / "logs")), **SMALL)
    given.train(env, 40)
    assert same(own, given)
    assert not same(own, make_agent(name, world, **SMALL))
    pytest.importorskip("minari")
    from recgym.adapters.minari import to_minari

    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    to_minari(rollouts, "recgym/frequency-v0")
    from_minari = make_agent(name, world, logs="recgym/frequency-v0", **SMALL)
    from_minari.train(env, 40)
    assert same(own, from_minari)


def test_unusable_logs_are_refused(world: World, tmp_path: Path) -> None:
    agent = make_agent("cql", world)
    env = environment(world, agent)
    rollouts = collect(Behaviour(make_agent("popularity", world), 1.0), env, 8, keys=("user", "candidates"))

    def learn_from(change: Any = None, world: World = world, **config: Any) -> None:
        path = rollouts.save(tmp_path / "logs")
        about = json.loads((path / "rollouts.json").read_text())
        (path / "rollouts.json").write_text(json.dumps({**about, **(change or {})}))
        learner = make_agent("cql", world, **{"logs": str(path), **SMALL, **config})
        learner.train(environment(world, learner), 8)

    learn_from()
    with pytest.raises(AgentError, match="needs 'user' with the features of this world"):
        learn_from({"observation_layout": {"user": ["age"], "candidates": []}})
    with pytest.raises(AgentError, match="logs items of world 'tiny'"):
        learn_from(world=tiny_world(tmp_path / "other", num_items=301, num_users=40))
    with pytest.raises(DataError, match="'recgym/nothing-v0'"):
        learn_from(logs="recgym/nothing-v0")
    with pytest.raises(UnknownNameError, match="'populrity'.*'popularity'"):
        learn_from(logs=None, behaviour="populrity")
    with pytest.raises(AgentError, match="'random' draws its slates itself"):
        learn_from(logs=None, behaviour="random")
