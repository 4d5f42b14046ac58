"""Trends count what was bought in the days before, and nothing later."""

import numpy as np
import pytest

from recgym.user_models.preference.network import TREND_DAYS
from recgym.user_models.preference.trends import Trends
from recgym.user_models.preference.trips import Trips
from tests.user_models.test_trips import random_trips


def trends_of(trips: Trips) -> Trends:
    return Trends.of(trips, np.bincount(trips.item, minlength=trips.num_items))


def test_trends_agree_with_counting():
    trips = random_trips(1)
    usual = (np.bincount(trips.item, minlength=trips.num_items) + 1) / (len(trips.item) + trips.num_items)
    days = trips.trip_day[trips.trip]
    end = int(days.max()) + 1
    rng = np.random.default_rng(0)
    day, item = rng.integers(0, end + 50, 300), rng.integers(0, trips.num_items, 300)
    found = trends_of(trips).at(day, item)
    for row in range(300):
        for column, window in enumerate(TREND_DAYS):
            lately = (days < day[row]) & (days >= day[row] - window)
            bought = (lately & (trips.item == item[row])).sum()
            expected = lately.sum() * usual[item[row]]
            assert found[row, column] == pytest.approx(np.log((bought + 2) / (expected + 2)), abs=1e-5)
    now = trends_of(trips).now()
    assert np.array_equal(now, trends_of(trips).at(np.full(trips.num_items, end), np.arange(trips.num_items)))


def test_a_trend_never_knows_its_own_day_or_later():
    trips = random_trips(2)
    day = 20
    late = trips.trip_day[trips.trip] >= day
    other = Trips(
        np.where(late, (trips.item + 7) % trips.num_items, trips.item),
        trips.feedback, trips.trip, trips.trip_user, trips.trip_day, trips.num_users, trips.num_items,
    )  # fmt: skip
    popularity, items = np.bincount(trips.item, minlength=trips.num_items), np.arange(trips.num_items)
    before, after = (Trends.of(log, popularity).at(np.full(len(items), day), items) for log in (trips, other))
    assert np.array_equal(before, after)
    assert not np.array_equal(Trends.of(trips, popularity).now(), Trends.of(other, popularity).now())


def test_an_item_that_sells_as_usual_has_no_trend():
    users = np.repeat(np.arange(40), 10)
    trip = np.arange(400)
    trips = Trips((users + trip) % 2, np.ones(400, np.int64), trip, users, np.tile(np.arange(10), 40), 40, 2)
    assert np.abs(trends_of(trips).now()).max() < 0.05
