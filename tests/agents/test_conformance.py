"""Every registered agent: valid slates, determinism, independence of the batch, save and load, honest refusals."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode

from recgym.agents import ActContext, Agent, AgentConfig, make_agent
from recgym.agents.protocol import agent_class, parse_config
from recgym.envs.vector import RecVectorEnv
from recgym.errors import AgentError, UnknownNameError
from recgym.random import derive_seeds
from recgym.registration import AGENTS
from recgym.testing.worlds import tiny_world
from recgym.worlds.world import World

B, K = 12, 10
NAMES = AGENTS.names()
SMALL = {"num_envs": 4, "num_steps": 4, "batch_size": 8, "checkpoint_rollouts": 1, "calibration_steps": 2, "updates": 3}


def environment(world: World, agent: Agent, num_envs: int = B, **kwargs: Any) -> RecVectorEnv:
    return RecVectorEnv(world=world, scenario="default", num_envs=num_envs, observation=agent.observes, **kwargs)


def seeds(num_lanes: int = B) -> np.ndarray:
    return derive_seeds(5, torch.arange(num_lanes)).numpy()


def play(agent: Agent, world: World, lanes: np.ndarray, num_steps: int = 4) -> np.ndarray:
    """Slates [num_steps, lanes, K] of an agent on the lanes with these seeds."""
    env = environment(world, agent, len(lanes), autoreset_mode=AutoresetMode.SAME_STEP)
    observations, _ = env.reset(seed=[int(seed) for seed in lanes])
    slates = []
    for step in range(num_steps):
        context = ActContext(lanes, np.full(len(lanes), step, dtype=np.int64), K)
        slates.append(agent.act(observations, context, env=env if agent.privileged else None))
        observations, *_ = env.step(slates[-1])
    return np.stack(slates)


def small(name: str, world: World, seed: int = 0) -> Agent:
    """An untrained agent with whatever of ``SMALL`` it has a setting for."""
    cls = agent_class(name)
    return cls(world, parse_config(cls, {k: v for k, v in SMALL.items() if k in cls.Config.model_fields}), seed)


def make(name: str, world: World, seed: int = 0) -> Agent:
    """A fitted agent; one that learns in the environment has had a minute portion of it."""
    agent = make_agent(name, world, seed)
    if agent.learns == "environment":
        agent = small(name, world, seed)
        same_step = {"action_mode": agent.action_mode, "autoreset_mode": AutoresetMode.SAME_STEP}
        agent.train(environment(world, agent, 4, **same_step), 32)
    return agent


@pytest.fixture(scope="module", params=NAMES)
def agent(request: pytest.FixtureRequest, world: World) -> Agent:
    return make(request.param, world)


def test_declares_itself(agent: Agent) -> None:
    assert agent.id in NAMES
    assert agent.observes and agent.learns in ("nothing", "log", "environment")
    assert agent.Config.model_config["extra"] == "forbid"


def test_slates_are_valid(agent: Agent, world: World) -> None:
    slates = play(agent, world, seeds())
    assert slates.shape == (4, B, K) and slates.dtype == np.int64
    assert slates.min() >= 0 and slates.max() < 100
    assert (np.diff(np.sort(slates, axis=-1), axis=-1) > 0).all()


def test_a_lane_has_the_same_slates_alone_reversed_and_in_the_batch(agent: Agent, world: World) -> None:
    whole = play(agent, world, seeds())
    np.testing.assert_array_equal(play(agent, world, seeds()[::-1].copy())[:, ::-1], whole)
    np.testing.assert_array_equal(play(agent, world, seeds()[3:4])[:, 0], whole[:, 3])
    np.testing.assert_array_equal(play(agent, world, seeds()[5:10]), whole[:, 5:10])


def test_one_seed_twice_is_the_same_agent(agent: Agent, world: World) -> None:
    again = make(agent.id, world)
    np.testing.assert_array_equal(play(again, world, seeds()), play(agent, world, seeds()))


def test_save_and_load_give_the_same_slates(agent: Agent, world: World, tmp_path: Path) -> None:
    loaded = make_agent(agent.save(tmp_path / "run"), world)
    assert type(loaded) is type(agent) and loaded.config == agent.config and loaded.seed == agent.seed
    np.testing.assert_array_equal(play(loaded, world, seeds()), play(agent, world, seeds()))


def test_takes_torch_observations(agent: Agent, world: World) -> None:
    env = environment(world, agent)
    observations, _ = env.reset(seed=1)
    context = ActContext(seeds(), np.zeros(B, dtype=np.int64), K)
    handed = env if agent.privileged else None
    expected = agent.act(observations, context, env=handed)
    tensors = {key: torch.as_tensor(values) for key, values in observations.items()}
    np.testing.assert_array_equal(agent.act(tensors, context, env=handed), expected)


@pytest.mark.parametrize("name", NAMES)
def test_leaves_the_global_generators_alone(name: str, world: World) -> None:
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()  # noqa: NPY002
    make(name, world)
    assert random.getstate() == before[0]
    assert np.random.get_state()[1].tolist() == before[1]  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), before[2])


@pytest.mark.parametrize("name", NAMES)
def test_the_saved_form_is_json_and_safetensors(name: str, world: World, tmp_path: Path) -> None:
    make_agent(name, world).save(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "agent.json",
        "agent.safetensors",
    ]  # an agent that SB3 trained adds model.zip


@pytest.mark.parametrize("name", NAMES)
def test_another_vocabulary_is_refused(name: str, world: World, tmp_path: Path) -> None:
    path = make_agent(name, world).save(tmp_path / "run")
    other = tiny_world(tmp_path / "other", num_items=301, num_users=40)
    with pytest.raises(AgentError, match="another item vocabulary"):
        make_agent(path, other)


@pytest.mark.parametrize("name", ["frequency", "ppo"])
def test_another_layout_is_refused(name: str, world: World, tmp_path: Path) -> None:
    path = make_agent(name, world).save(tmp_path)
    edit(path, lambda manifest: manifest["observation_layout"]["candidates"].remove("price"))
    with pytest.raises(
        AgentError, match=r"observation layout of 'candidates' \(missing here: \[\], new here: \['price'"
    ):
        make_agent(path, world)


def test_another_action_mode_is_refused(world: World, tmp_path: Path) -> None:
    path = make_agent("random", world).save(tmp_path)
    edit(path, lambda manifest: manifest.update(action_mode="scores"))
    with pytest.raises(AgentError, match="action mode 'scores'"):
        make_agent(path, world)


def edit(path: Path, change: Any) -> None:
    manifest = json.loads((path / "agent.json").read_text())
    change(manifest)
    (path / "agent.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize("name", NAMES)
def test_other_users_with_the_same_items_are_a_legitimate_transfer(name: str, world: World, tmp_path: Path) -> None:
    path = make_agent(name, world).save(tmp_path / "run")
    other = tiny_world(tmp_path / "other", num_items=300, num_users=25)
    loaded = make_agent(path, other)
    fresh = make_agent(name, other)
    np.testing.assert_array_equal(play(loaded, other, seeds()), play(fresh, other, seeds()))


def test_bad_files_are_named(world: World, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(AgentError, match=r"empty holds no saved agent: agent\.json is missing"):
        make_agent(tmp_path / "empty", world)
    path = make_agent("popularity", world).save(tmp_path / "run")
    (path / "agent.safetensors").write_bytes(b"x" * 20)
    with pytest.raises(AgentError, match=r"agent\.safetensors cannot be read"):
        make_agent(path, world)
    edit(path, lambda manifest: manifest.update(format_version=99))
    with pytest.raises(AgentError, match="format_version 99"):
        make_agent(path, world)
    (path / "agent.json").write_text("{")
    with pytest.raises(AgentError, match=r"agent\.json cannot be read"):
        make_agent(path, world)


def test_unknown_names_and_settings_give_the_nearest(world: World) -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'popularity'"):
        make_agent("populrity", world)
    with pytest.raises(AgentError, match="Did you mean 'neighbours'"):
        make_agent("item_knn", world, neighbors=5)
    with pytest.raises(AgentError, match="'neighbours' = 0"):
        make_agent("item_knn", world, neighbours=0)
    with pytest.raises(AgentError, match="takes a ItemKNNConfig"):
        agent_class("item_knn")(world, AgentConfig())


def test_agents_come_from_files_and_modules_too(world: World, tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "from recgym.agents.popularity import PopularityAgent\nclass Mine(PopularityAgent):\n    id = 'mine'\n"
    )
    agent = make_agent(f"{file}:Mine", world)
    assert agent.id == "mine"
    with pytest.raises(AgentError, match="not a subclass"):
        make_agent("recgym.agents.protocol:AgentConfig", world)
    assert type(make_agent("recgym.agents.popularity:PopularityAgent", world)).__name__ == "PopularityAgent"


def test_privileged_agents_need_the_environment_and_only_they(world: World) -> None:
    privileged = [name for name in NAMES if agent_class(name).privileged]
    assert privileged == ["greedy", "lookahead"]
    for name in privileged:
        oracle = make_agent(name, world)
        observations, _ = environment(world, oracle).reset(seed=0)
        with pytest.raises(AgentError, match="privileged"):
            oracle.act(observations, ActContext(seeds(), np.zeros(B, dtype=np.int64), K))


def test_a_slate_larger_than_the_candidates_is_refused(world: World) -> None:
    agent = make_agent("random", world)
    observations = {"candidate_items": np.zeros((2, 5), dtype=np.int64)}
    with pytest.raises(AgentError, match="slate of 6 .* 5 candidates"):
        agent.act(observations, ActContext(seeds(2), np.zeros(2, dtype=np.int64), 6))
