"""Agents trained in one world and scored in another with the same items."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from recgym.errors import RecGymError
from recgym.evaluation.report import write_report
from recgym.evaluation.runner import evaluate
from recgym.evaluation.transfer import transfers
from recgym.testing.worlds import tiny_world
from recgym.worlds.world import World


def rows(agent: str, world: str, rewards: np.ndarray) -> pd.DataFrame:
    users = np.arange(len(rewards))
    return pd.DataFrame(
        {
            "scenario": "s",
            "agent": agent,
            "world": world,
            "seed": 0,
            "user": users,
            "lane_seed": users,
            "reward": rewards,
        }
    )


def test_a_lead_that_only_home_gives_is_told_from_a_world_that_is_easier() -> None:
    rng = np.random.default_rng(0)
    base_home, base_away = rng.normal(5, 1, 400), rng.normal(3, 1, 300)  # home is easier for everyone, by 2
    home = pd.concat(
        [rows("plain", "h", base_home), rows("honest", "h", base_home + 1), rows("cheat", "h", base_home + 1)]
    )
    away = pd.concat([rows("plain", "a", base_away), rows("honest", "a", base_away + 1), rows("cheat", "a", base_away)])
    found = {one.agent: one for one in transfers(home, away, ["plain"], draws=500)}
    assert found["honest"].gap.value == pytest.approx(base_home.mean() - base_away.mean())
    assert found["honest"].gap.low > 1.7 and found["honest"].gap.high < 2.3
    lost = {agent: one.lead_gap for agent, one in found.items()}
    assert lost["honest"] is not None and lost["cheat"] is not None
    assert lost["honest"].value == pytest.approx(0) and not lost["honest"].excludes_zero
    assert lost["cheat"].value == pytest.approx(1) and lost["cheat"].excludes_zero
    assert lost["plain"] is None


def test_an_evaluation_away_from_home_shows_the_gap(world: World, tmp_path: Path) -> None:
    away = tiny_world(tmp_path / "away", name="away", num_users=30)  # the same items, other users
    settings = {"users": 12, "seeds": 1, "progress": False, "trained_in": world}
    out = tmp_path / "run"
    scores = evaluate(away, agents=("random", "popularity"), out=out, **settings)  # type: ignore[arg-type]
    assert set(scores["world"]) == {"away"}
    assert set(pd.read_parquet(out / "home" / "rows.parquet")["world"]) == {world.name}
    manifest = json.loads((out / "run.json").read_text())
    assert manifest["configuration"]["trained_in"]["name"] == world.name
    text = write_report(out).read_text(encoding="utf-8")
    assert text.count("Away from home") == 2  # a figure and a table
    found = json.loads((out / "summary.json").read_text())["scenarios"][0]["transfer"]
    assert [one["agent"] for one in found] == ["random", "popularity"]
    assert found[0]["gap"]["value"] == pytest.approx(found[0]["home"]["value"] - found[0]["away"]["value"])


def test_worlds_with_other_items_are_refused(world: World, tmp_path: Path) -> None:
    other = tiny_world(tmp_path / "other", num_items=200)
    with pytest.raises(RecGymError, match="have different items"):
        evaluate(other, agents="random", users=2, seeds=1, trained_in=world, progress=False)
