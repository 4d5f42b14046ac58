"""Trips, tokens and the look-ups that training samples rest on."""

import numpy as np
import pytest

from recgym.user_models.preference.trips import FirstPurchases, Purchases, Trips, draw_tokens


def random_trips(seed: int = 0, users: int = 12, items: int = 30) -> Trips:
    rng = np.random.default_rng(seed)
    item, trip, owner, days = [], [], [], []
    for user in range(users):
        day = 0
        for _ in range(rng.integers(4, 15)):
            day += int(rng.integers(0, 9))
            basket = rng.choice(items, rng.integers(1, 14), replace=False)
            item.append(basket)
            trip.append(np.full(len(basket), len(owner)))
            owner.append(user)
            days.append(day)
    item, trip = np.concatenate(item), np.concatenate(trip)
    return Trips(item, rng.integers(1, 6, len(item)), trip, np.array(owner), np.array(days), users, items)


@pytest.fixture(scope="module")
def trips() -> Trips:
    return random_trips()


@pytest.mark.parametrize("empty", [0.0, 0.5])
def test_tokens_hold_every_event_once_in_order_of_trips(trips, empty):
    tokens = draw_tokens(trips, np.random.default_rng(1), group=5, empty=empty)
    sizes = (tokens.items >= 0).sum(1)
    assert sizes.max() <= 5
    assert (np.diff(tokens.trip) >= 0).all()
    for trip in range(len(trips.trip_user)):
        mine = tokens.trip == trip
        rows = tokens.items[mine]
        events = slice(trips.events[trip], trips.events[trip + 1])
        told = sorted(zip(rows[rows >= 0], tokens.feedback[mine][rows >= 0], strict=True))
        assert told == sorted(zip(trips.item[events], trips.feedback[events], strict=True))
        assert tokens.first[mine].tolist() == [True] + [False] * (mine.sum() - 1)
        assert tokens.bought[mine].tolist() == [0, *np.cumsum(sizes[mine])[:-1]]
        # What the drawn order says is left on the trip is what the later tokens hold.
        for token in np.flatnonzero(mine):
            left = trips.item[tokens.order[trips.events[trip] + tokens.bought[token] : trips.events[trip + 1]]]
            later = tokens.items[(tokens.trip == trip) & (np.arange(len(tokens.trip)) >= token)]
            assert sorted(left) == sorted(later[later >= 0])
    assert (sizes == 0).any() == (empty > 0)


def test_tokens_are_drawn_alike_from_one_seed(trips):
    first, second = (draw_tokens(trips, np.random.default_rng(7), 5, 0.2) for _ in range(2))
    assert np.array_equal(first.items, second.items)
    assert not np.array_equal(first.order, draw_tokens(trips, np.random.default_rng(8), 5, 0.2).order)


def test_lookups_agree_with_counting(trips):
    purchases, first = Purchases.of(trips), FirstPurchases.of(trips)
    rng = np.random.default_rng(2)
    for trip in rng.choice(len(trips.trip_user), 20, replace=False):
        user = trips.trip_user[trip]
        earlier = [t for t in range(trips.users[user], trip)]
        history = [trips.item[trips.events[t] : trips.events[t + 1]] for t in earlier]
        for item in range(trips.num_items):
            having = [t for t, basket in zip(earlier, history, strict=True) if item in basket]
            count, last = purchases.lookup(np.array([user]), np.array([item]), np.array([trip]))
            assert count[0] == len(having)
            assert last[0] == (trips.trip_day[having[-1]] if having else -1)
        owned = first.items[first.offsets[user] : first.offsets[user] + first.owned[trip]]
        assert sorted(owned) == sorted(set(np.concatenate(history)) if history else set())


def test_keys_of_large_logs_do_not_overflow():
    users, items = 2_000, 10**13
    trip = np.arange(2 * users)
    item = np.full(len(trip), items - 1)
    log = Trips(item, np.ones(len(trip), np.int64), trip, trip // 2, 10 * (trip % 2), users, items)
    count, last = Purchases.of(log).lookup(log.trip_user, item, trip)
    assert count.tolist() == [0, 1] * users
    assert last.tolist() == [-1, 0] * users


def test_pace_knows_only_what_came_before(trips):
    for user in range(3):
        rows = range(trips.users[user], trips.users[user + 1])
        mean = 0.0
        for number, trip in enumerate(rows):
            assert trips.pace[trip, 0] == number
            assert trips.pace[trip, 1] == pytest.approx(mean, abs=1e-5)
            mean += max(0.1, 1 / (number + 1)) * (np.log(trips.size[trip]) - mean)
        assert trips.final_pace[user, 1] == pytest.approx(mean, abs=1e-5)


def test_select_keeps_whole_trips(trips):
    part = trips.select(trips.before_last(2))
    assert len(part.trip_user) == len(trips.trip_user) - 2 * trips.num_users
    assert (np.diff(part.users) == np.diff(trips.users) - 2).all()
    for user in range(trips.num_users):
        mine = slice(part.events[part.users[user]], part.events[part.users[user + 1]])
        whole = trips.events[trips.users[user]]
        assert np.array_equal(part.item[mine], trips.item[whole : whole + mine.stop - mine.start])


def test_the_next_trip_is_empty_and_leaves_the_rest_as_it_was(trips):
    last = trips.trip_day[trips.users[1:] - 1]
    longer = trips.with_next(last + 3)
    added = longer.trip_user_remaining == 0
    assert (longer.size[added] == 0).all()
    assert np.array_equal(longer.trip_user[added], np.arange(trips.num_users))
    assert np.array_equal(longer.trip_day[added], last + 3)
    assert (longer.gap[added] == 3).all()
    before = longer.select(~added)
    for name in ("item", "feedback", "trip", "trip_user", "trip_day"):
        assert np.array_equal(getattr(before, name), getattr(trips, name)), name
    # What is known when the next trip starts is what was known at the end of the history.
    np.testing.assert_allclose(longer.pace[added], trips.final_pace, rtol=1e-6)
