"""Resuming: rows of code that has changed since are not handed out as those of the code there is now."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from recgym import cli
from recgym.agents.protocol import agent_class
from recgym.agents.training import cache_directory
from recgym.commands import evaluate as command
from recgym.errors import RecGymError
from recgym.evaluation import plan, runner
from recgym.evaluation.runner import evaluate
from recgym.registration import AGENTS, USER_MODELS
from recgym.registry import load_target
from recgym.scenario import load_scenario
from recgym.sources import own_source
from recgym.worlds.world import World

AGENT = """
import numpy as np
from recgym.agents.protocol import Agent

class Mine(Agent):
    id = "mine"
    observes = ("candidates",)

    def act(self, observations, context, *, env=None):
        return np.tile(np.arange(context.slate_size) + {start}, (len(context.lane_seeds), 1))
"""
USERS = """
from recgym.user_models.boredom import BoredUsers

class Mine(BoredUsers):
    shift = {start}
"""
Write = Callable[[str, int], str]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes ``mine.py``, as a process that starts afterwards finds it; the target in it."""
    file = tmp_path / "mine.py"

    def written(text: str, start: int) -> str:
        file.write_text(text.format(start=start), encoding="utf-8")
        for name in [name for name in sys.modules if name.startswith("recgym_file_mine")]:
            monkeypatch.delitem(sys.modules, name)
        return f"{file}:Mine"

    return written


def play(world: World, out: Path | None, **settings: Any) -> Any:
    return evaluate(world, out=out, users=3, seeds=1, progress=False, **{"agents": "random", **settings})


def test_an_agent_whose_file_has_changed_is_not_resumed(world: World, tmp_path: Path, write: Write) -> None:
    out = tmp_path / "run"
    target = write(AGENT, 0)
    play(world, out, agents=target)
    play(world, out, agents=target)
    write(AGENT, 1)
    with pytest.raises(RecGymError, match=r"differs in source of agent mine\.py:Mine: .*another directory \(--out\)"):
        play(world, out, agents=target)


def test_users_whose_file_has_changed_are_not_resumed(world: World, tmp_path: Path, write: Write) -> None:
    out = tmp_path / "run"
    target = write(USERS, 0)
    play(world, out, user_model=target)
    write(USERS, 1)
    with pytest.raises(RecGymError, match=r"differs in source of user model .*mine\.py:Mine"):
        play(world, out, user_model=target)


def test_another_recgym_is_not_resumed(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    play(world, tmp_path)
    monkeypatch.setattr(plan, "recgym_source", lambda: "another")
    with pytest.raises(RecGymError, match=r'differs in source of RecGym: .*"another" here'):
        play(world, tmp_path)


def test_the_same_command_after_an_edit_plays_again_in_a_directory_of_its_own(
    world: World, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[Path] = []
    monkeypatch.setattr(runner, "evaluate", lambda *arguments, out, **options: used.append(out))
    monkeypatch.setattr(command, "finish", lambda *arguments: None)
    for start in (0, 0, 1):
        given = ["evaluate", "--env", str(world.path), "--agents", write(AGENT, start)]
        assert CliRunner().invoke(cli.app, given).exit_code == 0
    assert CliRunner().invoke(cli.app, [*given, "--device", "cuda"]).exit_code == 0
    assert used[0] == used[1] and len(set(used)) == 3


def test_a_trained_agent_of_another_source_is_another_one_in_the_cache(world: World, write: Write) -> None:
    scenario = load_scenario("default")
    places = [cache_directory(write(AGENT, start), world, scenario) for start in (0, 0, 1)]
    assert places[0] == places[1] != places[2]


def test_the_source_of_what_ships_goes_with_its_version() -> None:
    for registry in (AGENTS, USER_MODELS):
        assert all(own_source(load_target(spec.target)) is None for spec in registry.registered())
    assert own_source(agent_class("random")) is None
