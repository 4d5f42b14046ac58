"""Splits: disjoint, complete, deterministic, without leakage, stable on ties."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from recgym.data import Interactions, Split, by_user, global_temporal, leave_last, leave_last_basket
from recgym.errors import DataError


def random_log(seed: int = 0, events: int = 3000, users: int = 80) -> Interactions:
    rng = np.random.default_rng(seed)
    basket = np.sort(rng.integers(0, events // 4, events))
    owner = rng.integers(0, users, events // 4)
    day = rng.integers(0, 60, events // 4)  # many baskets of one user share a day: ties
    data = pd.DataFrame(
        {
            "user": owner[basket],
            "item": rng.integers(0, 50, events),
            "basket": basket,
            "time": day[basket].astype(float),
        }
    )
    return Interactions.from_frame(data.sample(frac=1, random_state=seed, ignore_index=True))


SPLITS: list[Callable[[Interactions], Split]] = [leave_last_basket, leave_last, global_temporal, by_user]


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("seed", range(5))
def test_parts_are_disjoint_complete_and_deterministic(split: Callable[[Interactions], Split], seed: int) -> None:
    log = random_log(seed)
    made, again = split(log), split(random_log(seed))
    total = made.train.astype(int) + made.validation.astype(int) + made.test.astype(int)
    assert (total == 1).all()
    assert sum(made.sizes.values()) == len(log)
    for part in ("train", "validation", "test"):
        assert getattr(made, part).any()
        assert np.array_equal(getattr(made, part), getattr(again, part))
        with pytest.raises(ValueError, match="read-only"):
            getattr(made, part)[0] = True
    assert made.log_hash == log.events_hash


@pytest.mark.parametrize("seed", range(5))
def test_leave_last_basket_holds_out_whole_last_baskets(seed: int) -> None:
    log = random_log(seed)
    split = leave_last_basket(log)
    frame = log.to_frame().assign(part=np.select([split.test, split.validation], [2, 1], 0))
    assert frame.groupby("basket")["part"].nunique().eq(1).all()
    for _, mine in frame.groupby("user"):
        baskets = mine["basket"].unique()  # in order of time
        if len(baskets) < 3:
            assert (mine["part"] == 0).all()
            continue
        assert mine.loc[mine["part"] == 2, "basket"].unique().tolist() == [baskets[-1]]
        assert mine.loc[mine["part"] == 1, "basket"].unique().tolist() == [baskets[-2]]
        latest = mine.groupby("part")["time"].agg(["min", "max"])
        assert latest.loc[0, "max"] <= latest.loc[1, "min"] <= latest.loc[1, "max"] <= latest.loc[2, "min"]


def test_leave_last_takes_the_last_two_events_and_keeps_ties_in_order() -> None:
    data = pd.DataFrame(
        {
            "user": [1, 1, 1, 1, 2, 2, 3],
            "item": [9, 8, 7, 6, 5, 4, 3],
            "time": pd.Timestamp("2020-01-01"),
            "rating": 3.0,
        }
    )
    log = Interactions.from_frame(data)
    split = leave_last(log)
    assert log["item"][split.test].tolist() == [6]
    assert log["item"][split.validation].tolist() == [7]
    assert split.parameters["users_training_only"] == 2


def test_global_temporal_never_separates_one_moment_and_never_leaks() -> None:
    log = random_log()
    split = global_temporal(log, validation=0.2, test=0.2)
    times = log["time"]
    assert times[split.train].max() < times[split.validation].min()
    assert times[split.validation].max() < times[split.test].min()
    assert 0.1 < split.test.mean() < 0.3
    moments = global_temporal(log, validation="1970-01-21", test="1970-02-10")
    assert times[moments.test].min() == np.datetime64("1970-02-10")
    assert times[moments.validation].min() == np.datetime64("1970-01-21")


def test_by_user_keeps_users_whole_and_in_place_when_users_are_added() -> None:
    log = random_log(users=60)
    split = by_user(log, validation=0.2, test=0.2, seed=3)
    part = np.select([split.test, split.validation], [2, 1], 0)
    assert pd.DataFrame({"user": log["user"], "part": part}).groupby("user")["part"].nunique().eq(1).all()
    fewer = log.select(log["user"] < 40, "fewer users")
    smaller = by_user(fewer, validation=0.2, test=0.2, seed=3)
    assert np.array_equal(smaller.test, split.test[log["user"] < 40])
    assert not np.array_equal(by_user(log, validation=0.2, test=0.2, seed=4).test, split.test)


def test_a_split_that_would_be_empty_or_leaky_is_refused() -> None:
    one = Interactions.from_frame(pd.DataFrame({"user": [1, 1], "item": [1, 2], "time": [1.0, 2.0], "basket": [1, 2]}))
    with pytest.raises(DataError, match="leaves no validation event"):
        leave_last(one)
    with pytest.raises(DataError, match="leaves no validation event"):
        leave_last_basket(one)
    with pytest.raises(DataError, match="leaves no"):
        by_user(one, seed=0)
    same = Interactions.from_frame(pd.DataFrame({"user": [1, 1, 1], "item": [1, 2, 3], "time": 1.0}))
    with pytest.raises(DataError, match="leaves no train event"):
        global_temporal(same)
    with pytest.raises(DataError, match="has no column 'basket' for leave_last_basket; use leave_last"):
        leave_last_basket(same)
    shared = Interactions.from_frame(
        pd.DataFrame({"user": [1, 2, 2, 2], "item": 1, "basket": ["x", "x", "y", "z"], "time": [1.0, 2.0, 3.0, 4.0]})
    )
    with pytest.raises(DataError, match="basket 'x' belongs to more than one user"):
        leave_last_basket(shared)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"validation": 0.0}, "validation must be a fraction"),
        ({"test": 1.5}, "test must be a fraction"),
        ({"validation": 0.5, "test": 0.5}, "must be below 1"),
        ({"validation": "1970-01-05"}, "both be fractions or both be moments"),
        ({"validation": "1970-01-05", "test": "1970-01-02"}, "validation must begin before test"),
        ({"validation": "then", "test": "1970-01-02"}, "got 'then'"),
    ],
)
def test_bad_options_are_named(options: dict[str, float | str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        global_temporal(random_log(), **options)
