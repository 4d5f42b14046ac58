"""Runs: what they record, that resuming repeats what was lost exactly, and the cache of trained agents."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from recgym.agents import make_agent, training
from recgym.agents.ppo import PPOAgent
from recgym.agents.protocol import agent_class
from recgym.agents.training import train_agent, trained
from recgym.errors import AgentError
from recgym.worlds.world import World

SMALL = {
    "num_envs": 4,
    "num_steps": 4,
    "batch_size": 8,
    "num_epochs": 2,
    "total_steps": 96,
    "checkpoint_rollouts": 2,
    "calibration_steps": 2,
}


class Interrupt(Exception):
    """Stands for the user's Ctrl-C."""


def stop_at(limit: int) -> Any:
    def progress(done: int, total: int) -> None:
        if done >= limit:
            raise Interrupt

    return progress


def same(one: Any, two: Any) -> bool:
    return all(torch.equal(one.tensors()[name], tensor) for name, tensor in two.tensors().items())


def test_a_run_records_what_it_was(world: World, tmp_path: Path) -> None:
    seen = []
    out = tmp_path / "run"
    agent = train_agent("ppo", world, seed=3, out=out, config=SMALL, progress=lambda *at: seen.append(at))
    assert seen == [(16 * n, 96) for n in range(1, 7)]
    record = json.loads((out / "run.json").read_text())
    assert record["status"] == "complete" and record["seed"] == 3 and record["steps"] == 96
    assert record["world"] == {"name": world.name, "hash": world.hash}
    assert record["scenario"]["name"] == "default" and len(record["scenario"]["hash"]) == 64
    assert record["config"] == agent.config.model_dump(mode="json")
    assert record["versions"]["torch"] == torch.__version__ and record["train_seconds"] > 0
    names = {path.name for path in out.iterdir()}
    assert {"run.json", "agent.json", "agent.safetensors", "model.zip", "checkpoint.zip"} <= names
    assert any(name.startswith("events.out.tfevents") for name in names)
    assert same(make_agent(out, world), agent)


def test_training_changes_the_policy(world: World, tmp_path: Path) -> None:
    agent = train_agent("ppo", world, out=tmp_path / "run", config=SMALL)
    fresh = make_agent("ppo", world, **SMALL)
    assert not torch.equal(agent.tensors()["direct"], fresh.tensors()["direct"])
    assert not torch.equal(agent.tensors()["candidate_norm.mean"], fresh.tensors()["candidate_norm.mean"])


@pytest.mark.parametrize("limit", [16, 48, 64])
def test_interrupted_and_resumed_is_the_same_as_in_one_go(world: World, tmp_path: Path, limit: int) -> None:
    whole = train_agent("ppo", world, out=tmp_path / "whole", config=SMALL)
    out = tmp_path / "cut"
    with pytest.raises(Interrupt):
        train_agent("ppo", world, out=out, config=SMALL, progress=stop_at(limit))
    assert json.loads((out / "run.json").read_text())["status"] == "interrupted"
    seen: list[int] = []
    resumed = train_agent(
        "ppo", world, out=out, config=SMALL, resume=True, progress=lambda done, total: seen.append(done)
    )
    assert seen[0] > limit - 2 * 16  # at most one checkpoint interval is done again
    assert same(resumed, whole)


@pytest.mark.parametrize("name", ["dqn", "qrdqn", "sac", "maskable_ppo", "reinforce", "slateq", "wolpertinger", "hac"])
def test_every_learner_resumes_as_in_one_go(name: str, world: World, tmp_path: Path) -> None:
    settings = {key: value for key, value in SMALL.items() if key in agent_class(name).Config.model_fields}
    whole = train_agent(name, world, out=tmp_path / "whole", config=settings)
    out = tmp_path / "cut"
    with pytest.raises(Interrupt):
        train_agent(name, world, out=out, config=settings, progress=stop_at(48))
    seen: list[int] = []
    resumed = train_agent(
        name, world, out=out, config=settings, resume=True, progress=lambda done, _: seen.append(done)
    )
    assert seen[0] == 48  # the rollout that came after the checkpoint at 32 slates
    assert same(resumed, whole)


@pytest.mark.parametrize("name", ["dqn", "qrdqn", "sac"])
@pytest.mark.parametrize("lanes", [1, 4])
def test_nothing_is_learned_while_the_replay_is_empty(name: str, lanes: int, world: World, tmp_path: Path) -> None:
    settings = {"num_envs": lanes, "num_steps": 1, "batch_size": 8, "calibration_steps": 2}
    before = make_agent(name, world, **settings).tensors()
    after = train_agent(name, world, steps=3 * lanes, out=tmp_path / "run", config=settings).tensors()
    assert not all(torch.equal(before[key], after[key]) for key in before if "norm" not in key)  # from the second on


def test_a_complete_run_is_loaded_not_repeated(world: World, tmp_path: Path) -> None:
    first = train_agent("ppo", world, out=tmp_path / "run", config=SMALL)
    again = train_agent("ppo", world, out=tmp_path / "run", config=SMALL, resume=True, progress=stop_at(0))
    assert same(first, again)


def test_a_run_is_not_overwritten_nor_mixed_with_another(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_agent("popularity", world, out=tmp_path)
    with pytest.raises(AgentError, match=r"already holds a run \(complete\)"):
        train_agent("popularity", world, out=tmp_path)
    with pytest.raises(AgentError, match="its seed is 0, this run's is 1"):
        train_agent("popularity", world, out=tmp_path, seed=1, resume=True)
    with pytest.raises(AgentError, match="its agent is 'popularity'"):
        train_agent("item_knn", world, out=tmp_path, resume=True)
    monkeypatch.setattr(training, "own_source", lambda kind: "edited since")
    with pytest.raises(AgentError, match="its source is None, this run's is 'edited since'"):
        train_agent("popularity", world, out=tmp_path, resume=True)


def test_log_learners_and_others_have_runs_too(world: World, tmp_path: Path) -> None:
    for name in ("random", "item_knn"):
        out = tmp_path / name
        train_agent(name, world, out=out)
        assert json.loads((out / "run.json").read_text())["scenario"] is None
        assert make_agent(out, world).id == name


def test_trained_agents_are_cached(world: World, tmp_path: Path) -> None:
    first = trained("ppo", world, config=SMALL, home=tmp_path)
    assert isinstance(first, PPOAgent)
    again = trained("ppo", world, config=SMALL, home=tmp_path, progress=stop_at(0))
    assert same(first, again)
    trained("ppo", world, config=SMALL, seed=1, home=tmp_path)
    trained("popularity", world, home=tmp_path)
    assert len(list(tmp_path.iterdir())) == 3


def test_settings_are_checked_before_anything_is_written(world: World, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(AgentError, match="Did you mean 'num_envs'"):
        train_agent("ppo", world, out=out, config={"num_env": 4})
    with pytest.raises(AgentError, match="steps = 0"):
        train_agent("ppo", world, out=out, steps=0)
    assert not out.exists()
    with pytest.raises(AgentError, match="does not learn in the environment"):
        make_agent("popularity", world).train(None, 1)  # type: ignore[arg-type]
