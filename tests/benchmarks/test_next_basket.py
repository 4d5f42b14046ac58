"""The next-basket benchmark: the split, the baselines and bad input. Its figures come from running it."""

import argparse
import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from recgym.data.sources import completejourney
from recgym.errors import DataError
from recgym.user_models.preference.trips import Trips
from tests.user_models.test_trips import random_trips

FILE = Path(__file__).parents[2] / "benchmarks" / "next_basket.py"


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small data set: the tables of products and demographics, and those transactions with prices."""
    folder = tmp_path_factory.mktemp("completejourney")
    products = {"product_id": [100, 101, 102], "manufacturer_id": 1, "department": "GROCERY", "brand": "National"}
    more = {"product_category": ["FRZN PIZZA", "MILK", "BREAD"], "product_type": None, "package_size": "1 LB"}
    pd.DataFrame(products | more).to_parquet(folder / "products.parquet")
    people = {"household_id": [1, 2], **dict.fromkeys(completejourney.DEMOGRAPHICS, "some")}
    pd.DataFrame(people).to_parquet(folder / "demographics.parquet")
    shop().to_parquet(folder / "transactions.parquet")
    return folder


@pytest.fixture(scope="module", autouse=True)
def small_data_set(tables: Path) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(completejourney, "fetch", lambda: tables)
        yield


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


def shop() -> pd.DataFrame:
    """Those with prices: items 100, 101 and 102 have 20 buyers."""
    return transactions().assign(sales_value=2.0, retail_disc=0.0, coupon_match_disc=0.0)


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
    first = transactions()[lambda log: log["basket_id"] % 1000 == 0]
    assert bench.expected_times(first)[5] == pd.Timestamp("2017-01-01 10:00") + pd.Timedelta(days=7)


def test_baskets_may_be_numbered_within_each_household(bench):
    """Two households' baskets of one id stay two baskets."""
    log = shop()
    own = log.assign(basket_id=log["basket_id"] % 1000)
    pd.testing.assert_series_equal(bench.expected_times(own), bench.expected_times(log))
    trips, same = (bench.prepared_log(each, bench.expected_times(log), 20).trips for each in (log, own))
    assert np.array_equal(trips.item, same.item)
    assert np.array_equal(trips.trip, same.trip)


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


def options(**changes) -> argparse.Namespace:
    told = {"log": None, "at": None, "baselines": False, "seed": 0, "work": None}
    return argparse.Namespace(**told | {"pretrain_epochs": None, "finetune_epochs": None} | changes)


def test_ndcg_and_recall_by_hand(bench, capsys):
    """Everybody's last basket holds 100 and 102; household 1's holds 555 for 102, which nobody bought before."""
    log, held = bench.hold_out(shop())
    prepared = bench.prepared_log(log, held.groupby("household_id")["transaction_timestamp"].min(), 1)
    assert prepared.items["item_id"].tolist() == ["100", "101", "102"]
    held.loc[(held["household_id"] == 1) & (held["product_id"] == 102), "product_id"] = 555
    order = {"preference": [3.0, 1.0, 2.0], "popularity": [2.0, 3.0, 1.0]}  # 100, 102, 101 and 101, 100, 102
    scores = {name: np.tile(np.array(values, np.float32), (23, 1)) for name, values in order.items()}
    result = bench.evaluate(scores, prepared.trips, held, prepared)
    second, third = 1 / np.log2(3), 1 / np.log2(4)
    best = (22 * 1 + 1 / (1 + second)) / 23
    other = (22 * (second + third) / (1 + second) + second / (1 + second)) / 23
    assert result["preference"]["ndcg@10"][0] == pytest.approx(best, abs=1e-4)
    assert result["popularity"]["ndcg@10"][0] == pytest.approx(other, abs=1e-4)
    assert result["preference"]["recall@10"][0] == pytest.approx(22.5 / 23, abs=1e-4)
    above = result["preference above popularity"]
    assert above["ndcg@10"][0] == pytest.approx(best - other, abs=1e-4)
    assert above["ratio"] == pytest.approx(best / other, abs=1e-4)
    for value, low, high in (above["ndcg@10"], *result["preference"].values()):
        assert low <= value <= high
    assert "1 held-out purchases of items that nobody bought before: counted as misses" in capsys.readouterr().out


def test_the_best_items_of_every_household(bench, capsys, monkeypatch):
    """Household 0 has too few baskets and 7777 none: they are given the most popular items."""
    monkeypatch.setattr(bench, "TOP", 2)
    log = shop()[lambda log: log["basket_id"] > 0]
    prepared = bench.prepared_log(log, bench.expected_times(log), 20)
    scores = np.tile(np.array([0.5, 3.0, -1.0], np.float32), (23, 1))
    scores[4] = [0.0, 1.0, 2.0]  # the fifth user is household 5
    times = pd.Series(pd.Timestamp("2017-04-01"), index=[7777, 5, 1, 0])
    found = bench.predictions(scores, prepared, times).set_index("household")
    assert found.loc[5, "item"].tolist() == [102, 101]
    assert found.loc[5, "score"].tolist() == [2.0, 1.0]
    assert found.loc[1, "item"].tolist() == [101, 100]
    for household in (7777, 0):
        assert found.loc[household, "item"].iloc[0] == 100
        assert found.loc[household, "score"].is_monotonic_decreasing
    assert list(dict.fromkeys(found.index)) == [7777, 5, 1, 0]
    assert "2 households with fewer than 4 baskets are given the most popular items" in capsys.readouterr().out


def test_a_log_with_times_to_predict(bench, capsys, monkeypatch, tmp_path):
    """Household 3 is told its day, 4 is not; the file holds what the model says, for both and for a stranger."""
    shop().to_parquet(tmp_path / "log.parquet")
    at = pd.DataFrame({"household_id": [3, 7777], "transaction_timestamp": pd.to_datetime(["2017-06-01 08:00"] * 2)})
    at.to_parquet(tmp_path / "at.parquet")
    given = {}

    def scores(prepared, epochs, seed, directory):
        trips = prepared.trips
        next_days = trips.trip_day[trips.trip_user_remaining == 0]
        given.update(epochs=epochs, seed=seed, days=dict(zip(prepared.users["user_id"], next_days, strict=True)))
        return np.tile(np.array([1.0, 2.0, 3.0], np.float32), (trips.num_users, 1)), {"ndcg@10": 0.5}

    monkeypatch.setattr(bench, "model_scores", scores)
    out = tmp_path / "new" / "out.parquet"
    told = {"log": tmp_path / "log.parquet", "at": tmp_path / "at.parquet", "predictions": out}
    result = bench.run(options(**told, seed=7, finetune_epochs=1))
    assert result == {
        "households": 24, "items": 3, "seed": 7, "finetune_epochs": 1, "validation": {"ndcg@10": 0.5}
    }  # fmt: skip
    assert given["epochs"] == {"finetune_epochs": 1}
    assert given["days"]["3"] == 151  # of 2017, from 0
    assert given["days"]["4"] == 9 * 6 + 4
    found = pd.read_parquet(out).groupby("household")["item"].first()
    assert set(found.index) == {7777, *range(24)}
    assert found[3] == 102
    assert found[7777] == 100
    assert [path.name for path in out.parent.iterdir()] == ["out.parquet"]
    assert "1 households of" in capsys.readouterr().out


def test_the_whole_benchmark_on_a_small_shop(bench, monkeypatch, tmp_path):
    """A stand-in for the model that is personal frequency is exactly as good, and knows no held-out basket."""

    def scores(prepared, epochs, seed, directory):
        assert len(prepared.trips.item) == 23 * 5 * 2
        return bench.personal_frequency(bench.Histories.before(prepared.trips, 1)), {}

    monkeypatch.setattr(bench, "model_scores", scores)
    result = bench.run(options(predictions=tmp_path / "out.parquet", baselines=True))
    json.dumps(result, allow_nan=False)
    assert result["preference above personal_frequency"] == {"ndcg@10": [0.0, 0.0, 0.0], "ratio": 1.0}
    # Item 100 was bought on each of five trips, 101 on three, 102 on two: the last holds the first and the third.
    by_hand = (1 + 1 / np.log2(4)) / (1 + 1 / np.log2(3))
    for name in ("preference", "popularity", "tifu_knn"):
        assert result[name]["recall@10"] == [1.0, 1.0, 1.0]
    assert result["popularity"]["ndcg@10"] == pytest.approx([by_hand] * 3, abs=1e-4)


def test_a_place_that_cannot_be_written_is_refused_before_the_training(bench, monkeypatch, tmp_path):
    monkeypatch.setattr(bench, "model_scores", lambda *given: pytest.fail("trained"))
    shop().to_parquet(tmp_path / "log.parquet")
    for path in (tmp_path / "log.parquet" / "out.parquet", tmp_path):
        with pytest.raises(DataError, match="--predictions"):
            bench.run(options(log=tmp_path / "log.parquet", predictions=path))


def test_no_half_a_file_takes_the_place_of_the_one_of_before(bench, monkeypatch, tmp_path):
    shop().to_parquet(tmp_path / "log.parquet")
    out = tmp_path / "out" / "out.parquet"
    out.parent.mkdir()
    out.write_bytes(b"before")
    monkeypatch.setattr(bench, "model_scores", lambda prepared, *rest: (np.zeros((24, 3), np.float32), {}))

    def broken(frame, file, **rest):
        Path(file).write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(pd.DataFrame, "to_parquet", broken)
    with pytest.raises(OSError, match="disk full"):
        bench.run(options(log=tmp_path / "log.parquet", predictions=out))
    assert [path.read_bytes() for path in out.parent.iterdir()] == [b"before"]
