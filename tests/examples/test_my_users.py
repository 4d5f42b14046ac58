"""The worked example of a user model: by path, by entry point, by name; it conforms, and agents learn from it."""

from __future__ import annotations

import ast
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import recgym
from recgym.cli import app
from recgym.registration import USER_MODELS
from recgym.testing import check_user_model
from recgym.testing.worlds import tiny_world
from recgym.worlds.world import World

FILE = Path(__file__).parents[2] / "examples" / "my_users.py"
TARGET = f"{FILE}:NightOwls"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return tiny_world(tmp_path_factory.mktemp("worlds") / "tiny")


def test_it_is_about_40_lines() -> None:
    classes = [node for node in ast.parse(FILE.read_text()).body if isinstance(node, ast.ClassDef)]
    assert sum((node.end_lineno or 0) - node.lineno + 1 for node in classes) <= 40


def test_it_conforms() -> None:
    check_user_model(TARGET)


def test_it_plays_by_path_and_by_entry_point(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    env = recgym.make("ecommerce-v0", user_model=TARGET)
    env.reset(seed=3)
    assert sum(env.step(np.arange(10))[1] for _ in range(3)) >= 0.0
    # As a distribution of its own, found by its entry point.
    shutil.copy(FILE, tmp_path / "my_users.py")
    about = tmp_path / "my_users-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: my-users\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[recgym.user_models]\nnight_owls = my_users:NightOwls\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(USER_MODELS, "_plugins", None)
    assert "night_owls" in USER_MODELS.names()
    rewards = []
    for name in (TARGET, "night_owls"):
        vec = recgym.make_vec(world=world, num_envs=16, user_model=name)
        vec.reset(seed=0)
        rewards.append([float(vec.step(np.tile(np.arange(10), (16, 1)))[1].sum()) for _ in range(4)])
    assert rewards[0] == rewards[1] and sum(rewards[0]) > 0


def test_ppo_trains_and_is_evaluated_on_it(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    recgym.register("owls-v0", world=str(world.path), replace=True)
    words = ["train", "--env", "owls-v0", "--agent", "ppo", "--steps", "4096", "--num-envs", "64", "--out", "run"]
    words += ["--config", "batch_size=256", "--config", "calibration_steps=2", "--log", "none"]
    trained = CliRunner().invoke(app, [*words, "--user-model", TARGET])
    assert trained.exit_code == 0, trained.output
    assert json.loads(Path("run/run.json").read_text())["user_model"] == TARGET
    other = CliRunner().invoke(app, [*words, "--resume"])
    assert "its user_model is" in other.output and other.exit_code == 2
    words = ["evaluate", "--env", "owls-v0", "--agents", "random,run", "--users", "40", "--seeds", "2", "--out", "out"]
    evaluated = CliRunner().invoke(app, [*words, "--user-model", TARGET])
    assert evaluated.exit_code == 0, evaluated.output
    rows = recgym.evaluate(world, agents=["random", "run"], users=40, seeds=2, progress=False, user_model=TARGET)
    means = rows.groupby("agent")["reward"].mean()
    assert means["run"] > 1.1 * means["random"]  # the text and category of an item say what it is liked for


def test_an_unknown_one_is_told_before_training(world: World, tmp_path: Path) -> None:
    recgym.register("owls-v0", world=str(world.path), replace=True)
    words = ["train", "--env", "owls-v0", "--agent", "ppo", "--out", str(tmp_path / "run"), "--user-model", "boredon"]
    told = CliRunner().invoke(app, words)
    assert told.exit_code == 2 and "Did you mean 'boredom'" in told.output
    assert not (tmp_path / "run").exists()
