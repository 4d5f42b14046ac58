"""What visits tell of returns: from what was simulated, and as far as an episode was watched."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from recgym.evaluation.metrics import METRICS
from recgym.evaluation.metrics.visits import curves_over_time, retention_curves, with_visits

DAYS = {  # user: days of visits, and how the episode ended
    0: ([0], "left"),
    1: ([0], "horizon"),  # the next visit lies beyond the horizon
    2: ([0, 3, 29], "horizon"),
    3: ([0, 5], "slates"),
    4: ([0, 2, 12], "slates"),
}


@pytest.fixture
def rows() -> pd.DataFrame:
    about = {"scenario": "s", "agent": "a", "seed": 0, "reward": 1.0, "revenue": np.nan}
    return pd.DataFrame([{**about, "user": user, "ended": ended} for user, (_, ended) in DAYS.items()])


@pytest.fixture
def visits() -> pd.DataFrame:
    about = {"agent": "a", "seed": 0, "reward": 1.0, "entropy": 0.0}
    return pd.DataFrame([{**about, "user": user, "day": day} for user, (days, _) in DAYS.items() for day in days])


def known(table: pd.DataFrame, name: str) -> list[float | None]:
    return [None if value != value else value for value in table[name]]


def test_who_came_back_is_told_by_simulated_visits(rows: pd.DataFrame, visits: pd.DataFrame) -> None:
    found = with_visits(rows, visits, 30)
    assert known(found, "returned_7") == [0, 0, 1, 1, 1]
    assert "returned_30" not in found  # a visit on day 30 itself is not simulated
    assert known(found, "retained_7") == [0, 1, 1, None, 1]  # user 3 was cut off on day 5
    assert known(found, "retained_30") == [0, 1, 1, None, None]
    week = with_visits(rows.iloc[:2], visits[visits["user"] < 2], 7)
    assert "returned_7" not in week and known(week, "retained_7") == [0, 1]
    [metric] = [metric for metric in METRICS if metric.id == "retained_7"]
    top, bottom = metric.parts(found) or (np.zeros(1), np.zeros(1))
    assert top.sum() / bottom.sum() == 3 / 4
    alone = with_visits(rows.iloc[3:4], visits[(visits["user"] == 3) & (visits["day"] == 0)], 30)
    assert known(alone, "returned_7") == [None]  # cut off on its first visit


def test_a_retention_curve_counts_an_episode_until_it_is_cut_off(rows: pd.DataFrame, visits: pd.DataFrame) -> None:
    curve = retention_curves(rows, visits, 30).set_index("day")["retained"]
    assert curve[0] == 1 and curve[5] == 4 / 5 and curve[6] == 3 / 4 and curve[13] == curve[30] == 2 / 3
    assert (np.diff(curve) <= 0).all()
    cut = retention_curves(rows.iloc[3:], visits[visits["user"] >= 3], 30)
    assert cut["day"].max() == 12 and (cut["retained"] == 1).all()


def test_a_course_counts_an_episode_until_it_is_cut_off(rows: pd.DataFrame, visits: pd.DataFrame) -> None:
    course = curves_over_time(rows, visits, 30, draws=20).set_index("day")["value"]
    assert course[1.5] == pytest.approx(6 / 3 / 5)  # days 0 to 2: six visits of all five
    assert course[4.5] == pytest.approx(1 / 3 / 4)  # user 3 was cut off on day 5, within the second tenth
    assert course[13.5] == 0  # of the three who were not cut off before day 15
    assert course[28.5] == pytest.approx(1 / 3 / 3)
    cut = curves_over_time(rows.iloc[3:], visits[visits["user"] >= 3], 30, draws=20)
    assert cut["day"].tolist() == [1.5, 4.5, 7.5, 10.5]
