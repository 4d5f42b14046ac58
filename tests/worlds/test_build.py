"""Building a world from a log, end to end and small."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pandas as pd
import pytest

import recgym
from recgym.data import Interactions
from recgym.errors import DataError, ScenarioError, WorldError
from recgym.user_models.preference.config import ModelConfig, NetworkConfig, TrainingConfig
from recgym.user_models.preference.network import TREND_DAYS
from recgym.user_models.preference.trends import Trends
from recgym.user_models.preference.trips import Trips
from recgym.worlds.build import build_world
from recgym.worlds.prepare import prepare, repeat_shares, repurchase_intervals
from recgym.worlds.recipes import Binning, Recipe, movies
from recgym.worlds.validate import default_scenario, validate
from tests.user_models.test_processes import launch

SMALL = ModelConfig(
    network=NetworkConfig(dim=16, layers=1, heads=2, feedforward=32, window=8, hidden=16, repeat_hidden=8),
    training=TrainingConfig(pretrain_epochs=1, finetune_epochs=2, own_negatives=8, other_negatives=8),
)


def shop(seed: int = 0) -> Interactions:
    rng = np.random.default_rng(seed)
    rows = []
    for user in range(50):
        tastes = rng.choice(40, 12, replace=False)
        moment = pd.Timestamp("2024-01-01")
        for trip in range(10):
            moment += pd.Timedelta(days=int(rng.integers(1, 8)))
            for item in rng.choice(tastes, rng.integers(1, 6), replace=False):
                rows.append((f"u{user}", f"i{item}", moment, f"{user}-{trip}", int(rng.integers(1, 4))))
    frame = pd.DataFrame(rows, columns=["user", "item", "time", "basket", "quantity"])
    items = pd.DataFrame({"item": [f"i{i}" for i in range(40)], "title": [f"Thing {i}" for i in range(40)]})
    users = pd.DataFrame({"user": [f"u{i}" for i in range(50)], "age": rng.integers(18, 80, 50).astype(float)})
    return Interactions.from_frame(frame, items=items, users=users, name="shop")


RECIPE = Recipe(
    name="shop",
    title="Shop",
    dataset="shop",
    kind="purchase",
    min_item_users=5,
    attributes={"age": Binning(column="age", levels={"young": (), "old": ()}, edges=(40,))},
    model=SMALL,
)


@pytest.mark.slow
def test_a_built_world_is_measured_and_can_be_measured_again(recgym_home):
    log = shop()
    world = build_world(RECIPE, log=log)
    assert world.path == recgym_home / "worlds" / "shop"
    assert validate(world, log) == {key: value for key, value in world.spec.metrics.items() if key != "training"}
    assert 0 < world.spec.behaviour["satisfaction_reference"] < 1
    assert world.users["age"].isin(["young", "old"]).all()
    assert not set(world.users["user_id"]) & {f"u{i}" for i in range(50)}  # ids are renumbered
    card = (world.path / "card.md").read_text()
    assert "fitted" in card
    assert "assumed" in card
    assert log.hash[:16] in card
    with pytest.raises(ScenarioError, match="the world holds 40 items only"):
        recgym.make(world="shop")
    env = recgym.make(world="shop", scenario=default_scenario(40))
    env.reset(seed=0)
    env.step(env.action_space.sample())
    with pytest.raises(WorldError, match="was built from a log with hash"):
        validate(world, shop(seed=1))


@pytest.mark.slow
def test_two_processes_build_one_world(recgym_home, tmp_path):
    script = """
from recgym.worlds.build import build_world
from tests.worlds.test_build import RECIPE, shop

print("built", build_world(RECIPE, log=shop()).num_items)
"""
    done = launch(script, tmp_path / "work", 2)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("built 40") == 2
    world = recgym.load_world("shop")
    assert world.spec.metrics["users"] == world.num_users
    assert len(list((recgym_home / "worlds").iterdir())) == 1


@pytest.mark.slow
def test_a_build_is_exact_and_goes_on_after_an_interruption(recgym_home, tmp_path):
    log = shop()

    def interrupt(at: str, share: float):
        def progress(what: str, done: float) -> None:
            if what.startswith(at) and done >= share:
                raise KeyboardInterrupt

        return progress

    for at, share in (("finetune", 0.6), ("validating", 0.0)):
        with pytest.raises(KeyboardInterrupt):
            build_world(RECIPE, out=tmp_path / "resumed", log=log, progress=interrupt(at, share))
        assert not (tmp_path / "resumed").exists()  # not even a world that lacks its figures
    stages: list[str] = []
    resumed = build_world(RECIPE, out=tmp_path / "resumed", log=log, progress=lambda what, _: stages.append(what))
    assert not any(stage.startswith(("pretrain", "finetune")) for stage in stages)  # those stages were done
    (recgym_home / "builds").rename(tmp_path / "elsewhere")
    whole = build_world(RECIPE, out=tmp_path / "whole", log=log)
    for name in ("items.safetensors", "users.safetensors", "model.safetensors", "items.parquet"):
        assert whole.spec.files[name] == resumed.spec.files[name], name


@pytest.mark.slow
def test_movies_build_from_ratings(recgym_home):
    import recgym.data

    log = recgym.data.load("ml-100k")
    users = np.unique(log.user_rows)[:150]
    part = log.select(np.isin(log.user_rows, users), "kept small for a test")
    world = build_world(movies(model=SMALL), log=part)
    assert world.spec.responses == ("watch", "rating")
    assert 0.8 < world.spec.metrics["rating"]["model"]["rmse"] < 1.4
    env = recgym.make("movies-v0")
    env.reset(seed=0)
    env.action_space.seed(0)
    ratings: Counter[int] = Counter()
    for _ in range(500):  # of the films of a random slate, one in a hundred is watched
        _, reward, terminated, truncated, info = env.step(env.action_space.sample())
        ratings.update(rating for rating in info["rating"].tolist() if rating)
        assert reward == (info["rating"] >= 4).sum()
        if terminated or truncated:
            env.reset()
    assert set(ratings) <= {1, 2, 3, 4, 5}
    assert len(ratings) > 3, ratings


def test_preparing_counts_what_is_left_out():
    log = shop()
    prepared = prepare(log, RECIPE.model_copy(update={"min_item_users": 15}))
    dropped = {f.reason: f.count for f in prepared.filters}
    assert len(prepared.trips.item) == len(log) - sum(
        count for reason, count in dropped.items() if "fewer than" in reason or "repeated" in reason
    )
    popularity = np.bincount(prepared.trips.item[prepared.trips.trip_user_remaining[prepared.trips.trip] >= 2])
    assert (prepared.items["popularity"] == popularity).all()  # held-out trips do not count


def test_a_log_of_which_nothing_is_left_says_what_took_it():
    frame = shop().to_frame().assign(quantity=99)  # clipped, which leaves nothing out
    few = Interactions.from_frame(frame, name="shop")
    with pytest.raises(DataError, match=rf"\({len(few):,} events read; 0 left without items with fewer than 99 users"):
        prepare(few, RECIPE.model_copy(update={"min_item_users": 99}))


def test_odd_grades_are_counted_or_refused():
    frame = shop().to_frame()
    odd = frame.assign(quantity=frame["quantity"].astype(float))
    odd.loc[[0, 1, 2, 3], "quantity"] = [0.0, 0.4, 2.5, 99.0]
    plain = RECIPE.model_copy(update={"attributes": {}, "min_item_users": 1})
    prepared = prepare(Interactions.from_frame(odd, name="shop"), plain)
    counts = {f.reason: f.count for f in prepared.filters}
    assert (counts["nothing bought"], counts["quantity above 20"], counts["quantity not whole"]) == (1, 1, 2)
    assert prepared.trips.feedback.min() >= 1
    assert prepared.trips.feedback.max() == 20

    rated = frame.drop(columns=["quantity", "basket"]).assign(rating=4.0)
    rated.loc[[0, 1], "rating"] = [np.nan, 4.5]
    recipe = plain.model_copy(update={"kind": "rating"})
    prepared = prepare(Interactions.from_frame(rated, name="films"), recipe)
    counts = {f.reason: f.count for f in prepared.filters}
    assert (counts["no rating given"], counts["ratings between two grades"]) == (1, 1)
    assert sorted(set(prepared.trips.feedback)) == [4, 5]  # a missing rating is none, and a half counts up
    rated.loc[[5, 6], "rating"] = [0.0, 9.0]
    with pytest.raises(DataError, match=r"2 ratings are no grades from 1 to 5, such as [09]; bring the column"):
        prepare(Interactions.from_frame(rated, name="films"), recipe)


def test_intervals_are_medians_of_gaps_shrunk_to_the_overall_median():
    rows = []
    for user in range(6):  # item 0 every 4 days, item 1 every 10
        rows += [(user, 0, f"{user}-{k}-a", pd.Timestamp("2024-01-01") + pd.Timedelta(days=4 * k)) for k in range(12)]
        rows += [(user, 1, f"{user}-{k}-b", pd.Timestamp("2024-01-01") + pd.Timedelta(days=10 * k)) for k in range(5)]
    log = Interactions.from_frame(pd.DataFrame(rows, columns=["user", "item", "basket", "time"]))
    trips = prepare(log, RECIPE.model_copy(update={"min_item_users": 2, "attributes": {}})).trips
    intervals = repurchase_intervals(trips)
    gaps = {0: 6 * 11, 1: 6 * 4}
    overall = 4.0
    for item, days in ((0, 4.0), (1, 10.0)):
        weight = gaps[item] / (gaps[item] + 5)
        assert intervals[item] == pytest.approx(weight * days + (1 - weight) * overall)


def test_repeat_shares_by_hand():
    """Item 0: users 0 and 1 bought it three times and once; item 1: twice, by two users; item 2: never."""
    item, trip = np.array([0, 0, 1, 0, 0, 1]), np.array([0, 1, 1, 2, 3, 3])
    trips = Trips(item, np.ones(6, np.int64), trip, np.array([0, 0, 0, 1]), np.arange(4), 2, 3)
    assert repeat_shares(trips).tolist() == [0.5, 0.0, 0.0]


def test_the_item_table_holds_the_trends_where_the_log_ends():
    prepared = prepare(shop(), RECIPE)
    expected = Trends.of(prepared.trips, prepared.items["popularity"].to_numpy()).now()
    found = prepared.items[[f"trend_{days}" for days in TREND_DAYS]].to_numpy()
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_a_trip_to_predict_ends_every_history_and_changes_nothing_before_it():
    log = shop()
    plain = prepare(log, RECIPE)
    last = plain.trips.trip_day[plain.trips.users[1:] - 1]
    days = pd.Series(last[1:] + 2, index=plain.users["user_id"][1:])  # the first user is not told
    longer = prepare(log, RECIPE, days)
    added = longer.trips.trip_user_remaining == 0
    assert longer.trips.trip_day[added].tolist() == [last[0], *(last[1:] + 2)]
    assert np.array_equal(longer.trips.item, plain.trips.item)
    # Popularity now counts all but the trip to predict and one more, which is for validation.
    kept = longer.trips.select(longer.trips.before_last(2))
    assert np.array_equal(longer.items["popularity"], np.bincount(kept.item, minlength=40))
    early = pd.Series([last[3] - 1], index=[plain.users["user_id"][3]])
    with pytest.raises(DataError, match=r"day \d+ of the log, before the user's last trip on day \d+"):
        prepare(log, RECIPE, early)


def test_a_recipe_may_keep_items_that_are_not_recommendable():
    log = shop()

    def marked(flags: np.ndarray) -> Interactions:
        return Interactions.from_frame(
            pd.DataFrame({name: log[name] for name in ("time", "basket", "quantity")}).assign(
                user=log.users.index[log.user_rows], item=log.items.index[log.item_rows]
            ),
            items=log.items.assign(recommendable=flags),
            users=log.users,
            name="marked",
        )

    third = log.items.index == "i3"
    for no, yes in ((False, True), ("no", "yes"), ("False", "true"), (0, 1), ("0", None)):
        told = marked(np.where(third, np.array(no, object), np.array(yes, object)))
        assert set(log.items.index) - set(prepare(told, RECIPE).items["item_id"]) == {"i3"}, (no, yes)
        assert "i3" in set(prepare(told, RECIPE.model_copy(update={"every_item": True})).items["item_id"])
    with pytest.raises(DataError, match="recommendable of item 'i3' is 'perhaps'; it must be 0 or 1"):
        prepare(marked(np.where(third, "perhaps", "yes")), RECIPE)


def test_prices_of_held_out_trips_are_not_read():
    frame = shop().to_frame().assign(price=2.0, discount=0.0)
    frame["at"] = frame.groupby("user")["time"].rank(method="dense", ascending=False)
    late = frame["at"] <= 2
    frame.loc[late, ["price", "discount"]] = 5.0, 0.5
    alone = frame["item"] == frame["item"].iloc[-1]
    frame = frame[~alone | late].drop(columns="at")  # one item is sold on held-out trips only
    items = prepare(Interactions.from_frame(frame, name="shop"), RECIPE.model_copy(update={"attributes": {}})).items
    only = items["item_id"] == shop().to_frame()["item"].iloc[-1]
    assert items[["price", "discount"]][~only].drop_duplicates().to_numpy().tolist() == [[2.0, 0.0]]
    assert items[["price", "discount"]][only].to_numpy().tolist() == [[5.0, 0.5]]


def test_without_baskets_a_day_is_a_trip_and_of_a_basket_the_first_day_counts():
    day = pd.Timestamp("2024-01-01")
    rows = [
        (f"u{u}", f"i{i}", day + pd.Timedelta(days=7 * t), f"{u}-{t}")
        for u in range(3)
        for t in range(4)
        for i in range(25)
    ]
    frame = pd.DataFrame(rows, columns=["user", "item", "time", "basket"])
    plain = Recipe(name="shop", title="Shop", dataset="shop", kind="purchase", min_item_users=1, min_user_trips=4)
    found = prepare(Interactions.from_frame(frame.drop(columns="basket"), name="shop"), plain).trips
    assert found.size.tolist() == [25] * 12  # not cut in tens, as days of ratings are
    late = (frame["basket"] == "1-2") & (frame["item"] != "i0")  # most of a basket is entered a fortnight later
    frame.loc[late, "time"] += pd.Timedelta(days=14)
    prepared = prepare(Interactions.from_frame(frame[~((frame["basket"] == "1-2") & (frame["item"] == "i1"))]), plain)
    assert prepared.trips.gap.tolist() == [0, 7, 7, 7] * 3
    counts = {f.reason: f.count for f in prepared.filters}
    assert counts["events on a later day than their basket's first"] == 23


@pytest.mark.slow
@pytest.mark.parametrize("what", ["few items", "all shown"])
def test_odd_logs_become_worlds(recgym_home, what):
    """Twelve items, fewer than the columns that agents see of texts; a feed of which nothing was bought unaided."""
    frame = shop().to_frame()
    if what == "few items":
        frame = frame[frame["item"].isin([f"i{i}" for i in range(12)])]
    else:
        frame = frame.assign(exposure=True, purchase=True)
    items = pd.DataFrame({"item": [f"i{i}" for i in range(40)], "text": [f"Thing {i % 3}" for i in range(40)]})
    log = Interactions.from_frame(frame, items=items, name="shop")
    recipe = RECIPE.model_copy(update={"attributes": {}, "min_item_users": 2, "text_components": 256})
    world = build_world(recipe, log=log)
    assert world.item_tensors["text_pca"].shape == (world.num_items, 16)
    assert "lift" not in world.spec.behaviour
    env = recgym.make(world="shop", scenario=default_scenario(world.num_items))
    env.reset(seed=0)
    env.action_space.seed(0)
    assert np.isfinite(env.step(env.action_space.sample())[1])
