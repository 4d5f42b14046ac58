"""Whether a run of unaided trips can be told from a real one: features of trip sequences and the two-sample test."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from recgym.evaluation.fidelity.two_sample import FEWEST, area_under_curve, two_sample_test
from recgym.user_models.preference.trips import Purchases, Trips
from recgym.worlds.marginals import category_codes, category_entropy, repeated, spends, trip_means
from recgym.worlds.pointwise import numbers
from recgym.worlds.world import World


def trip_features(trips: Trips, world: World) -> dict[str, np.ndarray]:
    """Features of each trip, [T] by name: when, how much, what, and how it stands to the user's own history."""
    items = world.items
    user = trips.trip_user[trips.trip]
    counts, last = Purchases.of(trips).lookup(user, trips.item, trips.trip)
    repeat = repeated(trips)
    since = np.where(repeat, np.log1p(trips.trip_day[trips.trip] - last), 0.0)
    popularity = np.log1p(items["popularity"].to_numpy(np.float64))[trips.item]
    codes = category_codes(items)
    gap, size = np.log1p(trips.gap), np.log(np.maximum(trips.size, 1))
    weekday = trips.trip_day % 7 * (2 * np.pi / 7)
    repeats = np.maximum(np.bincount(trips.trip, repeat, minlength=len(trips.trip_user)), 1)
    return {
        "log gap": gap,
        "log gap beside the user's mean": gap - trips.pace[:, 2],
        "log size": size,
        "log size beside the user's mean": size - trips.pace[:, 1],
        "log spend": np.log1p(spends(trips, items)),
        "mean log price": trip_means(trips, np.log1p(items["price"].to_numpy(np.float64))[trips.item]),
        "mean discount": trip_means(trips, items["discount"].to_numpy(np.float64)[trips.item]),
        "mean feedback": trip_means(trips, trips.feedback.astype(np.float64)),
        "share with feedback above one": trip_means(trips, (trips.feedback > 1).astype(np.float64)),
        "mean log popularity": trip_means(trips, popularity),
        "spread of log popularity": np.sqrt(
            np.maximum(trip_means(trips, popularity**2) - trip_means(trips, popularity) ** 2, 0)
        ),
        "category entropy": category_entropy(trips, codes),
        "share of repeats": trip_means(trips, repeat.astype(np.float64)),
        "mean log count of repeats": np.bincount(trips.trip, np.log1p(counts) * repeat, minlength=len(trips.trip_user))
        / repeats,
        "mean log days since, of repeats": np.bincount(trips.trip, since, minlength=len(trips.trip_user)) / repeats,
        "share of the first brand": trip_means(
            trips, (items["brand"] == items["brand"].iloc[0]).to_numpy(np.float64)[trips.item]
        ),
        "likeness of texts": _likeness(trips, world.item_tensors["text_pca"]),
        "weekday, sine": np.sin(weekday),
        "weekday, cosine": np.cos(weekday),
    }


def sequence_features(trips: Trips, world: World, number: int) -> tuple[np.ndarray, list[str]]:
    """Features [U, F] of each user's last ``number`` trips, and their names; every user has more trips than that."""
    named: dict[str, np.ndarray] = {}
    features = trip_features(trips, world)
    begin = trips.users[1:] - number
    for place in range(number):
        named.update({f"trip {place + 1}: {name}": values[begin + place] for name, values in features.items()})
    for place in range(1, number):
        named[f"overlap of trips {place} and {place + 1}"] = _overlap(trips, begin + place - 1, begin + place)
    for column, name in enumerate(("trips so far", "mean log size so far", "mean log gap so far")):
        named[name] = trips.pace[begin, column]
    return np.stack(list(named.values()), axis=1).astype(np.float64), list(named)


def compare_sequences(
    world: World, real: Trips, model: Trips, popularity: Trips, number: int, seed: int
) -> dict[str, Any] | None:
    """Two-sample tests of runs of ``number`` trips against the real ones, with both controls, as JSON values.

    None where half of the users are too few for a test.

    Args:
        world: for prices, categories and texts.
        real: the whole log.
        model: the log up to the cut, gone on with the model's unaided trips.
        popularity: gone on with those of the popularity simulator.
        number: trips in a run.
        seed: of folds, networks and bootstrap.
    """
    if real.num_users // 2 < FEWEST:
        return None
    held, names = sequence_features(real, world, number)
    everyone = np.arange(real.num_users)
    shuffled = np.random.default_rng([seed, 37]).permutation(everyone)
    half = np.array_split(shuffled, 2)
    before, _ = sequence_features(real.select(real.before_last(number)), world, number)
    sides = {
        "model": (held, sequence_features(model, world, number)[0], everyone, everyone),
        "popularity": (held, sequence_features(popularity, world, number)[0], everyone, everyone),
        "real_halves": (held[half[0]], held[half[1]], half[0], half[1]),
        "real_earlier": (held, before, everyone, everyone),
    }
    out: dict[str, Any] = {"trips": number, "users": real.num_users, "features": names}
    for name, (left, right, left_users, right_users) in sides.items():
        test = two_sample_test(left, right, left_users, right_users, seed)
        out[name] = {"logistic": numbers(test.logistic), "network": numbers(test.network)}
    out["tells"] = _tells(held, sides["model"][1], names)
    return out


def _tells(real: np.ndarray, made: np.ndarray, names: list[str], count: int = 5) -> list[list[Any]]:
    """The features that by themselves give the model away most: [name, area under the curve, mean real, mean made]."""
    labels, users = np.repeat([0, 1], [len(real), len(made)]), np.zeros(len(real) + len(made))
    columns = np.concatenate((real, made)).T
    found = [area_under_curve(column, labels, users, np.random.default_rng(0), draws=1).value for column in columns]
    worst = np.argsort(-np.abs(np.array(found) - 0.5), kind="stable")[:count]
    return [
        [names[at], round(found[at], 4), round(float(real[:, at].mean()), 4), round(float(made[:, at].mean()), 4)]
        for at in worst
    ]


def _likeness(trips: Trips, text: torch.Tensor) -> np.ndarray:
    """Mean cosine of the texts of all pairs of items on each trip, [T]; 0 where there is one item."""
    unit = torch.nn.functional.normalize(text.float(), dim=1).double()
    total = torch.zeros(len(trips.trip_user), unit.shape[1], dtype=torch.float64)
    total.index_add_(0, torch.from_numpy(trips.trip), unit[torch.from_numpy(trips.item)])
    pairs = trips.size * (trips.size - 1)
    out: np.ndarray = ((total**2).sum(1).numpy() - trips.size) / np.maximum(pairs, 1)
    return np.where(pairs > 0, out, 0.0)


def _overlap(trips: Trips, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Jaccard overlap of the baskets of trips ``first`` and ``second``, [n]."""
    keys = trips.trip * trips.num_items + trips.item  # ascending in trips; items within a trip in any order
    known = np.sort(keys)
    length = trips.size[second]
    owner = np.repeat(np.arange(len(second)), length)
    event = (
        np.repeat(trips.events[second], length)
        + np.arange(length.sum())
        - np.repeat(np.cumsum(length) - length, length)
    )
    wanted = first[owner] * trips.num_items + trips.item[event]
    place = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
    shared = np.bincount(owner, known[place] == wanted, minlength=len(second))
    return shared / (trips.size[first] + trips.size[second] - shared)
