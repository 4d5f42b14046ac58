"""Loggers: TensorBoard's files, what Weights & Biases and MLflow are told, and clear errors without them."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from recgym.agents.loggers import check_loggers, open_loggers
from recgym.agents.training import train_agent
from recgym.errors import AgentError, RecGymError, UnknownNameError
from recgym.worlds.world import World

ABOUT = {"agent": "linucb", "seed": 3, "steps": 64, "config": {"alpha": 0.5}}
SMALL = {"num_envs": 4, "segment_steps": 4, "total_steps": 32}


class Recorder(ModuleType):
    """Stands for a package that is not installed here, and notes how it is called."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)

        def call(*arguments: Any, **options: Any) -> Recorder:
            self.calls.append((name, arguments, options))
            return self

        return call


def test_tensorboard_holds_the_learning_curve(world: World, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train_agent("linucb", world, out=tmp_path, config=SMALL)
    events = EventAccumulator(str(tmp_path)).Reload()
    assert events.Tags()["scalars"] == ["rollout/ep_rew_mean"]
    assert [event.step for event in events.Scalars("rollout/ep_rew_mean")][-1] == 32


def test_no_logger_writes_nothing(world: World, tmp_path: Path) -> None:
    train_agent("linucb", world, out=tmp_path, config=SMALL, loggers=())
    assert not list(tmp_path.glob("events*"))


def test_wandb_and_mlflow_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb, mlflow = Recorder("wandb"), Recorder("mlflow")
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    monkeypatch.setitem(sys.modules, "mlflow", mlflow)
    check_loggers(["wandb", "mlflow"])
    with open_loggers(["wandb", "mlflow"], tmp_path / "run", ABOUT) as log:
        log({"reward": 1.5}, 32)
    names = [name for name, _, _ in wandb.calls]
    assert names == ["init", "log", "finish"]
    assert wandb.calls[0][2]["project"] == "recgym" and wandb.calls[0][2]["config"] == ABOUT
    assert wandb.calls[0][2]["resume"] == "allow" and wandb.calls[1][1:] == (({"reward": 1.5},), {"step": 32})
    names = [name for name, _, _ in mlflow.calls]
    assert names == ["set_experiment", "start_run", "log_params", "log_metrics", "end_run"]
    assert mlflow.calls[2][1] == ({"agent": "linucb", "seed": 3, "steps": 64, "alpha": 0.5},)
    assert mlflow.calls[3][1:] == (({"reward": 1.5},), {"step": 32})


def test_a_logger_that_there_is_not_is_named(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)  # as if it were not installed
    with pytest.raises(AgentError, match="needs the package 'wandb': pip install wandb"):
        train_agent("linucb", world, out=tmp_path / "run", config=SMALL, loggers=["wandb"])
    with pytest.raises(UnknownNameError, match="'tensorbord'.*'tensorboard'"):
        train_agent("linucb", world, out=tmp_path / "run", config=SMALL, loggers=["tensorbord"])
    with pytest.raises(RecGymError, match="device 'cuba' cannot be used"):
        train_agent("linucb", world, out=tmp_path / "run", config=SMALL, device="cuba")
    assert not (tmp_path / "run").exists()
