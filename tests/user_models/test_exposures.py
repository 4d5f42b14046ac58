"""Exposures: what was shown is left out of what q is learned and judged by, and tells the lift."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch

from recgym.data import Interactions
from recgym.errors import DataError
from recgym.user_models.preference.exposures import Exposures, fit_lift
from recgym.user_models.preference.metrics import ranking_metrics
from recgym.user_models.preference.samples import PairSampler
from recgym.user_models.preference.trips import Trips, draw_tokens
from recgym.worlds.prepare import prepare
from recgym.worlds.recipes import Recipe
from tests.user_models.test_trends import trends_of

RECIPE = Recipe(name="shop", title="Shop", dataset="shop", kind="purchase", min_item_users=1, min_user_trips=4)


def shop() -> Interactions:
    """Four users on five days: buy items 0 and 1, are shown 1 at position 0, 2 at position 2 and, twice, 3 at 1."""
    rows = []
    for user in range(4):
        for trip in range(5):
            about = (user, f"{user}-{trip}", pd.Timestamp("2024-01-01") + pd.Timedelta(days=trip))
            rows += [(*about, 0, False, 0, True), (*about, 1, True, 0, True), (*about, 2, True, 2, trip == 0)]
            rows += [(*about, 3, True, 1, False), (*about, 3, True, 1, trip == 4)]
            rows += [(*about, 9, True, 0, False)]  # never bought: not an item of the world
        rows += [(user, f"{user}-x", pd.Timestamp("2024-02-01"), 1, True, 0, False)]  # bought nothing: no trip
    names = ["user", "basket", "time", "item", "exposure", "position", "purchase"]
    return Interactions.from_frame(pd.DataFrame(rows, columns=names), name="shop")


def test_a_log_with_exposures_is_split_into_bought_and_shown() -> None:
    prepared = prepare(shop(), RECIPE)
    trips, shown = prepared.trips, prepared.trips.exposures
    assert prepared.items["item_id"].tolist() == ["0", "1", "2", "3"]
    assert len(trips.trip_user) == 20
    assert trips.size.tolist() == [3, 2, 2, 2, 3] * 4
    assert shown is not None
    assert shown.trip.tolist() == np.repeat(np.arange(20), 3).tolist()
    assert shown.item.tolist() == [1, 2, 3] * 20
    assert shown.examined[:3] == pytest.approx([1.0, 0.9**2, 1 - 0.1**2])  # item 3 had two chances of 0.9
    assert {f.reason: f.count for f in prepared.filters}["nothing bought"] == 4 * (4 + 4 + 5 + 5 + 1)
    without = shop().to_frame().drop(columns="purchase")
    with pytest.raises(DataError, match="has a column 'exposure' but none called 'purchase'"):
        prepare(Interactions.from_frame(without, name="shop"), RECIPE)


def test_exposures_follow_their_trips() -> None:
    trips = prepare(shop(), RECIPE).trips
    kept = trips.select(trips.before_last(2))
    assert kept.exposures is not None
    assert kept.exposures.trip.tolist() == np.repeat(np.arange(12), 3).tolist()
    targets = np.flatnonzero(trips.trip_user_remaining == 0)
    row, item, examined = trips.exposures.of(targets)
    assert row.tolist() == np.repeat(np.arange(4), 3).tolist()
    assert item.tolist() == [1, 2, 3] * 4
    assert len(examined) == 12
    trip = np.array([[0, 0], [19, 19]])
    assert trips.exposures.shown(trip, np.array([[0, 1], [3, 0]])).tolist() == [[False, True], [True, False]]
    none = Exposures(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0), 4)
    assert not none.shown(trip, trip).any()
    assert len(none.of(targets)[0]) == 0


def test_shown_pairs_are_not_drawn() -> None:
    trips = prepare(shop(), RECIPE).trips
    rng = np.random.default_rng(0)
    tokens = draw_tokens(trips, rng, 10, 0.0)
    token = np.arange(len(tokens.trip))
    drawn = PairSampler(trips, trends_of(trips), 4, 4).draw(tokens, token, np.random.default_rng(1))
    plain = PairSampler(dataclasses.replace(trips, exposures=None), trends_of(trips), 4, 4)
    plain = plain.draw(tokens, token, np.random.default_rng(1))
    rest = plain.item == 0  # every trip shows 1, 2 and 3
    assert 0 < int(rest.sum()) < len(rest)
    for name in ("moment", "item", "label", "weight"):
        assert torch.equal(getattr(drawn, name), getattr(plain, name)[rest])


def test_log_loss_counts_what_was_not_shown() -> None:
    trips = prepare(shop(), RECIPE).trips
    targets = np.flatnonzero(trips.trip_user_remaining == 1)
    logits = torch.randn(len(targets), 4, generator=torch.Generator().manual_seed(0))
    by_hand = torch.nn.functional.softplus(-logits[:, 0]).mean()  # item 0, always bought, never shown
    assert ranking_metrics(logits, trips, targets)["log_loss"] == pytest.approx(float(by_hand), abs=1e-5)


@pytest.mark.parametrize("lift", [0.0, 0.7, -1.0])
def test_the_lift_is_found(lift: float) -> None:
    rng = np.random.default_rng(0)
    logit, examined = rng.normal(-2.0, 1.0, 40_000), 0.9 ** rng.integers(0, 10, 40_000)
    looked, want = rng.random(40_000) < examined, rng.random(40_000)
    bought = want < 1 / (1 + np.exp(-logit - lift * looked))
    found, error = fit_lift(logit, examined, bought)
    assert abs(found - lift) < 3.5 * error
    assert 0.01 < error < 0.1


@pytest.mark.parametrize("pairs", [0, 50])
def test_a_lift_that_nothing_tells_is_none(pairs: int) -> None:
    """Nothing was shown, or nothing of it bought: the likelihood has no maximum."""
    assert fit_lift(np.full(pairs, -1.0), np.ones(pairs), np.zeros(pairs, bool)) is None


def test_a_log_of_recommendations_alone_is_learned_from_as_it_is() -> None:
    everything = shop().to_frame().assign(exposure=True)
    prepared = prepare(Interactions.from_frame(everything, name="feed"), RECIPE)
    assert prepared.trips.exposures is None  # all that was bought was shown: nothing would be left to learn q from
    counted = next(f for f in prepared.filters if f.reason == "items shown on a trip")
    assert counted.count == 20 * 4
    assert "behaviour.lift=0" in counted.detail


def test_calibration_ignores_what_was_shown() -> None:
    """Purchases that showing brought about would raise q; without them it is right."""
    from recgym.user_models.preference.calibration import calibrate
    from recgym.user_models.preference.config import NetworkConfig
    from recgym.user_models.preference.network import PreferenceNetwork
    from recgym.user_models.preference.scoring import Components

    rng = np.random.default_rng(0)
    moments, items = 400, 50
    logit = rng.normal(-2.5, 1.0, (moments, items))
    shown = rng.random((moments, items)) < 0.3
    bought = rng.random((moments, items)) < 1 / (1 + np.exp(-logit - 2.0 * shown))
    bought[:, 0] = True  # no trip is empty
    shown[:, 0] = True
    trip, item = np.nonzero(bought)
    at, seen = np.nonzero(shown)
    order = np.arange(moments)
    exposures = Exposures(at, seen, np.ones(len(at)), items)
    trips = Trips(item, np.ones_like(item), trip, order, order * 0, moments, items, exposures)
    zero = torch.zeros(moments, items)
    parts = Components(torch.from_numpy(logit).float(), zero, zero, torch.zeros(items))
    network = PreferenceNetwork(NetworkConfig(dim=8, layers=1), 1)
    weights = calibrate(network, parts, trips, order)
    assert weights[0] == pytest.approx(1.0, abs=0.06)
    assert weights[-1] == pytest.approx(0.0, abs=0.12)
    assert calibrate(network, parts, dataclasses.replace(trips, exposures=None), order)[-1] > 0.5
