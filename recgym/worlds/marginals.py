"""Marginal distributions of unaided trips beside those of held-out trips."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from recgym.errors import WorldError
from recgym.evaluation.fidelity.distances import jensen_shannon_divergence, ks_distance, wasserstein_distance
from recgym.user_models.preference.trips import Trips

BINS = 20  # of the histograms that the card draws


@dataclass(frozen=True)
class Quantity:
    """A quantity of trips whose distribution is compared."""

    name: str
    unit: str
    values: np.ndarray  # [R] float64, one a trip, or one an item bought


def category_codes(items: pd.DataFrame) -> np.ndarray:
    """Category numbers [N]: subcategories where the world has them, else categories."""
    column = "subcategory" if items["subcategory"].nunique() > 1 else "category"
    return pd.factorize(items[column])[0].astype(np.int64)


def repeated(trips: Trips) -> np.ndarray:
    """Bool [E]: whether the user had bought the item on an earlier trip."""
    pair = trips.trip_user[trips.trip] * trips.num_items + trips.item
    out = np.ones(len(pair), bool)
    out[np.unique(pair, return_index=True)[1]] = False  # events are in time order: the first index is the first trip
    return out


def category_entropy(trips: Trips, codes: np.ndarray) -> np.ndarray:
    """Entropy in bits of the categories of each trip's items, [T]."""
    width = int(codes.max()) + 1
    pairs, counts = np.unique(trips.trip * width + codes[trips.item], return_counts=True)
    trip = pairs // width
    share = counts / trips.size[trip]
    return np.bincount(trip, -share * np.log2(share), minlength=len(trips.trip_user))


def trip_means(trips: Trips, values: np.ndarray) -> np.ndarray:
    """Mean over each trip's items of ``values`` [E], [T]."""
    return np.bincount(trips.trip, values, minlength=len(trips.trip_user)) / trips.size


def spends(trips: Trips, items: pd.DataFrame) -> np.ndarray:
    """What each trip's items and quantities cost at the world's prices, [T]."""
    price = items["price"].to_numpy(np.float64)
    return np.bincount(trips.trip, price[trips.item] * trips.feedback, minlength=len(trips.trip_user))


def quantities(trips: Trips, rows: np.ndarray, items: pd.DataFrame, kind: str, currency: str | None) -> list[Quantity]:
    """What is compared of the trips ``rows`` (bool [T]): one value a trip, or an item bought on one.

    Raises:
        WorldError: no trip is left.
    """
    if not rows.any():
        raise WorldError("there are no trips to describe")
    events = rows[trips.trip]
    popularity = np.log10(1 + items["popularity"].to_numpy(np.float64))
    bought = "item bought" if kind == "purchase" else "item rated"
    out = [
        Quantity("basket size", "items", trips.size[rows]),
        Quantity("days between trips", "days", trips.gap[rows]),
    ]
    if kind == "purchase" and (items["price"] > 0).any():
        out.append(Quantity("spend at the world's prices", currency or "currency", spends(trips, items)[rows]))
    out += [
        Quantity(f"popularity of each {bought}", "log10(1 + trips in training)", popularity[trips.item[events]]),
        Quantity("category entropy of a trip", "bits", category_entropy(trips, category_codes(items))[rows]),
        Quantity("share of items that are repeats", "share", trip_means(trips, repeated(trips).astype(float))[rows]),
        Quantity(f"{'quantity' if kind == 'purchase' else 'rating'} of each {bought}", "", trips.feedback[events]),
    ]
    return out


def compare(
    real: list[Quantity], others: dict[str, list[Quantity]], halves: tuple[list[Quantity], list[Quantity]]
) -> list[dict[str, Any]]:
    """Distances of each source from the held-out trips, as JSON values with histograms to draw.

    Args:
        real: quantities of the held-out trips.
        others: the same of other sources (the model, controls), by name.
        halves: those of two halves of the held-out users: what the distances are when both samples are real.
    """
    out = []
    for at, quantity in enumerate(real):
        held = np.asarray(quantity.values, np.float64)
        row: dict[str, Any] = {"name": quantity.name, "unit": quantity.unit, "mean": {"held_out": _round(held.mean())}}
        edges = _edges(held)
        shares = {"held_out": _shares(held, edges)}
        for source, described in others.items():
            values = np.asarray(described[at].values, np.float64)
            row["mean"][source] = _round(values.mean())
            row[source] = _distances(values, held)
            shares[source] = _shares(values, edges)
        row["real_halves"] = _distances(halves[0][at].values, halves[1][at].values)
        row["histogram"] = {"edges": [_round(edge) for edge in edges], "shares": shares}
        out.append(row)
    return out


def _distances(values: np.ndarray, held: np.ndarray) -> dict[str, float]:
    return {
        "ks": round(ks_distance(values, held), 4),
        "jensen_shannon": round(jensen_shannon_divergence(values, held), 4),
        "wasserstein": _round(wasserstein_distance(values, held)),
    }


def _edges(values: np.ndarray) -> np.ndarray:
    """Lower edges of at most ``BINS`` bins of about equal mass; the last bin is open, the first takes all below."""
    unique = np.unique(values)
    if len(unique) <= BINS:
        return unique
    return np.unique(np.quantile(values, np.arange(BINS) / BINS, method="lower"))


def _shares(values: np.ndarray, edges: np.ndarray) -> list[float]:
    place = np.searchsorted(edges, values, side="right").clip(min=1) - 1
    return [round(float(share), 4) for share in np.bincount(place, minlength=len(edges)) / len(values)]


def _round(value: float) -> float:
    return round(float(value), 4)
