"""``recgym train`` end to end on a tiny world."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from recgym.agents import make_agent
from recgym.cli import app
from recgym.commands.settings import parse_settings
from recgym.errors import AgentError
from recgym.registration import ENVS
from recgym.registry import EnvSpec
from recgym.worlds.world import World

SMALL = ["num_steps=4", "batch_size=8", "num_epochs=1", "calibration_steps=2", "learning_rate=1e-3", "target_kl=null"]


@pytest.fixture
def run(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(ENVS._own, "tiny-v0", EnvSpec("tiny-v0", world=str(world.path)))
    settings = [word for setting in SMALL for word in ("--config", setting)]

    def invoke(*words: str):
        shared = ["train", "--env", "tiny-v0", "--num-envs", "4", "--steps", "32", "--out", str(tmp_path / "run")]
        return CliRunner().invoke(app, [*shared, *settings, *words])

    return invoke


def test_trains_resumes_and_says_where(run, world: World, tmp_path: Path) -> None:
    result = run("--seed", "4")
    assert result.exit_code == 0, result.output
    assert "Saved to" in result.output and "--agents" in result.output
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["seed"] == 4 and record["steps"] == 32 and record["status"] == "complete"
    assert record["config"]["num_envs"] == 4 and record["config"]["target_kl"] is None
    assert make_agent(tmp_path / "run", world).id == "ppo"
    refused = run("--seed", "4")
    assert refused.exit_code == 2 and "already holds a run" in refused.output
    assert run("--seed", "4", "--resume").exit_code == 0


def test_bad_input_is_named(run, tmp_path: Path) -> None:
    result = run("--config", "gama=0.5")
    assert result.exit_code == 2 and "Did you mean 'gamma'" in result.output
    assert not (tmp_path / "run").exists()
    assert "Did you mean 'ppo'" in run("--agent", "pppo").output
    assert "Did you mean 'tiny-v0'" in run("--env", "tiny-v1").output
    assert "Did you mean 'tensorboard'" in run("--log", "tensorbord").output
    assert "device 'cuba' cannot be used" in run("--device", "cuba").output
    assert not (tmp_path / "run").exists()


def test_trains_on_a_world_of_ones_own(run, world: World, tmp_path: Path) -> None:
    result = run("--env", str(world.path))
    assert result.exit_code == 0, result.output
    assert f"--env {world.path} --scenario default" in " ".join(result.output.split())
    assert json.loads((tmp_path / "run" / "run.json").read_text())["world"]["hash"] == world.hash


def test_stops_early_and_tunes(run, world: World, tmp_path: Path) -> None:
    validated = ["--validate-every", "16", "--patience", "1", "--validation-users", "4", "--log", "none"]
    result = run(*validated)
    assert result.exit_code == 0, result.output
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["validation"] == {"every": 16, "patience": 1, "users": 4} and record["device"] == "cpu"
    assert record["best_validation"]["steps"] <= record["steps_used"] <= 32
    assert not list((tmp_path / "run").glob("events*"))
    pytest.importorskip("optuna")
    refused = run("--tune", "2")
    assert refused.exit_code == 2 and "already holds a run that was not tuned" in refused.output
    result = run("--tune", "2", "--out", str(tmp_path / "tuned"), *validated)
    assert result.exit_code == 0, result.output
    trials = json.loads((tmp_path / "tuned" / "tuning" / "run.json").read_text())["results"]
    assert [set(trial["settings"]) for trial in trials] == [{"gae_lambda", "entropy_coef"}] * 2  # the rest was given
    assert make_agent(tmp_path / "tuned", world).config.learning_rate == 1e-3
    assert run("--tune", "2", "--out", str(tmp_path / "tuned"), "--resume", *validated).exit_code == 0


def test_rollouts_are_logged_in_a_world_that_is_no_environment(world: World, tmp_path: Path) -> None:
    words = ["data", "rollouts", "--env", str(world.path), "--steps", "8", "--num-envs", "4", "--out", str(tmp_path)]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0 and "8 slates of" in result.output, result.output
    result = CliRunner().invoke(app, [*words, "--env", "ecomerce"])
    assert result.exit_code == 2 and "Did you mean 'ecommerce'?" in result.output


def test_logged_rollouts_are_written_and_learned_from(
    run, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["data", "rollouts", "--env", "tiny-v0", "--steps", "40", "--num-envs", "4", "--out", str(tmp_path / "log")]
    result = CliRunner().invoke(app, [*words, "--agent", "frequency", "--exploration", "0.25"])
    assert result.exit_code == 0 and "slates of" in result.output, result.output
    about = json.loads((tmp_path / "log" / "rollouts.json").read_text())
    assert about["policy"] == {"agent": "frequency", "config": {}, "exploration": 0.25}
    settings = [f"logs={tmp_path / 'log'}", "updates=3", "batch_size=4", "hidden=4"]
    words = ["train", "--env", "tiny-v0", "--agent", "cql", "--out", str(tmp_path / "cql")]
    result = CliRunner().invoke(app, [*words, *(word for setting in settings for word in ("--config", setting))])
    assert result.exit_code == 0, result.output
    assert make_agent(tmp_path / "cql", world).config.logs == str(tmp_path / "log")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    pytest.importorskip("minari")
    words = ["data", "rollouts", "--env", "tiny-v0", "--steps", "8", "--num-envs", "4", "--out", str(tmp_path / "log")]
    result = CliRunner().invoke(app, [*words, "--minari", "recgym/tiny-v0"])
    assert result.exit_code == 0 and "Minari data set recgym/tiny-v0 in" in result.output, result.output
    assert "already exists" in CliRunner().invoke(app, [*words, "--minari", "recgym/tiny-v0"]).output


def test_settings() -> None:
    assert parse_settings(["a=1", "b=true", "c=null", "d=x=y"]) == {"a": 1, "b": True, "c": None, "d": "x=y"}
    for bad in ("a", "=1", "a=[1"):
        with pytest.raises(AgentError, match="setting"):
            parse_settings([bad])
