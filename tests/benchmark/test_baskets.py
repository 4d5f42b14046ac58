"""What the next-basket benchmark reads: good logs, and what it says of others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from recgym.benchmark.baskets import read_log, read_times
from recgym.errors import DataError

END = pd.Timestamp("2017-12-31")


def log(**columns: object) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "household_id": [1, 1, 2],
            "basket_id": [10, 11, 12],
            "product_id": [100, 101, 100],
            "quantity": [1, 2, 1],
            "sales_value": [2.0, 3.5, 1.0],
            "retail_disc": 0.0,
            "coupon_match_disc": 0.0,
            "transaction_timestamp": pd.to_datetime(["2017-01-01 10:00", "2017-01-03 11:30", "2017-02-01 00:00"]),
            "store_id": 7,
            **columns,
        }
    )


def read(frame: pd.DataFrame, path: Path) -> pd.DataFrame:
    frame.to_parquet(path / "log.parquet")
    return read_log(path / "log.parquet")


@pytest.mark.parametrize(
    "columns",
    [
        {},
        {"transaction_timestamp": ["2017-01-01T10:00:00", "2017-01-03 11:30", "2017-02-01"]},
        {"transaction_timestamp": ["2017-01-01T10:00:00+05:00", "2017-01-03 11:30+05:00", "2017-02-01 00:00+05:00"]},
        {"transaction_timestamp": log()["transaction_timestamp"].dt.tz_localize("Etc/GMT+5")},
        {"transaction_timestamp": log()["transaction_timestamp"].astype("datetime64[us]")},
        {"household_id": [1.0, 1.0, 2.0], "quantity": ["1", "2", "1"]},
        {"household_id": pd.Categorical([1, 1, 2])},
    ],
)
def test_what_means_the_same_is_read_the_same(tmp_path: Path, columns: dict[str, object]) -> None:
    expected = log(quantity=[1.0, 2.0, 1.0])
    expected["transaction_timestamp"] = expected["transaction_timestamp"].astype("datetime64[ns]")
    pd.testing.assert_frame_equal(read(log(**columns), tmp_path), expected)


def test_rows_that_come_again_are_counted_and_dropped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = log(store_id=8).iloc[[2]]  # differs in a column that nobody needs: it is another row
    found = read(pd.concat([log(), log().iloc[1:], other]), tmp_path)
    assert found["store_id"].tolist() == [7, 7, 7, 8]
    assert "log.parquet: 2 rows dropped that repeat another one" in capsys.readouterr().out
    read(log(), tmp_path)
    assert not capsys.readouterr().out


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("household_id", ["1", "1", "2"], "row 1, column 'household_id': an id must be a whole number, not text"),
        ("household_id", [1, None, 2], "row 2, column 'household_id': an id must not be missing"),
        ("product_id", [1.5, 2, 3], "row 1, column 'product_id': an id must be a whole number"),
        ("quantity", ["1", "two", "1"], "row 2, column 'quantity': must be a number, at least 0, got 'two'"),
        ("quantity", [1, -2, 1], "row 2, column 'quantity': must be a number, at least 0, got -2"),
        ("sales_value", [1.0, 2.0, np.inf], "row 3, column 'sales_value': must be a number, at least 0, got inf"),
        ("retail_disc", [np.nan, 0.0, 0.0], "row 1, column 'retail_disc': must be a number, at least 0, got nan"),
        ("transaction_timestamp", [1_483_264_800] * 3, "a number does not say its unit, got 1483264800"),
        (
            "transaction_timestamp",
            pd.to_datetime(["2017-01-01", "2150-01-01", "2017-01-01"]),
            "row 2, .* must be a time",
        ),
        ("transaction_timestamp", pd.to_datetime([0, 0, 0]), "row 1, .* must be a time from 1980-01-01 to"),
        ("transaction_timestamp", ["2017-01-01", "soon", "2017-01-01"], "row 2, .* must be a time .*, got 'soon'"),
        ("transaction_timestamp", ["2017-01-01", None, "2017-01-01"], "row 2, .* must be a time"),
        (
            "transaction_timestamp",
            ["2017-01-01 10:00-05:00", "2017-07-01 10:00-04:00", "2017-08-01 10:00-04:00"],
            "column 'transaction_timestamp': times must all name the same time zone, or none",
        ),
        ("store_id", [[1], [2], [3]], "columns must hold plain values"),
    ],
)
def test_a_bad_value_is_named(tmp_path: Path, column: str, values: object, message: str) -> None:
    with pytest.raises(DataError, match=f"log.parquet.*{message}"):
        read(log(**{column: values}), tmp_path)


def test_files_that_are_no_log(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="lacks quantity; it has household_id"):
        read(log().drop(columns="quantity"), tmp_path)
    with pytest.raises(DataError, match="holds no rows"):
        read(log().iloc[:0], tmp_path)
    (tmp_path / "log.parquet").write_bytes(b"household_id,quantity")
    with pytest.raises(DataError, match="cannot be read as parquet"):
        read_log(tmp_path / "log.parquet")
    with pytest.raises(DataError, match="cannot be read as parquet"):
        read_log(tmp_path / "none.parquet")


def times(path: Path, households: object, moments: object) -> pd.Series:
    frame = pd.DataFrame({"household_id": households, "transaction_timestamp": moments})
    frame.to_parquet(path / "at.parquet")
    return read_times(path / "at.parquet", END)


def test_times_to_predict_by_household(tmp_path: Path) -> None:
    found = times(tmp_path, [4, 3], ["2017-12-01 08:00", "2018-12-31"])
    assert found.to_dict() == {4: pd.Timestamp("2017-12-01 08:00"), 3: pd.Timestamp("2018-12-31")}
    assert found.dtype == "datetime64[ns]"


@pytest.mark.parametrize(
    ("households", "moments", "message"),
    [
        ([3, 3], ["2017-12-01", "2017-12-02"], "household 3 has more than one"),
        ([3, 4], ["2017-12-01", "soon"], "row 2, .* got 'soon'"),
        ([3, None], ["2017-12-01", "2017-12-01"], "row 2, column 'household_id': an id must not be missing"),
        (["3", "4"], ["2017-12-01", "2017-12-01"], "an id must be a whole number, not text"),
        (
            [3, 4],
            pd.to_datetime(["2017-12-01", "2019-01-02"]),
            "row 2, .* must be a time from 1980-01-01 to 2019-01-01",
        ),
        ([3, 4], pd.to_datetime(["2900-01-01", "2017-12-01"]), "row 1, .* must be a time"),
    ],
)
def test_bad_times_to_predict_are_named(tmp_path: Path, households: object, moments: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        times(tmp_path, households, moments)
