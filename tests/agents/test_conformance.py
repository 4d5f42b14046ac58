"""Every registered agent: valid slates, determinism, independence of the batch, save and load, honest refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recgym.agents import ActContext, AgentConfig, make_agent
from recgym.agents.protocol import agent_class
from recgym.errors import AgentError, UnknownNameError
from recgym.registration import AGENTS
from recgym.testing import check_agent
from recgym.testing.agents import LANES, environment, lane_seeds, play
from recgym.testing.worlds import tiny_world
from recgym.worlds.world import World

K = 10
NAMES = AGENTS.names()


@pytest.mark.parametrize("name", NAMES)
def test_conforms(name: str, world: World) -> None:
    report = check_agent(name, world, processes=False)
    assert {"slates", "batch", "purity", "inputs", "randomness", "determinism", "saving"} <= set(report.rules)
    assert agent_class(name).id == name


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_conforms_in_a_new_process(name: str, world: World) -> None:
    check_agent(name, world)


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
    np.testing.assert_array_equal(play(loaded, other, lane_seeds()), play(fresh, other, lane_seeds()))


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
        observations, _ = environment(oracle, world).reset(seed=0)
        with pytest.raises(AgentError, match="privileged"):
            oracle.act(observations, ActContext(lane_seeds(), np.zeros(LANES, dtype=np.int64), K))


def test_a_slate_larger_than_the_candidates_is_refused(world: World) -> None:
    agent = make_agent("random", world)
    observations = {"candidate_items": np.zeros((2, 5), dtype=np.int64)}
    with pytest.raises(AgentError, match="slate of 6 .* 5 candidates"):
        agent.act(observations, ActContext(lane_seeds(2), np.zeros(2, dtype=np.int64), 6))
