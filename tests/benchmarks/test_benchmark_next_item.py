"""The next-item benchmark on a tiny log: what is held out, what may be ranked, and its last line."""

from __future__ import annotations

import json
from collections.abc import Callable
from types import ModuleType

import numpy as np
import pandas as pd
import pytest

import recgym.data
from recgym.data import Interactions
from recgym.errors import DataError

USERS, ITEMS, EACH = 12, 15, 8


@pytest.fixture
def script(benchmark_script: Callable[[str], ModuleType]) -> ModuleType:
    return benchmark_script("next_item")


@pytest.fixture
def log() -> Interactions:
    rng = np.random.default_rng(0)
    items = np.concatenate([rng.choice(ITEMS, EACH, replace=False) for _ in range(USERS)])
    frame = pd.DataFrame(
        {
            "user": np.repeat(np.arange(USERS), EACH),
            "item": items,
            "time": np.tile(np.arange(EACH) // 2, USERS),
            "rating": rng.integers(1, 6, USERS * EACH),
        }
    )
    return Interactions.from_frame(frame, name="tiny", time_unit="s")


def test_the_last_event_is_held_out_and_what_came_before_is_not_ranked(script: ModuleType, log: Interactions) -> None:
    events = script.as_events(log)
    assert (events.item == log.item_rows).all()
    last = events.item.reshape(USERS, EACH)[:, -1]
    assert (events.last() == last).all()
    top = script.top_items(script.popularity(events), events)
    for user, row in enumerate(top):
        others = np.setdiff1d(np.arange(events.num_items), events.item.reshape(USERS, EACH)[user, :-1])
        assert set(row[: len(others)]) == set(others)
    perfect = np.full((USERS, 10), -1)
    perfect[:, 1] = last
    np.testing.assert_allclose(script.gains(perfect, events), 1 / np.log2(3))


def test_last_line_is_json(
    script: ModuleType, log: Interactions, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(recgym.data, "load", lambda name: log)
    assert script.main(["--no-baselines", "--no-text", "--epochs", "2"]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(result) == {"preference"}
    assert 0 <= result["preference"]["ndcg@10"] <= result["preference"]["recall@10"] <= 1


def test_users_too_short_to_hold_two_out_are_named(script: ModuleType) -> None:
    frame = pd.DataFrame({"user": ["a", "a", "a", "b"], "item": [1, 2, 3, 1], "time": range(4), "rating": 3})
    with pytest.raises(DataError, match="1 users have fewer than 3 events, user b"):
        script.as_events(Interactions.from_frame(frame, time_unit="s"))
