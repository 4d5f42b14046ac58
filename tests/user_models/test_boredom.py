"""The hand-written reference users: boredom wears off, no lane depends on another, and environments take them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import recgym
from recgym.evaluation.catalogue import Catalogue
from recgym.evaluation.rollout import play
from recgym.registration import AGENTS
from recgym.scenario import load_scenario
from recgym.simulation.simulator import Simulator
from recgym.testing.worlds import tiny_world
from recgym.user_models.boredom import MEAN_BASKET, MEAN_GAP, MEMORY, NUM_TOPICS, SEEN_LIMIT, BoredUsers
from recgym.worlds.world import World

ATTENTIVE = {
    "behaviour.examination.decay": 1.0,
    "behaviour.reexamination": 1.0,
    "behaviour.patience": 0.0,
    "episode.kind": "horizon",
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return tiny_world(tmp_path_factory.mktemp("worlds") / "tiny", num_items=600, num_users=50)


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> World:
    return tiny_world(tmp_path_factory.mktemp("worlds") / "films", kind="rating", name="films", num_users=50)


def expected(simulator: Simulator, state: Any, topic: int) -> Tensor:
    """Expected purchases [B] among the same 40 unseen items of a topic."""
    items = (simulator.user_model.topics == topic).nonzero()[-40:, 0]
    return simulator.expected_reward(state, items.expand(len(state.seed), -1).contiguous()).sum(1)


def test_an_overshown_topic_bores_and_recovers(world: World) -> None:
    simulator = Simulator(world, load_scenario("default", ATTENTIVE), user_model=BoredUsers(world))
    topics = simulator.user_model.topics
    zero = torch.zeros(200, dtype=torch.int64)
    state = simulator.reset(torch.arange(200), zero)
    keen = state.hidden.affinity[:, 0] >= 0.5
    assert keen.any()
    fresh = expected(simulator, state, 0)
    own = (topics == 0).nonzero()[:30, 0].view(3, 1, 10)
    for slate in own[:2]:
        state, _ = simulator.step(state, slate.expand(200, -1).contiguous())
    bored = state.hidden.seen[:, 0] >= SEEN_LIMIT
    assert bored.float().mean() > 0.8  # all but those whose trip ended meanwhile
    tired = expected(simulator, state, 0)
    both = bored & keen
    assert tired[both].mean() < 0.3 * fresh[both].mean()
    # A mixed diet for a while, and interest is back where it was.
    other = torch.cat([(topics == topic).nonzero()[:2, 0] for topic in range(1, 6)])
    for _ in range(6):
        state, _ = simulator.step(state, other.expand(200, -1).contiguous())
    assert (state.hidden.seen[:, 0] < SEEN_LIMIT).all()
    assert torch.equal(expected(simulator, state, 0)[both], fresh[both])


def test_what_was_seen_fades_by_slate_and_by_day(world: World) -> None:
    users = BoredUsers(world)
    simulator = Simulator(world, load_scenario("default"), user_model=users)
    state = simulator.reset(torch.arange(3), torch.zeros(3, dtype=torch.int64))
    hidden = type(state.hidden)(state.hidden.affinity, torch.full((3, NUM_TOPICS), 10.0))
    gaps = torch.tensor([0, 1, 5], dtype=torch.int32)
    visit = type(state.visit)(**{**vars(state.visit), "gap_days": gaps})
    back = users.arrive(hidden, state.record, visit).seen[:, 0]
    assert back.tolist() == pytest.approx([10.0, 10.0 * MEMORY, 10.0 * MEMORY**5], rel=1e-6)


def test_tables_are_what_they_claim(world: World) -> None:
    users = BoredUsers(world)
    assert torch.equal(users.vectors.sum(1), torch.ones(world.num_items))
    assert torch.equal(users.vectors.argmax(1), users.topics)
    assert (users.vectors > 0).sum(1).unique().tolist() == [1, 2]
    assert sorted((users.affinities > 0).sum(1).unique().tolist()) == [3, 4, 5]
    assert users.affinities[users.affinities > 0].min() >= 0.5
    for table in (users.vectors, users.affinities):
        assert torch.equal(table * 64, (table * 64).round())
    categories = world.items["category"].to_numpy()
    assert all(len(set(users.topics[categories == name].tolist())) == 1 for name in set(categories))


def test_gaps_and_sizes_follow_their_distributions(world: World) -> None:
    users = BoredUsers(world)
    uniforms = (torch.arange(100_000) + 0.5) / 100_000
    sizes = users.intend(None, uniforms)  # type: ignore[arg-type]
    assert sizes.float().mean() == pytest.approx(MEAN_BASKET, rel=0.01)
    assert sizes.min() == 1
    one = torch.ones(100_000)
    gaps, gone = users.away(None, None, uniforms, one)  # type: ignore[arg-type]
    assert gaps.float().mean() == pytest.approx(MEAN_GAP - 0.5, rel=0.02)  # whole days, rounded down
    assert not gone.any()
    sooner, _ = users.away(None, None, uniforms, 2 * one)  # type: ignore[arg-type]
    assert (sooner >= 10).float().mean() == pytest.approx(float((gaps >= 10).float().mean()) ** 2, abs=2e-3)


def test_environments_take_it_by_name(world: World) -> None:
    env = recgym.make_vec(
        world=world, num_envs=64, user_model="boredom", action_mode="catalogue", observation=("user",)
    )
    env.reset(seed=1)
    env.action_space.seed(0)
    bought = 0.0
    for _ in range(5):
        observation, reward, _, _, _ = env.step(env.action_space.sample())
        bought += float(reward.sum())
    assert set(observation) == {"user"}
    assert bought > 0
    assert env.state.hidden.seen.max() > 0
    alone = recgym.make(world=world, user_model="boredom", action_mode="catalogue")
    alone.reset(seed=3)
    env.reset(seed=0)
    slate = np.arange(10)
    assert alone.step(slate)[1] == env.step(np.tile(slate, (64, 1)))[1][3]


def test_agents_are_rolled_out_on_it(world: World) -> None:
    simulator = Simulator(world, load_scenario("default"), user_model=BoredUsers(world))
    users = np.arange(world.num_users)
    bought = {}
    for name in ("random", "greedy"):
        agent = AGENTS.load(name)(world)
        played = play(agent, simulator, users, np.arange(world.num_users) + 7, catalogue=Catalogue.of(simulator))
        bought[name] = played.episodes["num_consumed"].mean() / played.episodes["num_steps"].mean()
    assert bought["greedy"] > 1.5 * bought["random"]
