"""Worlds of two halves of the users: nobody in both, the same items in each."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from recgym.data.interactions import Interactions
from recgym.worlds.prepare import Prepared, in_half, prepare
from recgym.worlds.recipes import Recipe


def log_of(num_users: int = 60, num_items: int = 12) -> Interactions:
    rng = np.random.default_rng(0)
    rows = [
        {"user": f"u{user}", "item": f"i{item}", "time": pd.Timestamp("2020-01-01") + pd.Timedelta(days=trip),
         "basket": f"{user}-{trip}", "price": 1.0 + item}
        for user in range(num_users)
        for trip in range(6)
        for item in rng.choice(num_items, 3, replace=False)
    ]  # fmt: skip
    return Interactions.from_frame(pd.DataFrame(rows), name="generated")


def prepared(half: str | None, log: Interactions) -> Prepared:
    recipe = Recipe(name="x", title="x", dataset="x", kind="purchase", min_item_users=5, half=half)  # type: ignore[arg-type]
    return prepare(log, recipe)


def test_halves_share_items_and_no_user() -> None:
    log = log_of()
    whole, a, b = (prepared(half, log) for half in (None, "a", "b"))
    assert a.items["item_id"].tolist() == b.items["item_id"].tolist() == whole.items["item_id"].tolist()
    assert set(a.users["user_id"]) | set(b.users["user_id"]) == set(whole.users["user_id"])
    assert not set(a.users["user_id"]) & set(b.users["user_id"])
    assert min(len(a.users), len(b.users)) > 15
    assert (a.items["popularity"] + b.items["popularity"]).tolist() == whole.items["popularity"].tolist()
    assert a.items["price"].tolist() == whole.items["price"].tolist()
    assert len(a.trips.item) + len(b.trips.item) == len(whole.trips.item)


def test_a_users_half_does_not_depend_on_the_log() -> None:
    ids = pd.Index([f"u{number}" for number in range(40)])
    inside = in_half(ids, "a")
    assert in_half(ids[::-1], "a")[::-1].tolist() == inside.tolist()
    assert (inside ^ in_half(ids, "b")).all()


def test_a_half_of_another_name_is_refused() -> None:
    with pytest.raises(ValueError, match="half"):
        Recipe(name="x", title="x", dataset="x", kind="purchase", half="c")  # type: ignore[arg-type]
