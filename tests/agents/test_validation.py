"""Early stopping: the best validation is what comes out, whether or not the training was interrupted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor

from recgym.agents import make_agent
from recgym.agents.training import train_agent
from recgym.agents.validation import StopTraining, Validation, Validator, scorer
from recgym.errors import AgentError
from recgym.scenario import load_scenario
from recgym.worlds.world import World

LINUCB = {"num_envs": 4, "segment_steps": 4, "total_steps": 96}
PPO = {"num_envs": 4, "num_steps": 4, "batch_size": 8, "num_epochs": 2, "total_steps": 96, "checkpoint_rollouts": 2}
SETTINGS = {"linucb": LINUCB, "ppo": PPO, "bcq": {"num_envs": 4, "total_steps": 96, "updates": 200, "hidden": 8}}
SETTINGS["bcq"] |= {"checkpoint_updates": 40, "batch_size": 8}
VALIDATION = Validation(every=20, patience=50, users=6)


class Interrupt(Exception):
    """Stands for the user's Ctrl-C."""


class Steps:
    """Has learned the number of slates so far."""

    def __init__(self) -> None:
        self.at = 0
        self.log = lambda figures, steps: None

    def tensors(self) -> dict[str, Tensor]:
        return {"at": torch.tensor(self.at)}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        self.at = int(tensors["at"])


def follow(rewards: dict[int, float], out: Path, patience: int = 2) -> tuple[Steps, Validator, int]:
    """A training whose agent is as good at each number of slates as ``rewards`` says."""
    agent: Any = Steps()
    validator = Validator(agent, Validation(every=10, patience=patience), lambda a: rewards[a.at], out, resume=False)
    for steps in range(5, 101, 5):
        agent.at = steps
        try:
            validator(steps)
        except StopTraining:
            validator.finish(steps, stopped=True)
            return agent, validator, steps
    validator.finish(100, stopped=False)
    return agent, validator, 100


def test_patience_ends_the_training_and_the_best_comes_back(tmp_path: Path) -> None:
    rewards = {10: 1.0, 20: 3.0, 30: 2.0, 40: 3.0, **dict.fromkeys(range(50, 101, 10), 9.0)}
    agent, validator, ended = follow(rewards, tmp_path)
    assert ended == 40  # two in a row without a better one: as good as the best is not better
    assert agent.at == 20 and validator.best == {"steps": 20, "reward": 3.0}
    agent, _, ended = follow(rewards, tmp_path, patience=3)
    assert ended == 80 and agent.at == 50


def test_validations_come_at_the_first_report_after_each_interval(tmp_path: Path) -> None:
    _, validator, _ = follow({steps: steps / 100 for steps in range(5, 101, 5)}, tmp_path)
    assert [entry["steps"] for entry in validator.history] == [*range(10, 101, 10), 100]  # and once more at the end


@pytest.mark.parametrize("name", list(SETTINGS))
@pytest.mark.parametrize("limit", [33, 90])
def test_interrupted_and_resumed_keeps_the_same_best(world: World, tmp_path: Path, name: str, limit: int) -> None:
    def stop(done: int, total: int) -> None:
        if done >= limit:
            raise Interrupt

    config = SETTINGS[name]
    whole = train_agent(name, world, out=tmp_path / "whole", config=config, validation=VALIDATION)
    with pytest.raises(Interrupt):
        train_agent(name, world, out=tmp_path / "cut", config=config, validation=VALIDATION, progress=stop)
    resumed = train_agent(name, world, out=tmp_path / "cut", config=config, validation=VALIDATION, resume=True)
    assert all(torch.equal(tensor, resumed.tensors()[key]) for key, tensor in whole.tensors().items())
    histories = [json.loads((tmp_path / run / "validation.json").read_text()) for run in ("whole", "cut")]
    assert histories[0] == histories[1] and len(histories[0]) >= 4
    record = json.loads((tmp_path / "cut" / "run.json").read_text())
    assert record["best_validation"] == max(histories[0], key=lambda entry: entry["reward"])
    assert record["stopped_early"] is False and record["steps_used"] == 96


@pytest.mark.parametrize("name", ["dqn", "qrdqn", "sac", "maskable_ppo", "reinforce", "slateq", "wolpertinger", "hac"])
def test_rl_agents_end_early_and_tell_how_they_do(name: str, world: World, tmp_path: Path) -> None:
    config = {"num_envs": 4, "num_steps": 4, "batch_size": 8, "hidden": 4, "calibration_steps": 1, "total_steps": 640}
    patient = Validation(every=16, patience=1, users=4)
    agent = train_agent(name, world, out=tmp_path, config=config, validation=patient, loggers=("tensorboard",))
    record = json.loads((tmp_path / "run.json").read_text())
    history = json.loads((tmp_path / "validation.json").read_text())
    assert record["stopped_early"] and record["steps_used"] == history[-1]["steps"] < 640
    assert history[-1]["reward"] <= record["best_validation"]["reward"]
    best = load_file(tmp_path / "best.safetensors")
    assert all(torch.equal(tensor, best[key]) for key, tensor in agent.tensors().items())
    curves = EventAccumulator(str(tmp_path)).Reload()
    told = {tag: len(curves.Scalars(tag)) for tag in curves.Tags()["scalars"]}
    assert told["validation/reward"] == len(history)


def test_validating_does_not_change_the_training(world: World, tmp_path: Path) -> None:
    plain = train_agent("ppo", world, out=tmp_path / "plain", config=PPO)
    train_agent("ppo", world, out=tmp_path / "validated", config=PPO, validation=VALIDATION)
    from stable_baselines3 import PPO as SB3

    trained = SB3.load(tmp_path / "validated" / "model.zip").policy.scorer.state_dict()
    assert all(torch.equal(tensor, trained[key]) for key, tensor in plain.tensors().items())


def test_the_score_is_of_fixed_users_and_luck(world: World) -> None:
    score = scorer(world, load_scenario("default"), 8)
    agent = make_agent("popularity", world)
    assert score(agent) == score(agent) == scorer(world, load_scenario("default"), 8)(agent)
    assert score(make_agent("greedy", world)) > score(make_agent("random", world))


def test_only_training_in_the_environment_is_validated(world: World, tmp_path: Path) -> None:
    with pytest.raises(AgentError, match="'popularity' learns from: log"):
        train_agent("popularity", world, out=tmp_path / "run", validation=VALIDATION)
    assert not (tmp_path / "run").exists()
    train_agent("linucb", world, out=tmp_path / "run", config=LINUCB, validation=VALIDATION)
    with pytest.raises(AgentError, match="its validation is"):
        train_agent("linucb", world, out=tmp_path / "run", config=LINUCB, resume=True)
