"""The next-basket benchmark: the split, the baselines and bad input. Its figures come from running it."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from recgym.errors import DataError
from recgym.user_models.preference.trips import Trips
from tests.user_models.test_trips import random_trips

FILE = Path(__file__).parents[2] / "benchmarks" / "next_basket.py"


@pytest.fixture(scope="module")
def bench():
    if not FILE.is_file():
        pytest.skip("benchmarks are part of a checkout, not of the wheel")
    spec = importlib.util.spec_from_file_location("next_basket", FILE)
    module = importlib.util.module_from_spec(spec)
    sys.modules["next_basket"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["next_basket"]


def transactions(households: int = 24, baskets: int = 6) -> pd.DataFrame:
    rows = []
    for household in range(households):
        for basket in range(baskets if household else baskets - 2):  # household 0 has too few
            when = pd.Timestamp("2017-01-01 10:00") + pd.Timedelta(days=9 * basket + household % 5)
            for product in (100, 101 + basket % 2, 900 + household):  # 900 and above: one buyer each
                rows.append((household, 1000 * household + basket, product, 1, when))
    columns = ["household_id", "basket_id", "product_id", "quantity", "transaction_timestamp"]
    return pd.DataFrame(rows, columns=columns)


def test_the_last_basket_of_every_kept_household_is_held_out(bench):
    log, held = bench.hold_out(transactions())
    assert set(log["household_id"]) == set(held["household_id"]) == set(range(1, 24))
    assert set(log["product_id"]) == {100, 101, 102}
    assert held.groupby("household_id")["basket_id"].nunique().eq(1).all()
    newest = log.groupby("household_id")["transaction_timestamp"].max()
    assert (held.groupby("household_id")["transaction_timestamp"].min() > newest).all()


def test_the_expected_time_is_the_last_basket_plus_the_median_gap(bench):
    times = bench.expected_times(transactions())
    assert times[5] == pd.Timestamp("2017-01-01 10:00") + pd.Timedelta(days=9 * 6)


def test_vectors_of_tifu_by_hand(bench):
    """One user, five baskets, two groups: baskets 0, 1 and baskets 2, 3, 4."""
    item, trip = np.array([0, 1, 0, 2, 0]), np.arange(5)
    trips = Trips(item, np.ones(5, np.int64), trip, np.zeros(5, np.int64), np.arange(5), 1, 3)
    past = bench.Histories.before(trips, 0)
    within, between = 0.5, 0.1
    paper = bench.tifu_vectors(past, 2, within, between, False).toarray()[0]
    assert paper == pytest.approx(
        [(between * 0.5 / 2 + (0.25 + 1) / 3) / 2, between * 1 / 2 / 2, 0.5 / 3 / 2], rel=1e-5
    )
    code = bench.tifu_vectors(past, 2, within, between, True).toarray()[0]
    assert code == pytest.approx(
        [(between * 0.5**4 / 2 + (0.5**2 + 1) / 3) / 2, between * 0.5**3 / 2 / 2, 0.5 / 3 / 2], rel=1e-5
    )


def test_without_decay_and_neighbours_tifu_is_personal_frequency(bench):
    trips = random_trips(2)
    past = bench.Histories.before(trips, 1)
    vectors = bench.tifu_vectors(past, 1, 1.0, 1.0, False)
    scores = bench.tifu_scores(vectors, bench.nearest(vectors, 3), 3, 1.0)
    expected = past.matrix().toarray() / past.length[:, None]
    np.testing.assert_allclose(scores, expected, rtol=1e-5)


def test_neighbours_are_the_others_nearest_first(bench):
    past = bench.Histories.before(random_trips(4), 1)
    vectors = bench.tifu_vectors(past, 3, 0.9, 0.7, False)
    dense = vectors.toarray()
    for user, found in enumerate(bench.nearest(vectors, 4)):
        distance = np.linalg.norm(dense - dense[user], axis=1)
        distance[user] = np.inf
        assert distance[found] == pytest.approx(np.sort(distance)[:4], abs=1e-3)


def test_tuning_never_reads_the_test_trips(bench):
    """Other test baskets change neither the parameters nor the scores."""
    trips = random_trips(6, users=14)
    last = trips.trip_user_remaining[trips.trip] == 0
    other = Trips(
        np.where(last, (trips.item + 7) % trips.num_items, trips.item),
        trips.feedback, trips.trip, trips.trip_user, trips.trip_day, trips.num_users, trips.num_items,
    )  # fmt: skip
    scores, chosen = bench.tuned_tifu(trips)
    again, same = bench.tuned_tifu(other)
    assert chosen == same
    assert np.array_equal(scores, again)


def test_times_may_be_text_or_have_a_zone(bench, tmp_path):
    plain = transactions()
    for times in (
        plain["transaction_timestamp"].astype(str),
        plain["transaction_timestamp"].dt.tz_localize("Etc/GMT+5"),
    ):
        plain.assign(transaction_timestamp=times).to_parquet(tmp_path / "log.parquet")
        found = bench.read(tmp_path / "log.parquet", tuple(plain))
        assert (found["transaction_timestamp"] == plain["transaction_timestamp"]).all()


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("transaction_timestamp", pd.Timestamp("2217-01-01"), "row 3, .*a time must not lie in the future"),
        ("sales_value", -3.0, "row 3, column 'price': price must be at least 0"),
        ("quantity", -1, "row 3, column 'quantity': quantity must be at least 0"),
    ],
)
def test_a_bad_log_is_refused_by_row(bench, column, value, message):
    log = transactions().assign(sales_value=2.0, retail_disc=0.0, coupon_match_disc=0.0)
    log[column] = log[column].astype(object)
    log.loc[2, column] = value
    log[column] = log[column].infer_objects()
    with pytest.raises(DataError, match=message):
        bench.prepared_log(log, bench.expected_times(log), 20)


def test_what_is_left_out_of_a_log_is_counted(bench):
    """Household 0 has too few baskets, 24 products one buyer each; a line comes twice and a column is not known."""
    log = transactions().assign(sales_value=2.0, retail_disc=0.0, coupon_match_disc=0.0, cashier="x")
    log = pd.concat([log, log.iloc[[100]]], ignore_index=True)
    prepared = bench.prepared_log(log, bench.expected_times(log), 20)
    counts = {f.reason: (f.count, f.detail) for f in prepared.filters}
    assert counts["columns not read"] == (1, "cashier")
    assert counts["items with fewer than 20 users"][0] == int((log["product_id"] >= 900).sum())
    assert counts["repeated item in a trip"][0] == 1
    assert prepared.trips.num_items == 3


def test_bad_input_is_named(bench, tmp_path):
    file = tmp_path / "log.parquet"
    transactions().drop(columns="quantity").to_parquet(file)
    with pytest.raises(DataError, match="lacks quantity"):
        bench.read(file, ("household_id", "quantity"))
    transactions().iloc[:0].to_parquet(file)
    with pytest.raises(DataError, match="no rows"):
        bench.read(file, ("household_id",))
    file.write_bytes(b"household_id,quantity")
    with pytest.raises(DataError, match="parquet"):
        bench.read(file, ("household_id",))
    twice = pd.DataFrame({"household_id": [3, 3], "transaction_timestamp": ["2017-12-01", "2017-12-02"]})
    with pytest.raises(DataError, match="household 3 has more than one"):
        bench.household_times(twice, file)
    wrong = pd.DataFrame({"household_id": [3, 4], "transaction_timestamp": ["2017-12-01", "soon"]})
    with pytest.raises(DataError, match="row 2 is 'soon'"):
        bench.household_times(wrong, file)
