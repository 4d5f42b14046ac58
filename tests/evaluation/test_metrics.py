"""Known answers of the metrics."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from recgym.evaluation import metrics


@pytest.fixture
def rows() -> pd.DataFrame:
    """Two users, two agents; agent ``a`` gets 3 items from 2 slates of 5, then none from 2."""
    common = {"scenario": "default", "seed": 0, "num_shown": [10, 10], "num_new": [1, 0], "popularity_shown": [50, 30]}
    a = {"agent": "a", "privileged": False, "reward": [3.0, 0.0], "num_consumed": [3, 0], "num_hits": [2, 0]}
    b = {"agent": "b", "privileged": True, "reward": [5.0, 1.0], "num_consumed": [5, 1], "num_hits": [2, 1]}
    users = {"user": [4, 9], "lane_seed": [1, 2], "history_trips": [0, 8], "num_steps": [2, 2], "revenue": np.nan}
    return pd.concat([pd.DataFrame({**common, **agent, **users}) for agent in (a, b)], ignore_index=True)


def test_score_gives_the_arithmetic_of_the_rows(rows: pd.DataFrame) -> None:
    table = metrics.score(rows).set_index(["agent", "metric"])["value"]
    assert table["a"].to_dict() == {
        "reward": 1.5,
        "reward_per_step": 0.75,
        "session_depth": 2.0,
        "hit_rate": 0.5,
        "precision": 0.15,
        "discoveries": 0.5,
        "popularity": 4.0,
    }
    assert table["b", "reward"] == 3.0


def test_score_of_an_agent_does_not_depend_on_the_others(rows: pd.DataFrame) -> None:
    everyone = metrics.score(rows)
    alone = metrics.score(rows[rows["agent"] == "b"])
    pd.testing.assert_frame_equal(everyone[everyone["agent"] == "b"].reset_index(drop=True), alone)


def test_coverage_and_gini() -> None:
    equal = pd.DataFrame({"scenario": "s", "agent": "a", "item": [0, 1, 2, 3], "shown": 5})
    single = pd.DataFrame({"scenario": "s", "agent": "b", "item": [2, 2], "shown": 5})
    table = metrics.coverage(pd.concat([equal, single]), num_items=4).set_index("agent")
    assert table.loc["a", ["coverage", "gini"]].tolist() == [1.0, 0.0]
    assert table.loc["b", ["coverage", "gini"]].tolist() == [0.25, 1.0]


def test_history_groups_cover_every_user_once(rows: pd.DataFrame) -> None:
    table = metrics.by_history(rows)
    assert table.groupby("agent")["num_rows"].sum().to_dict() == {"a": 2, "b": 2}
    assert set(table.loc[table["agent"] == "a", "value"]) == {3.0, 0.0}
    alike = metrics.by_history(rows.assign(history_trips=3))
    assert alike["group"].astype(str).tolist() == ["3", "3"]


def test_history_groups_are_those_of_each_scenario(rows: pd.DataFrame) -> None:
    """A platform may know all, or nothing, of the same users."""
    blank = rows.assign(scenario="blank", history_trips=0)
    table = metrics.by_history(pd.concat([rows, blank], ignore_index=True))
    assert not table.duplicated(["scenario", "agent", "group"]).any()
    assert set(table.loc[table["scenario"] == "blank", "group"].astype(str)) == {"0"}
    assert table.groupby(["scenario", "agent"])["num_rows"].sum().tolist() == [2] * 4
    alone = metrics.by_history(rows).astype({"group": str})
    together = table[table["scenario"] == "default"].astype({"group": str}).reset_index(drop=True)
    pd.testing.assert_frame_equal(alone, together)
