"""The leaderboard trains what it needs once, pools trainings, and writes a page that speaks of nothing else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pandas as pd
import pytest

from recgym.agents.protocol import agent_class
from recgym.registration import AGENTS
from recgym.testing.worlds import tiny_world


@pytest.fixture
def leaderboard(benchmark_script: Callable[[str], ModuleType]) -> ModuleType:
    return benchmark_script("leaderboard")


def test_a_small_ladder(leaderboard: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    world = tiny_world(tmp_path / "tiny", num_items=200, num_users=30)
    given = ["--env", str(world.path), "--agents", "random,popularity,linucb,greedy"]
    given += ["--training-seeds", "0,1", "--train-steps", "512"]
    assert leaderboard.main(["train", *given]) == 0
    assert "trained before" not in capsys.readouterr().out
    sizes = ["--users", "12", "--seeds", "2", "--out", str(tmp_path / "rows"), "--page", str(tmp_path / "page.md")]
    assert leaderboard.main(["evaluate", *given, *sizes]) == 0
    assert capsys.readouterr().out.count("trained before") == 3  # popularity, and linucb twice
    page = (tmp_path / "page.md").read_text()
    rows = {line.split("|")[1].strip(): line.split("|")[2:-1] for line in page.splitlines() if line.startswith("| ")}
    assert list(rows) == [
        "agent",
        *sorted(list(rows)[1:4], key=lambda name: -float(rows[name][1].split()[0])),
        "greedy",
    ]
    assert page.index("| greedy") > page.index("so bounds and no competitors") > page.index("| random")
    assert [cell.strip() for cell in rows["agent"]][2:4] == ["- popularity", "- greedy"]
    assert rows["linucb"][0].strip() == "bandit" and " to " in rows["linucb"][4] and rows["linucb"][6].strip() == "512"
    assert rows["random"][2].strip().startswith("-") and rows["popularity"][2].strip() == ""
    assert f"evaluate --env {world.path} --agents random,popularity,linucb,greedy" in page
    assert str(tmp_path) not in page.replace(str(world.path), "")


def test_trainings_are_averaged_episode_by_episode(leaderboard: ModuleType) -> None:
    rows = pd.DataFrame(
        [
            {
                "scenario": "s",
                "agent": label,
                "seed": 0,
                "user": user,
                "lane_seed": user,
                "reward": reward,
                "ended": "left",
            }
            for label, rewards in {"a#0": (1.0, 3.0), "a#1": (2.0, 6.0), "b": (5.0, 5.0)}.items()
            for user, reward in enumerate(rewards)
        ]
    )
    found, spread = leaderboard.pooled(rows)
    assert found["agent"].tolist() == ["a", "a", "b", "b"]
    assert found["reward"].tolist() == [1.5, 4.5, 5.0, 5.0] and found["lane_seed"].tolist() == [0, 1, 0, 1]
    assert spread == {"a": (2.0, 4.0), "b": (5.0, 5.0)}


def test_every_agent_is_of_a_kind(leaderboard: ModuleType) -> None:
    kinds = {name: leaderboard.kind(agent_class(name)) for name in AGENTS.names()}
    assert kinds["ppo"] == kinds["hac"] == "RL" and kinds["cql"] == "offline RL" and kinds["sasrec"] == "deep scorer"
    assert kinds["als"] == "collaborative" and kinds["thompson"] == "bandit" and kinds["lookahead"] == "bound"
    assert {name for name, kind in kinds.items() if kind == "baseline"} == {"random", "popularity", "frequency"}
