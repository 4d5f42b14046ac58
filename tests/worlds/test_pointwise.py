"""Pointwise figures of the card against answers worked out by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from recgym.user_models.preference.trips import Trips
from recgym.worlds import pointwise
from recgym.worlds.graded import measure_graded, user_item_means
from recgym.worlds.pointwise import Predictors
from recgym.worlds.views import Answers, HeldOut, geometric_chances

LOGITS = torch.tensor([[2.0, 0.0, -2.0, -4.0], [0.0, 1.0, -1.0, -3.0]])


def held() -> HeldOut:
    return HeldOut(
        baskets=[torch.tensor([0, 2]), torch.tensor([1])],
        own_counts=torch.tensor([[3.0, 0, 0, 0], [0, 0, 1, 0]]),
        popularity=torch.tensor([4.0, 2, 2, 1]),
        num_trips=8,
    )


def predictors(pseudo_trips: float = 2.0) -> Predictors:
    return Predictors(LOGITS, held(), np.array([6, 2]), pseudo_trips)


def test_chances_of_the_model_and_of_what_it_is_to_beat() -> None:
    chances = predictors().chances(slice(0, 2))
    assert chances["model"][0, 0] == pytest.approx(1 / (1 + np.exp(-2)))
    assert chances["base_rate"][1].tolist() == [0.5, 0.25, 0.25, 0.125]
    assert chances["personal_frequency"][0, 0] == pytest.approx((3 + 2 * 0.5) / 8)
    assert chances["personal_frequency"][1, 2] == pytest.approx((1 + 2 * 0.25) / 4)


def test_catalogue_losses_by_hand() -> None:
    losses = pointwise.catalogue_losses(predictors())
    by_hand = -(np.log(0.5) + np.log(0.75) + np.log(0.25) + np.log(0.875))  # items 0 and 2 bought, 1 and 3 not
    assert losses["base_rate"][0] == pytest.approx(by_hand, rel=1e-6)
    model = np.log1p(np.exp([-2.0, 0.0, 2.0, -4.0])).sum()
    assert losses["model"][0] == pytest.approx(model, rel=1e-6)


def test_areas_count_ties_half() -> None:
    found = pointwise.areas(LOGITS, held(), 4, seed=0)
    # User 1 bought item 1; negatives are 0, 2 and 3: the model ranks it first, own frequency ties with 0 and 3.
    assert found["uniform"]["model"][1] == 1
    assert 0 < found["uniform"]["own_frequency"][1] < 0.5
    assert found["uniform"]["popularity"][1] < 1


def test_baskets_that_leave_few_items_or_none_have_an_area_or_none() -> None:
    baskets = [torch.tensor([0, 1, 2]), torch.tensor([0, 1, 2, 3])]
    wide = HeldOut(baskets, torch.zeros(2, 4), torch.tensor([3.0, 2.0, 1.0, 0.0]), 6)  # nobody's: 3
    found = pointwise.areas(torch.tensor([[1.0, 2.0, 3.0, 0.0]] * 2), wide, 4, seed=0)
    assert found["popularity"]["model"][0] == 1
    assert np.isnan(found["uniform"]["model"][1])
    users = np.arange(2)
    assert pointwise.summary(found["popularity"]["model"], users) == [1.0, None, None]
    assert pointwise.summary(found["popularity"]["model"][1:], users[1:]) == [None, None, None]


def test_probes_are_the_items_of_highest_q_and_their_outcomes() -> None:
    wide = torch.linspace(3, -3, 150).repeat(3, 1)
    everything = HeldOut([torch.tensor([0, 140])] * 3, torch.zeros(3, 150), torch.arange(1.0, 151), 200)
    found = pointwise.probe(Predictors(wide, everything, np.full(3, 4), 1.0), seed=0)
    top = found["top"]
    assert top.outcomes.sum(1).tolist() == [1, 1, 1]  # item 140 is not among the 100 of highest q
    assert top.chances["model"][0] == pytest.approx(torch.sigmoid(wide[0, :100]).numpy(), rel=1e-5)
    assert top.briers("model")[0] == pytest.approx(((top.chances["model"] - top.outcomes)[0] ** 2).mean())
    popular = found["popular"].chances["base_rate"]
    assert popular.shape == (3, 100 * pointwise.SAMPLES)
    assert popular.mean() > everything.rates.mean()
    items = found["popular"].items.reshape(3, pointwise.SAMPLES, 100)
    assert all(len(np.unique(sample)) == 100 for user in items for sample in user)  # no item twice in a sample


def test_summary_of_probes_of_a_calibrated_model() -> None:
    rng = np.random.default_rng(0)
    chances = rng.uniform(0.05, 0.6, (400, 50))
    probes = pointwise.Probes(
        {"model": chances, "base_rate": np.full((400, 50), 0.325)},
        rng.random((400, 50)) < chances,
        np.tile(np.arange(50), (400, 1)),
        1,
    )
    found = pointwise.summarise_probes(probes, np.arange(400), seed=0)
    for mass in ("equal_pairs", "equal_predicted"):
        assert found[mass]["bins_within_0.8_and_1.25"] == 10
        assert found[mass]["calibration_error"] < 3 * found[mass]["calibration_error_of_a_perfect_model"]
    assert found["log_loss"]["model"][2] < found["log_loss"]["base_rate"][1]


def test_pseudo_trips_follow_how_much_users_differ() -> None:
    rng = np.random.default_rng(0)

    def log(peculiar: float) -> Trips:
        own = np.where(rng.random((60, 30)) < 0.2, 0.5, 0.02)
        chance = peculiar * own + (1 - peculiar) * own.mean(0)
        rows = [(u, t, np.flatnonzero(rng.random(30) < chance[u])) for u in range(60) for t in range(12)]
        rows = [(u, t, items if len(items) else np.array([0])) for u, t, items in rows]
        return Trips(
            item=np.concatenate([items for *_, items in rows]),
            feedback=np.ones(sum(len(items) for *_, items in rows), np.int64),
            trip=np.repeat(np.arange(len(rows)), [len(items) for *_, items in rows]),
            trip_user=np.array([u for u, *_ in rows]),
            trip_day=np.array([t for _, t, _ in rows]),
            num_users=60,
            num_items=30,
        )

    assert pointwise.choose_pseudo_trips(log(1.0)) <= 2
    assert pointwise.choose_pseudo_trips(log(0.0)) >= 50


def test_groups_by_history_and_attributes() -> None:
    groups = pointwise.history_groups(np.array([0, 1, 5, 6, 20, 21, 300]))
    assert {name: inside.sum() for name, inside in groups.items()} == {"0": 1, "1-5": 2, "6-20": 2, ">20": 2}
    users = pd.DataFrame({"age": ["young", None, "old", "young"]})
    by_age = pointwise.attribute_groups(users, {"age": ("young", "old")})
    assert {name: inside.tolist() for name, inside in by_age.items()} == {
        "age: young": [True, False, False, True],
        "age: old": [False, False, True, False],
        "age: unknown": [False, True, False, False],
    }


def test_figures_of_groups_are_those_of_their_users() -> None:
    users = np.arange(2)
    found, losses = pointwise.areas(LOGITS, held(), 4, 0), pointwise.catalogue_losses(predictors())
    top = pointwise.probe(predictors(), 0)["top"]
    groups = {"first": np.array([True, False]), "none": np.zeros(2, bool), "both": np.ones(2, bool)}
    rows = pointwise.by_group(groups, found, losses, top, users)
    assert [row["group"] for row in rows] == ["first", "both"]
    assert rows[0]["log_loss"]["model"] == [round(losses["model"][0], 4), None, None]  # one user: no interval
    assert rows[1]["log_loss"]["model"][0] == pytest.approx(losses["model"].mean(), abs=1e-4)
    expected = torch.sigmoid(LOGITS).sum()
    assert rows[1]["observed_over_predicted_top"] == pytest.approx(3 / float(expected), abs=1e-3)


# ---------------------------------------------------------------------- quantities and ratings


def test_geometric_chances_sum_to_one_with_the_tail_in_the_last() -> None:
    chances = geometric_chances(np.array([0.5, 0.05, 1.0]))
    assert chances.sum(1) == pytest.approx(1)
    assert chances[0, :3] == pytest.approx([0.5, 0.25, 0.125])
    assert chances[1, -1] == pytest.approx(0.95**19)
    assert chances[2].tolist() == [1] + [0] * 19


def test_user_and_item_means_are_shrunk_by_five_answers() -> None:
    trips = ratings(np.array([[5, 1], [5, 1]]))
    before = np.ones(4, bool)
    means = user_item_means(trips, before, np.array([0, 1]), np.array([0, 1]))
    assert means == pytest.approx([3 + 2 * 2 / 7, 3 - 2 * 2 / 7])


def ratings(table: np.ndarray) -> Trips:
    """One trip a user and item, in order; rows are users."""
    users, items = table.shape
    count = users * items
    return Trips(
        item=np.tile(np.arange(items), users),
        feedback=table.ravel(),
        trip=np.arange(count),
        trip_user=np.repeat(np.arange(users), items),
        trip_day=np.tile(np.arange(items), users),
        num_users=users,
        num_items=items,
    )


@pytest.mark.parametrize("kind", ["rating", "quantity"])
def test_answers_drawn_from_the_model_are_as_well_calibrated_as_a_perfect_model(kind: str) -> None:
    rng = np.random.default_rng(1)
    users, items = 300, 12
    if kind == "rating":
        chances, threshold = rng.dirichlet(np.ones(5) * 0.7, users * items), 4
    else:
        chances, threshold = geometric_chances(rng.uniform(0.3, 0.9, users * items)), 2
    grade = (chances.cumsum(1)[:, :-1] < rng.random((users * items, 1))).sum(1) + 1
    trips = ratings(grade.reshape(users, items))
    targets = np.flatnonzero(trips.trip_user_remaining < 6)
    user, item = trips.trip_user[targets], trips.item[targets]
    right = Answers(chances[targets], np.arange(1, chances.shape[1] + 1), grade[targets], user, item)
    found = measure_graded(right, trips, targets, threshold, seed=0)
    mean_error, rarely = found["expected"]["calibration_error_of_a_perfect_model"]
    assert found["expected"]["calibration_error"] < 1.5 * rarely
    assert mean_error < rarely
    event = found[f"at_least_{threshold}"]
    assert event["bins_within_0.8_and_1.25"] >= 9
    assert found["log_loss"]["model"][0] < found["log_loss"]["histogram"][0]
    assert event["log_loss"]["model"][2] < event["log_loss"]["base_rate"][1]
    assert event["brier"]["model"][2] < event["brier"]["base_rate"][1]
    assert found["model"]["rmse"] < found["user_item_means"]["rmse"]
    flat = np.full_like(right.chances, 1 / right.chances.shape[1])
    wrong = measure_graded(Answers(flat, right.values, right.grade, user, item), trips, targets, threshold, seed=0)
    assert wrong["log_loss"]["model"][0] == pytest.approx(np.log(right.chances.shape[1]), abs=1e-4)
    assert wrong["log_loss"]["model"][1] > found["log_loss"]["model"][2]
