"""From a log to what the preference model is trained on: trips, item and user tables, features."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from recgym.data.interactions import FilterCount, Interactions
from recgym.errors import DataError
from recgym.user_models.preference.exposures import Exposures
from recgym.user_models.preference.network import MAX_FEEDBACK, TREND_DAYS
from recgym.user_models.preference.trends import Trends
from recgym.user_models.preference.trips import Trips
from recgym.worlds.recipes import Recipe
from recgym.worlds.unseen import Unseen, choose_unseen

LEFT_OUT = "events left out of the world"
GROUP = 10  # a rating log has no baskets: a trip is a run of at most this many ratings on one day
TOLD = {"true": True, "yes": True, "1": True, "1.0": True, "false": False, "no": False, "0": False, "0.0": False}


@dataclass(frozen=True, eq=False)
class Prepared:
    """A log made ready: N items, U users, with what was left out on the way."""

    trips: Trips
    items: (
        pd.DataFrame
    )  # [N] item_id, title, text, category, subcategory, brand, price, discount, popularity, ..., see ``_item_table``
    users: pd.DataFrame  # [U] user_id as in the log, observable attributes
    filters: tuple[FilterCount, ...]
    first_day: str  # date of day 0
    unseen: Unseen | None  # items held out of all training


def prepare(log: Interactions, recipe: Recipe, next_days: pd.Series | None = None) -> Prepared:
    """Filters a log as the recipe says and groups it into trips; counts everything that is left out.

    Args:
        log: the log.
        recipe: what to keep of it.
        next_days: by user id, the day (since the log's first) of a trip after the log's end. Every user's history then
            ends in one more trip, empty, that is to be predicted; users without a day make theirs on their last day.

    Raises:
        DataError: nothing is left, a user attribute names a column that the log lacks, or a trip to be predicted lies
            before its user's last trip.
    """
    filters = list(log.filters)
    frame = pd.DataFrame(
        {
            "user": log.user_rows,
            "item": log.item_rows,
            "day": np.floor(log.days).astype(np.int64),
            "feedback": _feedback(log, recipe, filters),
            "price": log["price"] if "price" in log else np.nan,
            "discount": log["discount"] if "discount" in log else np.nan,
        }
    )
    frame["trip"] = _trip_ids(log, frame, recipe)
    later = frame["day"].to_numpy() != (day := frame.groupby("trip")["day"].transform("first").to_numpy())
    _note(filters, "events on a later day than their basket's first", later, "the basket's first day counts")
    frame["day"] = day
    whole = frame.assign(**_shown(log, recipe))
    bought = log["purchase"] if "purchase" in log else np.ones(len(log), bool)
    if recipe.kind == "purchase" and "quantity" in log:
        bought = bought & (log["quantity"] > 0)
    if recipe.kind == "rating":
        frame, bought = _keep(frame, rated := ~np.isnan(log["rating"]), "no rating given", filters), bought[rated]
    frame = _keep(frame, bought, "nothing bought", filters)
    items = log.items
    if "recommendable" in items and not recipe.every_item:
        frame = _keep(frame, _recommendable(log)[frame["item"]], "items not recommendable", filters)
    buyers = frame.groupby("item")["user"].nunique()
    common = frame["item"].isin(buyers.index[buyers >= recipe.min_item_users])
    frame = _keep(frame, common.to_numpy(), f"items with fewer than {recipe.min_item_users} users", filters)
    unseen, removed = frame.iloc[:0], np.zeros(0, np.int64)
    if recipe.held_out_items:
        removed = choose_unseen(np.unique(frame["item"]), recipe.held_out_items, recipe.seed)
        mask = frame["item"].isin(removed).to_numpy()
        unseen = frame[mask]
        frame = _keep(frame, ~mask, f"{len(removed)} items held out of the world and all training", filters)
    made = frame.groupby("user")["trip"].nunique()
    active = frame["user"].isin(made.index[made >= recipe.min_user_trips])
    frame = _keep(frame, active.to_numpy(), f"users with fewer than {recipe.min_user_trips} trips", filters)
    if frame.empty:
        left, steps = len(log), [f"{len(log):,} events read"]
        for counted in (part for part in filters[len(log.filters) :] if part.detail == LEFT_OUT):
            left -= counted.count
            steps.append(f"{left:,} left without {counted.reason}")
        raise DataError(
            f"log {log.name!r}: no user with {recipe.min_user_trips} trips and no item with "
            f"{recipe.min_item_users} users is left ({'; '.join(steps)}). Lower min_user_trips (at least 4) or "
            "min_item_users, or bring a longer log"
        )
    item_rows = np.unique(frame["item"])  # of both halves of the users: what agents learned of items holds in either
    late = held_out(frame, 2 if next_days is None else 1)
    prices = frame[["item", "price", "discount"]].assign(late=late)
    if recipe.half is not None:
        inside = in_half(log.users.index, recipe.half)[frame["user"]]
        frame = _keep(frame, inside, "events of the other half of the users", filters)
    user_rows = np.unique(frame["user"])
    frame["item"] = np.searchsorted(item_rows, frame["item"])
    frame["user"] = np.searchsorted(user_rows, frame["user"])
    trips, repeated = _as_trips(frame, recipe, len(user_rows), len(item_rows))
    if "exposure" in log:
        exposures = _exposures(whole[whole["shown"]], frame, item_rows)
        if np.sum(~exposures.shown(trips.trip, trips.item)) >= trips.num_users:
            trips = replace(trips, exposures=exposures)
            note = "q is not learned from them, the lift is; held-out figures count them like any other"
        else:  # as in logs of recommendations alone: what would be bought unaided is in none of them
            note = (
                "all but everything bought was shown, so q is learned from that and holds the effect of showing: play "
                "scenarios with behaviour.lift=0"
            )
        filters.append(FilterCount("items shown on a trip", len(exposures.item), note))
    if repeated:
        filters.append(
            FilterCount("repeated item in a trip", repeated, "merged: quantities add up, the last rating counts")
        )
    if "text" in items and not items["text"].iloc[item_rows].str.strip().any():
        note = "the text branch is off: items are known by learned id embeddings and attributes"
        filters.append(FilterCount("items without a text, all of them", len(item_rows), note))
    users = log.users.iloc[user_rows]
    if next_days is not None:
        trips = trips.with_next(_next_days(trips, users.index, next_days))
    first = log["time"].min().astype("datetime64[D]")
    return Prepared(
        trips=trips,
        items=_item_table(items.iloc[item_rows], prices.assign(item=np.searchsorted(item_rows, prices["item"])), trips),
        users=_user_table(users, recipe),
        filters=tuple(filters),
        first_day=str(first),
        unseen=_unseen(items, unseen, removed, user_rows) if len(removed) else None,
    )


def in_half(ids: pd.Index, half: str) -> np.ndarray:
    """Whether each user belongs to half ``a`` or ``b``, bool [U]: by a hash of the id, whatever else the log holds."""
    odd = np.array([hashlib.sha256(str(name).encode()).digest()[0] % 2 for name in ids], bool)
    return odd == (half == "b")


def _feedback(log: Interactions, recipe: Recipe, filters: list[FilterCount]) -> np.ndarray:
    """The grade of each event, int64 [E]: quantity 1 to 20, or rating 1 to 5; 1 where none is given."""
    if recipe.kind == "rating":
        if "rating" not in log:
            raise DataError(
                f"log {log.name!r} has no column 'rating', which recipe {recipe.name!r} of kind 'rating' needs"
            )
        ratings = log["rating"]
        odd = (ratings < 0.5) | (ratings > 5)
        if odd.any():
            raise DataError(
                f"log {log.name!r}: {int(odd.sum()):,} ratings are no grades from 1 to 5, such as "
                f"{ratings[odd][0]:g}; bring the column to that scale first"
            )
        grades = np.floor(ratings + 0.5)  # halves up: 4.5 is 5
        _note(filters, "ratings between two grades", (grades != ratings) & ~np.isnan(ratings), "rounded, halves up")
        return np.nan_to_num(grades, nan=1.0).astype(np.int64)
    quantity = log["quantity"] if "quantity" in log else np.ones(len(log))
    _note(filters, f"quantity above {MAX_FEEDBACK}", quantity > MAX_FEEDBACK, f"clipped to {MAX_FEEDBACK}")
    _note(filters, "quantity not whole", quantity != np.rint(quantity), "rounded to the nearest, at least 1")
    return np.rint(quantity).clip(1, MAX_FEEDBACK).astype(np.int64)


def _note(filters: list[FilterCount], reason: str, changed: np.ndarray, detail: str) -> None:
    """Counts the events that are read otherwise than they stand in the log, where there are any."""
    if changed.any():
        filters.append(FilterCount(reason, int(changed.sum()), detail))


def _shown(log: Interactions, recipe: Recipe) -> dict[str, np.ndarray]:
    """What each event of a log says of showing: bool [E], and the chance of being passed over at its position."""
    if "exposure" not in log:
        return {"shown": np.zeros(len(log), bool), "missed": np.ones(len(log))}
    if "purchase" not in log:
        raise DataError(
            f"log {log.name!r} has a column 'exposure' but none called 'purchase': what was shown cannot be told from "
            "what was bought"
        )
    looked = recipe.examination_decay ** log["position"] if "position" in log else np.ones(len(log))
    return {"shown": log["exposure"], "missed": 1.0 - looked}


def _exposures(shown: pd.DataFrame, bought: pd.DataFrame, item_rows: np.ndarray) -> Exposures:
    """What was shown on the trips of ``bought``, whose items are rows of ``item_rows`` already."""
    number = np.unique(bought["trip"])  # trip numbers ascend by user and time, as the trips of ``_as_trips`` do
    shown = shown[np.isin(shown["trip"], number) & np.isin(shown["item"], item_rows)]
    missed = shown.groupby(["trip", "item"], sort=True)["missed"].prod().reset_index()
    return Exposures(
        trip=np.searchsorted(number, missed["trip"]).astype(np.int64),
        item=np.searchsorted(item_rows, missed["item"]).astype(np.int64),
        examined=1.0 - missed["missed"].to_numpy(np.float64),
        num_items=len(item_rows),
    )


def _trip_ids(log: Interactions, frame: pd.DataFrame, recipe: Recipe) -> np.ndarray:
    """One number a trip, ascending by user and time: the basket or, without baskets, a user's events of one day.

    Films are not rated in the order of visits: of a day's ratings, runs of at most ``GROUP`` are a trip.
    """
    if "basket" in log:
        codes = pd.factorize(log["basket"])[0]
        start = frame.assign(basket=codes, at=np.arange(len(frame))).groupby(["user", "basket"])["at"].transform("min")
        return start.to_numpy()  # two baskets of one moment may interleave; the first event decides the order
    new = np.diff(frame["user"].to_numpy(), prepend=-1) != 0
    new |= np.diff(frame["day"].to_numpy(), prepend=-1) != 0
    if recipe.kind == "rating":
        run = np.cumsum(new) - 1
        new |= (np.arange(len(frame)) - np.flatnonzero(new)[run]) % GROUP == 0
    return np.cumsum(new) - 1


def _recommendable(log: Interactions) -> np.ndarray:
    """Whether each item may be recommended, bool [items of the log]; yes where nothing is said.

    Raises:
        DataError: a value is neither yes nor no.
    """
    said = log.items["recommendable"]
    flags = said.astype(str).str.strip().str.lower().map(TOLD).where(said.notna(), True)
    if flags.isna().any():
        item = flags.index[flags.isna()][0]
        raise DataError(
            f"log {log.name!r}: recommendable of item {item!r} is {said[item]!r}; it must be 0 or 1, no or yes, "
            "false or true, or empty"
        )
    return flags.to_numpy(bool)


def held_out(frame: pd.DataFrame, count: int) -> np.ndarray:
    """Whether each event of ``frame`` is of its user's last ``count`` trips, bool; trip numbers ascend in time."""
    back = frame.groupby("user")["trip"].rank(method="dense", ascending=False)
    return (back <= count).to_numpy()


def _keep(frame: pd.DataFrame, mask: np.ndarray, reason: str, filters: list[FilterCount]) -> pd.DataFrame:
    dropped = int((~mask).sum())
    if dropped:
        filters.append(FilterCount(reason, dropped, LEFT_OUT))
    return frame[mask]


def _as_trips(frame: pd.DataFrame, recipe: Recipe, num_users: int, num_items: int) -> tuple[Trips, int]:
    frame = frame.sort_values(["user", "trip"], kind="stable")
    how = "sum" if recipe.kind == "purchase" else "last"
    grouped = frame.groupby(["user", "trip", "item"], sort=False).agg(feedback=("feedback", how), day=("day", "first"))
    grouped = grouped.reset_index()
    trip = np.cumsum(np.diff(grouped["trip"].to_numpy(), prepend=-1) != 0) - 1
    first = np.flatnonzero(np.diff(trip, prepend=-1) != 0)
    trips = Trips(
        item=grouped["item"].to_numpy(np.int64, copy=True),
        feedback=grouped["feedback"].to_numpy(np.int64, copy=True).clip(1, MAX_FEEDBACK),
        trip=trip.astype(np.int64),
        trip_user=grouped["user"].to_numpy(np.int64)[first],
        trip_day=grouped["day"].to_numpy(np.int64)[first],
        num_users=num_users,
        num_items=num_items,
    )
    return trips, len(frame) - len(grouped)


def _next_days(trips: Trips, ids: pd.Index, next_days: pd.Series) -> np.ndarray:
    last = trips.trip_day[trips.users[1:] - 1]
    days = next_days.reindex(ids).to_numpy(np.float64)
    days = np.where(np.isnan(days), last, days).astype(np.int64)
    early = np.flatnonzero(days < last)
    if len(early):
        user = early[0]
        raise DataError(
            f"user {ids[user]}: the trip to predict is on day {days[user]} of the log, before the user's last trip on "
            f"day {last[user]}; the log must hold nothing that comes after"
        )
    return days


def training_part(trips: Trips) -> Trips:
    """All but each user's last two trips, which are held out for validation and test."""
    return trips.select(trips.before_last(2))


def repurchase_intervals(trips: Trips) -> np.ndarray:
    """Median days between a user's purchases of each item, [N], shrunk to the overall median by five pseudo-gaps."""
    frame = pd.DataFrame(
        {"user": trips.trip_user[trips.trip], "item": trips.item, "day": trips.trip_day[trips.trip]}
    ).sort_values(["user", "item", "day"], kind="stable")
    same = (frame["user"].diff() == 0) & (frame["item"].diff() == 0)
    gaps = frame["day"].diff()[same].clip(lower=1)
    overall = float(gaps.median()) if len(gaps) else 30.0
    by_item = gaps.groupby(frame["item"][same]).agg(["median", "size"])
    medians = np.full(trips.num_items, overall)
    weight = by_item["size"] / (by_item["size"] + 5)
    medians[by_item.index] = weight * by_item["median"] + (1 - weight) * overall
    return medians


def repeat_shares(trips: Trips) -> np.ndarray:
    """Share of each item's purchases by users who had bought it before, [N]; 0 for items never bought."""
    bought = np.bincount(trips.item, minlength=trips.num_items)
    pairs = np.unique(trips.trip_user[trips.trip] * trips.num_items + trips.item)
    buyers = np.bincount(pairs % trips.num_items, minlength=trips.num_items)
    return (bought - buyers) / np.maximum(bought, 1)


def trend_columns(trips: Trips, popularity: np.ndarray) -> dict[str, np.ndarray]:
    """The columns trend_1, trend_7, ... of an item table: see ``Trends.now``, where ``trips`` end."""
    trends = Trends.of(trips, popularity).now().round(4)
    return {f"trend_{days}": trends[:, column] for column, days in enumerate(TREND_DAYS)}


def _item_table(described: pd.DataFrame, prices: pd.DataFrame, trips: Trips) -> pd.DataFrame:
    """What is known of each item: text and attributes, price (in currency) and discount (a share), and its sales.

    Prices, discounts, popularity (purchases), intervals (days) and repeat shares come from the training part alone;
    trends are those where the log ends.
    """
    training = training_part(trips)
    popularity = np.bincount(training.item, minlength=len(described))
    return _description(described, prices).assign(
        popularity=popularity,
        interval_days=repurchase_intervals(training).round(2),
        repeat_share=repeat_shares(training).round(4),
        **trend_columns(trips, popularity),
    )


def _description(described: pd.DataFrame, prices: pd.DataFrame) -> pd.DataFrame:
    """What is known of each item without its sales.

    ``prices`` holds item row, price and discount of events, and whether they are ``late``: held out of training. Those
    count for items alone that have no others.
    """
    count = len(described)

    def column(name: str, default: str) -> pd.Series:
        values = described[name] if name in described else pd.Series([None] * count, index=described.index)
        return values.astype("object").where(values.notna(), default).astype(str)

    both = {"price": "median", "discount": "mean"}
    median = prices[~prices["late"]].groupby("item").agg(both).reindex(range(count))
    median = median.fillna(prices.groupby("item").agg(both))  # of items that training never meets, and whole columns
    ids = described.index.astype(str)
    title = column("title", "")
    return pd.DataFrame(
        {
            "item_id": ids,
            "title": np.where(title == "", ids, title),
            "text": column("text", "").to_numpy(),
            "category": column("category", "unknown").to_numpy(),
            "subcategory": column("subcategory", "unknown").to_numpy(),
            "brand": column("brand", "unknown").to_numpy(),
            "price": median["price"].fillna(0.0).round(2).to_numpy(),
            "discount": median["discount"].fillna(0.0).round(4).to_numpy(),
        }
    )


def _unseen(items: pd.DataFrame, events: pd.DataFrame, removed: np.ndarray, user_rows: np.ndarray) -> Unseen:
    """The items ``removed`` and the pairs of those of their buyers who are users of the world."""
    events = events.assign(item=np.searchsorted(removed, events["item"]), late=False)
    pairs = events.loc[events["user"].isin(user_rows), ["user", "item"]].drop_duplicates().sort_values(["user", "item"])
    return Unseen(
        items=_description(items.iloc[removed], events),
        user=np.searchsorted(user_rows, pairs["user"]),
        item=pairs["item"].to_numpy(),
    )


def _user_table(described: pd.DataFrame, recipe: Recipe) -> pd.DataFrame:
    users = pd.DataFrame({"user_id": described.index.astype(str)})
    for name, binning in recipe.attributes.items():
        if binning.column not in described:
            raise DataError(
                f"recipe {recipe.name!r}: the log's users have no column {binning.column!r}; "
                f"they have {', '.join(map(str, described.columns))}"
            )
        users[name] = binning.apply(described[binning.column]).to_numpy()
    return users
