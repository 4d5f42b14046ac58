"""What the card says of trips: quantities, features, controls and groups against answers worked out by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from recgym.errors import WorldError
from recgym.testing.worlds import tiny_world
from recgym.user_models.preference.trips import Trips
from recgym.worlds.marginals import category_entropy, compare, quantities, repeated, spends
from recgym.worlds.sequences import sequence_features
from recgym.worlds.unaided import Events, continued, popularity_trips, unaided_trips
from recgym.worlds.world import World


def make(rows: list[tuple[int, int, list[int]]], num_users: int, num_items: int, feedback: int = 1) -> Trips:
    """Trips from (user, day, items), in order."""
    return Trips(
        item=np.array([item for _, _, items in rows for item in items], np.int64),
        feedback=np.array([feedback for _, _, items in rows for _ in items], np.int64),
        trip=np.array([trip for trip, (_, _, items) in enumerate(rows) for _ in items], np.int64),
        trip_user=np.array([user for user, _, _ in rows], np.int64),
        trip_day=np.array([day for _, day, _ in rows], np.int64),
        num_users=num_users,
        num_items=num_items,
    )


TRIPS = make([(0, 0, [0, 1]), (0, 3, [1, 2, 3]), (0, 3, [0]), (1, 2, [1]), (1, 9, [1, 0])], 2, 4)
ITEMS = pd.DataFrame(
    {
        "price": [1.0, 2.0, 4.0, 8.0],
        "popularity": [9, 99, 0, 0],
        "category": ["a", "a", "b", "b"],
        "subcategory": ["x", "y", "z", "z"],
    }
)


def test_repeats_are_items_of_earlier_trips_of_the_same_user() -> None:
    assert repeated(TRIPS).tolist() == [False, False, True, False, False, True, False, True, False]


def test_category_entropy_is_in_bits() -> None:
    entropy = category_entropy(TRIPS, np.array([0, 1, 2, 2]))
    assert entropy == pytest.approx([1, -(1 / 3) * np.log2(1 / 3) - (2 / 3) * np.log2(2 / 3), 0, 0, 1])


def test_spend_is_price_times_quantity() -> None:
    twice = make([(0, 0, [0, 1]), (0, 3, [3])], 1, 4, feedback=2)
    assert spends(twice, ITEMS).tolist() == [6, 16]


def test_quantities_are_those_of_the_trips_asked_for() -> None:
    rows = TRIPS.trip_user_remaining < 1
    found = {q.name: np.asarray(q.values).tolist() for q in quantities(TRIPS, rows, ITEMS, "purchase", "USD")}
    assert found["basket size"] == [1, 2]
    assert found["days between trips"] == [0, 7]
    assert found["spend at the world's prices"] == [1, 3]
    assert found["popularity of each item bought"] == [1, 2, 1]
    assert found["share of items that are repeats"] == [1, 0.5]
    assert found["category entropy of a trip"] == [0, 1]
    with pytest.raises(WorldError, match="no trips to describe"):
        quantities(TRIPS, np.zeros(5, bool), ITEMS, "purchase", "USD")


def test_a_rating_world_has_no_spend_and_says_ratings() -> None:
    names = [q.name for q in quantities(TRIPS, np.ones(5, bool), ITEMS, "rating", None)]
    assert not any("spend" in name for name in names)
    assert names[-1] == "rating of each item rated"


def test_comparing_trips_with_themselves_finds_no_distance() -> None:
    found = quantities(TRIPS, np.ones(5, bool), ITEMS, "purchase", "USD")
    for row in compare(found, {"model": found}, (found, found)):
        assert row["model"] == {"ks": 0, "jensen_shannon": 0, "wasserstein": 0}
        assert row["mean"]["model"] == row["mean"]["held_out"]
        shares = row["histogram"]["shares"]
        assert sum(shares["held_out"]) == pytest.approx(1, abs=0.001)
        assert shares["held_out"] == shares["model"]


def test_a_log_goes_on_with_the_trips_made() -> None:
    history = TRIPS.select(TRIPS.before_last(1))
    kept = TRIPS.trip_user_remaining[TRIPS.trip] == 0
    last = Events(
        user=TRIPS.trip_user[TRIPS.trip][kept],
        trip=np.zeros(kept.sum(), np.int64),
        day=TRIPS.trip_day[TRIPS.trip][kept],
        item=TRIPS.item[kept],
        feedback=TRIPS.feedback[kept],
    )
    whole = continued(history, last)
    for name in ("item", "feedback", "trip", "trip_user", "trip_day", "gap", "size"):
        assert getattr(whole, name).tolist() == getattr(TRIPS, name).tolist(), name


@pytest.fixture(scope="module")
def world() -> World:
    return tiny_world(num_users=70)


@pytest.fixture(scope="module")
def history(world: World) -> Trips:
    """Histories of as many trips as the world says its users have, ending when it says."""
    rng = np.random.default_rng(0)
    rows = [
        (user, int(row.last_day) - (int(row.num_trips) - 1 - number), rng.choice(300, 3, replace=False).tolist())
        for user, row in enumerate(world.users.itertuples())
        for number in range(int(row.num_trips))
    ]
    return make(rows, world.num_users, world.num_items)


def test_unaided_trips_follow_the_history_and_repeat_themselves(world: World, history: Trips) -> None:
    shares: list[float] = []
    made = unaided_trips(world, history, number=2, seed=3, report=shares.append)
    assert shares == [64 / 70, 1]
    assert (np.diff(made.users) == np.diff(history.users) + 2).all()
    new = made.trip_user_remaining < 2
    assert (made.select(~new).item == history.item).all()
    assert (np.diff(made.trip_day)[np.diff(made.trip_user) == 0] >= 0).all()
    assert made.size.min() >= 1
    assert len(np.unique(made.trip * made.num_items + made.item)) == len(made.item)  # no item twice on a trip
    assert made.feedback[new[made.trip]].min() >= 1
    assert (unaided_trips(world, history, number=2, seed=3).item == made.item).all()
    assert len(made.item) != len(unaided_trips(world, history, number=2, seed=4).item)


def test_the_popularity_simulator_draws_items_by_popularity_alone() -> None:
    counts = np.array([600, 300, 90, 10])
    rng = np.random.default_rng(1)
    rows = [(user, day, [int(rng.choice(4, p=counts / 1000))]) for user in range(50) for day in range(0, 40, 2)]
    history = make(rows, 50, 4)
    made = popularity_trips(history, number=20, seed=0)
    new = made.trip_user_remaining < 20
    assert new.sum() == 1000
    assert set(made.gap[new]) == {2}
    assert set(made.size[new]) == {1}
    share = np.bincount(made.item[new[made.trip]], minlength=4) / 1000
    assert share == pytest.approx(np.bincount(history.item, minlength=4) / 1000, abs=0.04)


def test_features_of_a_sequence_by_hand(world: World) -> None:
    trips = make(
        [(0, 0, [5, 6]), (0, 4, [5, 7]), (0, 10, [5, 7, 8]), (1, 0, [1]), (1, 1, [1]), (1, 2, [2])], 2, world.num_items
    )
    values, names = sequence_features(trips, world, number=2)
    assert values.shape == (2, len(names))
    found = {name: values[:, at] for at, name in enumerate(names)}
    assert found["trip 1: log gap"] == pytest.approx(np.log1p([4, 1]))
    assert found["trip 2: log gap"] == pytest.approx(np.log1p([6, 1]))
    assert found["trip 1: share of repeats"] == pytest.approx([0.5, 1])
    assert found["trip 2: share of repeats"] == pytest.approx([2 / 3, 0])
    assert found["overlap of trips 1 and 2"] == pytest.approx([2 / 3, 0])
    assert found["trips so far"].tolist() == [1, 1]
    unit = torch.nn.functional.normalize(world.item_tensors["text_pca"], dim=1)
    assert found["trip 1: likeness of texts"] == pytest.approx([float(unit[5] @ unit[7]), 0], abs=1e-6)
    assert np.isfinite(values).all()
