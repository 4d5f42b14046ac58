"""The Interactions schema: what is accepted, how it is ordered and hashed, and what errors say."""

from __future__ import annotations

import dataclasses
import io
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from recgym.data import FilterCount, Interactions
from recgym.data.schema import SCHEMA
from recgym.errors import DataError, UnknownNameError


def frame(**changes: Any) -> pd.DataFrame:
    columns = {
        "user": [2, 1, 1, 2],
        "item": ["b", "a", "b", "a"],
        "time": pd.to_datetime(["2020-01-03", "2020-01-02", "2020-01-01", "2020-01-01"]),
        "price": [1.5, 2.0, np.nan, 0.0],
        "quantity": [1, 2, 3, 4],
    }
    return pd.DataFrame(columns | changes)


def error_of(data: pd.DataFrame, mapping: dict[str, str] | None = None, **options: Any) -> str:
    with pytest.raises(DataError) as caught:
        Interactions.from_frame(data, mapping, **options)
    return str(caught.value)


def test_events_are_sorted_by_user_and_time_and_rows_point_into_the_tables() -> None:
    items = pd.DataFrame({"item": ["c", "b", "a"], "title": ["See", "Bee", "Ay"], "brand": [None, "X", "Y"]})
    log = Interactions.from_frame(frame(), items=items, name="small")
    assert len(log) == 4
    assert log["user"].tolist() == [1, 1, 2, 2]
    assert log["item"].tolist() == ["b", "a", "a", "b"]
    assert log["time"].dtype == np.dtype("datetime64[ns]")
    assert log["user"].dtype == np.int64
    assert log["quantity"].dtype == np.float64
    assert log.items.index.tolist() == ["a", "b", "c"]
    assert log.items.index[log.item_rows].tolist() == log["item"].tolist()
    assert log.users.index[log.user_rows].tolist() == log["user"].tolist()
    assert log.items.loc["b", "text"] == "Bee. X"
    assert log.items.loc["c", "text"] == "See"
    assert log.days.tolist() == [0, 1, 0, 2]
    assert log.num_items == 3


def test_ties_keep_the_order_of_the_file_unless_order_decides() -> None:
    data = pd.DataFrame({"user": 1, "item": [5, 3, 4], "time": pd.Timestamp("2020-01-01")})
    assert Interactions.from_frame(data)["item"].tolist() == [5, 3, 4]
    assert Interactions.from_frame(data.assign(order=[2, 1, 0]))["item"].tolist() == [4, 3, 5]


def test_columns_tables_and_the_record_cannot_be_changed() -> None:
    log = Interactions.from_frame(frame())
    before = log.hash
    for array in (*log.columns.values(), log.item_rows, log.user_rows, log.days):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = array[1]
        with pytest.raises(ValueError, match="WRITEABLE"):
            array.flags.writeable = True
    with pytest.raises(TypeError):
        log.columns["user"] = np.zeros(4)  # type: ignore[index]
    with pytest.raises(dataclasses.FrozenInstanceError):
        log.name = "other"  # type: ignore[misc]
    table = log.items
    table.loc["a", "title"] = "changed"
    assert log.items.loc["a", "title"] == "Item a"
    source = frame()
    log = Interactions.from_frame(source)
    source.loc[:, "price"] = 9.0
    assert log.hash == before


def test_the_hash_is_of_the_content_alone() -> None:
    items = pd.DataFrame({"item": ["a", "b"], "title": ["Ay", "Bee"], "weight": [1.0, np.nan]})
    log = Interactions.from_frame(frame(), items=items)
    renamed = frame().rename(columns={"user": "who"})[["price", "item", "quantity", "who", "time"]]
    mapping = {"user": "who", "item": "item", "time": "time", "price": "price", "quantity": "quantity"}
    again = Interactions.from_frame(renamed, mapping, items=items.iloc[::-1].set_index("item"), name="another")
    assert again.hash == log.hash
    assert len(log.hash) == 64
    categories = frame().astype({"item": "category", "user": "int32", "quantity": "float32"})
    assert Interactions.from_frame(categories, items=items).hash == log.hash
    text_times = frame(time=["2020-01-03T00:00:00Z", "2020-01-02", "2020-01-01", "2020-01-01 00:00Z"])
    assert Interactions.from_frame(text_times, items=items).hash == log.hash


@pytest.mark.parametrize(
    "changed",
    [
        {"user": [2, 1, 1, 3]},
        {"item": ["b", "a", "b", "b"]},
        {"price": [1.5, 2.0, 0.0, 0.0]},
        {"time": ["2020-01-03 00:00:00.000000001", "2020-01-02", "2020-01-01", "2020-01-01"]},
        {"rating": [1.0, 2.0, 3.0, 4.0]},
    ],
)
def test_the_hash_changes_with_any_event_value(changed: dict[str, Any]) -> None:
    assert Interactions.from_frame(frame(**changed)).events_hash != Interactions.from_frame(frame()).events_hash


def test_the_hash_changes_with_the_tables_and_the_events_hash_does_not() -> None:
    plain = Interactions.from_frame(frame())
    items = pd.DataFrame({"item": ["a", "b"], "title": ["Ay", "Bee"]})
    users = pd.DataFrame({"user": [1, 2], "age": [30, None]})
    described = Interactions.from_frame(frame(), items=items, users=users)
    older = Interactions.from_frame(frame(), items=items, users=users.assign(age=[31, None]))
    assert len({plain.hash, described.hash, older.hash}) == 3
    assert plain.events_hash == described.events_hash == older.events_hash


def test_unknown_and_missing_columns_are_named_with_the_nearest() -> None:
    message = error_of(frame(), {"user": "user", "item": "item", "prise": "price"}, file="log.csv")
    assert "log.csv" in message
    assert "unknown key 'prise'" in message
    assert "Did you mean 'price'?" in message
    message = error_of(frame(), {"user": "usr", "item": "item"})
    assert "no column 'usr' (mapped to 'user'). Did you mean 'user'?" in message
    message = error_of(frame().rename(columns={"user": "User_ID"}))
    assert "no column for 'user'. Did you mean 'User_ID'?" in message
    message = error_of(frame().drop(columns="time"))
    assert "no column for 'time' or 'order'" in message
    with pytest.raises(UnknownNameError, match="Did you mean 'price'"):
        Interactions.from_frame(frame())["prices"]


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"user": [1, None, 2, 2]}, "row 2, column 'user': an id must not be missing, got nan"),
        ({"item": ["a", "b", " ", "a"]}, "row 3, column 'item': an id must not be empty, got ' '"),
        ({"item": ["a", 5, "b", "a"]}, "row 2, column 'item': ids must be all whole numbers or all text, got 5"),
        ({"user": [1.0, 2.5, 1.0, 1.0]}, "row 2, column 'user': an id must be a whole number or text, got 2.5"),
        ({"user": [1e300, 2.0, 1.0, 1.0]}, "row 1, column 'user': an id must be a whole number or text, got 1e+300"),
        ({"price": [1.0, 2.0, 3.0, -0.5]}, "row 4, column 'price': price must be at least 0, got -0.5"),
        ({"price": [1.0, np.inf, 3.0, 1.0]}, "row 2, column 'price': price must be finite, got inf"),
        ({"price": ["1.0", "2,0", "3", "1"]}, "row 2, column 'price': price must be a number, got '2,0'"),
        ({"quantity": [1, -2, 3, 4]}, "row 2, column 'quantity': quantity must be at least 0, got -2"),
        ({"quantity": [1, np.nan, 3, 4]}, "row 2, column 'quantity': quantity must not be missing, got nan"),
        ({"discount": [0.0, 0.5, 1.0, 1.5]}, "row 4, column 'discount': discount must be at most 1, got 1.5"),
        ({"propensity": [0.5, 0.0, 1.0, 1.0]}, "row 2, column 'propensity': propensity must be above 0, got 0.0"),
        ({"position": [0, 1, 2.5, 3]}, "row 3, column 'position': position must be whole, got 2.5"),
        ({"click": [0, 1, 2, 1]}, "row 3, column 'click': a flag must be 0 or 1, False or True, got 2"),
        ({"time": ["2020-01-01", "soon", "2020-01-01", "2020-01-01"]}, "row 2, column 'time': not a time, got 'soon'"),
        (
            {"time": ["2020-01-01", None, "2020-01-01", "2020-01-01"]},
            "row 2, column 'time': a time must not be missing",
        ),
        (
            {"time": ["2020-01-01", "2020-01-01", "2200-01-01", "2020-01-01"]},
            "row 3, column 'time': a time must not lie",
        ),
        ({"time": [1.0, 2.0, np.inf, 4.0]}, "row 3, column 'time': not a time before the year 2262"),
    ],
)
def test_a_bad_value_names_file_row_column_and_value(changed: dict[str, Any], expected: str) -> None:
    message = error_of(frame(**changed), file="trips.csv")
    assert message.startswith("trips.csv, ")
    assert expected in message


def test_bad_values_are_named_by_the_column_of_the_file() -> None:
    data = frame().rename(columns={"price": "unit cost"}).assign(**{"unit cost": [1, 2, 3, -1]})
    assert "row 4, column 'unit cost'" in error_of(
        data, {"user": "user", "item": "item", "time": "time", "price": "unit cost"}
    )


def test_numeric_times_have_a_unit() -> None:
    seconds = frame(time=[881250949, 881250950, 0, 1])
    log = Interactions.from_frame(seconds, time_unit="s")
    assert str(log["time"].max()) == "1997-12-04T15:55:50.000000000"
    assert "pass time_unit=" in error_of(seconds)
    assert "unknown time_unit 'sec'" in error_of(seconds, time_unit="sec")
    assert Interactions.from_frame(frame(time=[0, 1, 2.5, 3]))["time"].max() == np.datetime64("1970-01-04")


def test_time_zones_become_utc() -> None:
    times = pd.to_datetime(["2020-01-01 12:00"] * 4).tz_localize("Europe/Rome")
    assert Interactions.from_frame(frame(time=times))["time"][0] == np.datetime64("2020-01-01T11:00")


def test_time_is_the_cumulated_gap_where_only_the_order_is_known() -> None:
    data = pd.DataFrame(
        {"user": [1, 1, 1, 2, 1], "item": [1, 2, 3, 4, 5], "order": [3, 1, 3, 9, 2], "gap_days": [5, np.nan, 5, 7, 0]}
    )
    log = Interactions.from_frame(data)
    assert log.time_origin == "cumulated gap_days"
    assert log["item"].tolist() == [2, 5, 1, 3, 4]
    assert log.days.tolist() == [0, 0, 5, 5, 0]
    assert log.summary()["time_origin"] == "cumulated gap_days"
    log = Interactions.from_frame(data.drop(columns="gap_days"))
    assert log.time_origin == "order number read as days"
    assert log["time"].astype("datetime64[D]").astype(int).tolist() == [1, 2, 3, 3, 9]
    assert "row 5, column 'gap_days'" in error_of(data.assign(gap_days=[5, np.nan, 5, 7, np.nan]))
    assert "row 3, column 'gap_days': gap_days differs" in error_of(data.assign(gap_days=[5, np.nan, 6, 7, 0]))
    assert "row 4, column 'order'" in error_of(data.drop(columns="gap_days").assign(order=[1, 2, 3, 31198570044, 4]))


def test_nothing_is_dropped_in_silence() -> None:
    items = pd.DataFrame({"item": ["a"], "title": ["Ay"]})
    log = Interactions.from_frame(frame(store=1), items=items, filters=[FilterCount("quantity 0", 7, "dropped")])
    assert [(f.reason, f.count) for f in log.filters] == [
        ("quantity 0", 7),
        ("columns not mapped", 1),
        ("items that the items table does not describe", 1),
    ]
    part = log.select(log["quantity"] > 2, "small quantities", "dropped for a test")
    assert len(part) == 2
    assert part.filters[-1] == FilterCount("small quantities", 2, "dropped for a test")
    assert part.hash != log.hash
    assert part.num_items == log.num_items
    printed = io.StringIO()
    part.describe(Console(file=printed, width=120))
    for expected in ("small quantities", "quantity 0", "store", part.hash, "currency per unit"):
        assert expected in printed.getvalue()
    with pytest.raises(DataError, match="no event of log 'log' is left: nobody"):
        log.select(np.zeros(4, bool), "nobody")
    with pytest.raises(DataError, match=r"bool of shape \(4,\), got bool of shape \(3,\)"):
        log.select(np.zeros(3, bool), "short")


def test_tables_are_checked() -> None:
    doubled = pd.DataFrame({"item": ["a", "b", "a"], "title": ["1", "2", "3"]})
    assert "items table, row 3, column 'item': an id must appear once, got 'a'" in error_of(frame(), items=doubled)
    numbers = pd.DataFrame({"user": ["1", "2"], "age": [1, 2]})
    assert "users table, row 1, column 'user': ids are text but the events' are whole numbers" in error_of(
        frame(), users=numbers
    )
    infinite = pd.DataFrame({"user": [1, 2], "income": [1.0, np.inf]})
    assert "users table, row 2, column 'income'" in error_of(frame(), users=infinite)
    assert "no data rows" in error_of(frame().iloc[:0])
    assert "two columns are called 'item'" in error_of(frame().rename(columns={"price": "item"}))


def test_every_schema_column_can_be_read() -> None:
    data = frame(
        order=[1, 2, 1, 0], gap_days=[1.0, 2.0, 0.0, 0.0], basket=["x", "y", "z", "w"], exposure=True,
        click=[0, 1, 0, 1], rating=[1.0, 2.0, np.nan, 5.0], purchase=[True, False, True, True], discount=0.1,
        dwell=[1.0, 2.0, 3.0, np.nan], position=[0, 1, 2, 3], propensity=0.5,
    )  # fmt: skip
    log = Interactions.from_frame(data)
    assert tuple(log.columns) == tuple(SCHEMA)
    assert log["click"].dtype == bool
    assert log.summary()["columns"]["rating"]["missing"] == 1
    assert Interactions.from_frame(log.to_frame()).hash == log.hash
