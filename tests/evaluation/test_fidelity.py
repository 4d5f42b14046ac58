"""Distances, calibration and the two-sample test against answers that are known."""

from __future__ import annotations

from statistics import NormalDist
from typing import Any

import numpy as np
import pytest

from recgym.errors import RecGymError
from recgym.evaluation.fidelity.calibration import brier_scores, calibration_floor, log_losses, reliability
from recgym.evaluation.fidelity.distances import jensen_shannon_divergence, ks_distance, wasserstein_distance
from recgym.evaluation.fidelity.two_sample import area_under_curve, two_sample_test

DISTANCES = (ks_distance, jensen_shannon_divergence, wasserstein_distance)


@pytest.mark.parametrize("distance", DISTANCES)
def test_a_sample_has_no_distance_from_itself_in_any_order_or_multiple(distance: Any) -> None:
    values = np.random.default_rng(0).normal(size=500)
    assert distance(values, values[::-1]) == pytest.approx(0, abs=1e-12)
    assert distance(values, np.repeat(values, 3)) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("distance", DISTANCES)
def test_distances_do_not_depend_on_the_side(distance: Any) -> None:
    rng = np.random.default_rng(1)
    left, right = rng.normal(size=300), rng.normal(0.4, 1.3, 500)
    assert distance(left, right) == pytest.approx(distance(right, left), abs=1e-12)


def test_distances_of_samples_worked_out_by_hand() -> None:
    left, right = [0, 0, 1, 2], [0, 1, 1, 3]
    # Functions at 0, 1, 2, 3: 2/4, 3/4, 1, 1 and 1/4, 3/4, 3/4, 1.
    assert ks_distance(left, right) == pytest.approx(0.25)
    assert wasserstein_distance(left, right) == pytest.approx(0.25 + 0 + 0.25)
    # Shares .5 .25 .25 0 and .25 .5 0 .25; the middle is .375 .375 .125 .125.
    p, q, m = (0.5, 0.25, 0.25, 0), (0.25, 0.5, 0, 0.25), (0.375, 0.375, 0.125, 0.125)
    by_hand = sum(a * np.log2(a / c) / 2 for side in (p, q) for a, c in zip(side, m, strict=True) if a)
    assert jensen_shannon_divergence(left, right) == pytest.approx(by_hand)


def test_distances_of_samples_apart() -> None:
    left, right = np.zeros(7), np.full(11, 5.0)
    assert ks_distance(left, right) == 1
    assert jensen_shannon_divergence(left, right) == pytest.approx(1)
    assert wasserstein_distance(left, right) == pytest.approx(5)


def test_distances_of_shifted_normals_near_their_exact_values() -> None:
    rng = np.random.default_rng(2)
    left, right = rng.normal(size=200_000), rng.normal(0.5, 1, 200_000)
    assert ks_distance(left, right) == pytest.approx(2 * NormalDist().cdf(0.25) - 1, abs=0.005)
    assert wasserstein_distance(left, right) == pytest.approx(0.5, abs=0.01)
    x = np.linspace(-8, 9, 40_000)
    p, q = (np.exp(-((x - shift) ** 2) / 2) / np.sqrt(2 * np.pi) for shift in (0, 0.5))
    m = (p + q) / 2
    exact = float(np.trapezoid(p * np.log2(p / m) + q * np.log2(q / m), x)) / 2
    assert jensen_shannon_divergence(left, right, bins=200) == pytest.approx(exact, rel=0.05)
    coarse = jensen_shannon_divergence(left, right)
    assert coarse == pytest.approx(exact, rel=0.06)  # 20 bins lose little


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize(
    ("left", "message"),
    [
        ([], "left sample must be a vector with at least one value"),
        ([[1.0]], "left sample must be a vector"),
        ([1.0, float("nan")], "holds nan at 1"),
    ],
)
def test_distances_refuse_samples_that_are_none(distance: Any, left: Any, message: str) -> None:
    with pytest.raises(RecGymError, match=message):
        distance(left, [1.0])


def test_jensen_shannon_needs_two_bins() -> None:
    with pytest.raises(RecGymError, match="bins must be at least 2, got 1"):
        jensen_shannon_divergence([1.0], [2.0], bins=1)


# ---------------------------------------------------------------------- calibration


def test_reliability_sorts_into_bins_of_equal_mass() -> None:
    predicted = [0.9, 0.1, 0.4, 0.2, 0.3, 0.8]
    observed = [1, 0, 1, 0, 0, 1]
    table = reliability(predicted, observed, bins=3)
    assert table.rows() == [[0.15, 0, 2], [0.35, 0.5, 2], [0.85, 1, 2]]
    assert table.error == pytest.approx((0.15 + 0.15 + 0.15) / 3)
    assert table.num_close == 1  # 0, 1.43 and 1.18
    by_chance = reliability([0.1] * 8 + [0.4] * 2, [0] * 10, bins=2, mass="predicted")
    assert by_chance.count.tolist() == [8, 2]  # 0.8 of chance on each side


def test_log_loss_and_brier_score_by_hand() -> None:
    assert log_losses([0.5, 0.9, 0.2], [1, 0, 0]) == pytest.approx([np.log(2), -np.log(0.1), -np.log(0.8)])
    assert brier_scores([0.5, 0.9, 0.2], [1, 0, 0]) == pytest.approx([0.25, 0.81, 0.04])
    assert np.isfinite(log_losses([0.0, 1.0], [1, 0])).all()


def test_the_floor_is_what_a_perfect_model_shows_and_a_bad_one_exceeds() -> None:
    rng = np.random.default_rng(3)
    ratings = np.arange(1, 6)
    chances = rng.dirichlet(np.ones(5), 5_000)
    floor = calibration_floor(chances, ratings, np.random.default_rng(4))
    # By the normal approximation: sqrt(2 / pi) x the standard error of a bin's mean.
    expected = chances @ ratings
    order = np.array_split(np.argsort(expected), 10)
    variance = chances @ ratings**2 - expected**2
    exact = np.mean([np.sqrt(2 / np.pi * variance[part].mean() / len(part)) for part in order])
    assert floor.error == pytest.approx(exact, rel=0.05)
    assert floor.error < floor.error_95 < 2.5 * floor.error
    drawn = (chances.cumsum(1) < rng.random((5_000, 1))).sum(1) + 1
    assert reliability(expected, drawn).error < 2 * floor.error
    assert reliability(expected + 0.2, drawn).error > 2.5 * floor.error_95


def test_the_floor_counts_the_bins_that_chance_leaves_close() -> None:
    often = np.full(20_000, 0.3)
    rare = np.full(20_000, 0.0005)  # one event a bin
    close = [
        calibration_floor(np.column_stack((1 - p, p)), (0, 1), np.random.default_rng(5)).num_close
        for p in (often, rare)
    ]
    assert close[0] == 10
    assert close[1] == pytest.approx(10 * np.exp(-1), abs=1)  # only exactly one event is close


def test_an_event_looked_at_twice_has_one_outcome_and_tells_no_more() -> None:
    p = np.random.default_rng(6).uniform(0.1, 0.5, 500)
    both = np.column_stack((1 - p, p))
    once = calibration_floor(both, (0, 1), np.random.default_rng(7)).error
    number = np.tile(np.arange(500), 9)
    again = calibration_floor(np.tile(both, (9, 1)), (0, 1), np.random.default_rng(7), same=number).error
    apart = calibration_floor(np.tile(both, (9, 1)), (0, 1), np.random.default_rng(7)).error
    assert again == pytest.approx(once, rel=0.1)
    assert apart == pytest.approx(once / 3, rel=0.1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: reliability([], []), "vectors of one length"),
        (lambda: reliability([0.1], [0, 1]), "vectors of one length"),
        (lambda: reliability([0.1], [np.nan]), "finite"),
        (lambda: reliability([0.1], [1], bins=0), "bins must be at least 1, got 0"),
        (lambda: log_losses([1.2], [1]), r"chance 0 is 1.2; chances lie in \[0, 1\]"),
        (lambda: brier_scores([0.2, 0.2], [1, 3]), "outcome 1 is 3.0; outcomes are 0 or 1"),
        (lambda: calibration_floor([[0.5, 0.6]], (0, 1), np.random.default_rng(0)), "sum to 1"),
        (lambda: calibration_floor([[0.5, 0.5]], (0, 1, 2), np.random.default_rng(0)), r"\[R, V\]"),
    ],
)
def test_calibration_refuses_what_is_not_a_prediction(call: Any, message: str) -> None:
    with pytest.raises(RecGymError, match=message):
        call()


# ---------------------------------------------------------------------- two-sample test


def test_area_under_the_curve_by_hand_with_ties() -> None:
    # Pairs (1s: 0.4, 0.8; 0s: 0.4, 0.1): tie, win, win, win.
    estimate = area_under_curve([0.4, 0.8, 0.4, 0.1], [1, 1, 0, 0], [0, 1, 0, 1], np.random.default_rng(0))
    assert estimate.value == pytest.approx(3.5 / 4)


def test_the_interval_of_the_area_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(6)
    truth, covered = NormalDist().cdf(1 / np.sqrt(2)), 0
    for _ in range(100):
        scores = np.concatenate((rng.normal(size=60), rng.normal(1, 1, 60)))
        estimate = area_under_curve(scores, np.repeat([0, 1], 60), np.arange(120), rng, draws=300)
        covered += estimate.low <= truth <= estimate.high
    assert covered >= 87


def test_users_are_resampled_with_all_their_rows() -> None:
    rng = np.random.default_rng(7)
    scores, labels = rng.normal(size=80), np.repeat([0, 1], 40)
    users = np.tile(np.arange(40), 2)
    once = area_under_curve(scores, labels, users, np.random.default_rng(0))
    copied = area_under_curve(np.tile(scores, 10), np.tile(labels, 10), np.tile(users, 10), np.random.default_rng(0))
    assert copied.value == pytest.approx(once.value)
    assert copied.high - copied.low == pytest.approx(once.high - once.low, rel=1e-6)


def test_two_samples_of_one_distribution_cannot_be_told_apart() -> None:
    rng = np.random.default_rng(8)
    left, right = rng.normal(size=(2, 300, 6))
    test = two_sample_test(left, right, np.arange(300), np.arange(300))
    for estimate in (test.logistic, test.network):
        assert estimate.value == pytest.approx(0.5, abs=0.08)


def test_a_shift_is_found_out_as_far_as_it_can_be() -> None:
    rng = np.random.default_rng(9)
    left, right = rng.normal(size=(2, 1000, 3))
    right[:, 1] = np.exp(right[:, 1] + 1)  # the scale of a feature does not matter
    left[:, 1] = np.exp(left[:, 1])
    test = two_sample_test(left, right, np.arange(1000), np.arange(1000, 2000))
    optimum = NormalDist().cdf(1 / np.sqrt(2))
    assert test.logistic.value == pytest.approx(optimum, abs=0.03)
    assert test.network.value == pytest.approx(optimum, abs=0.03)
    assert test.highest.value >= test.logistic.value


def test_a_difference_of_shape_is_found_out_by_the_network() -> None:
    rng = np.random.default_rng(10)
    left, right = rng.normal(size=(2, 1000, 2))
    right[:, 1] = right[:, 0] * np.sign(right[:, 1])  # the margins are the same, not the dependence
    test = two_sample_test(left, right, np.arange(1000), np.arange(1000))
    assert test.logistic.value < 0.56
    assert test.network.value > 0.8


def test_what_is_peculiar_to_a_user_does_not_help() -> None:
    """Rows of one user are in one fold: a user who is on one side in training tells nothing of the same one in test."""
    rng = np.random.default_rng(11)
    users = np.repeat(np.arange(100), 5)
    peculiar = rng.normal(size=(200, 4))
    left = peculiar[users] + rng.normal(0, 0.01, (500, 4))
    right = peculiar[users + 100] + rng.normal(0, 0.01, (500, 4))
    test = two_sample_test(left, right, users, users + 100)
    assert test.highest.value < 0.65


def test_the_two_sample_test_repeats_itself_and_leaves_global_randomness_alone() -> None:
    import torch

    rng = np.random.default_rng(12)
    left, right = rng.normal(size=(2, 60, 3))
    state = torch.random.get_rng_state()
    first = two_sample_test(left, right, np.arange(60), np.arange(60))
    assert first == two_sample_test(left, right, np.arange(60), np.arange(60))
    assert torch.equal(state, torch.random.get_rng_state())


@pytest.mark.parametrize(
    ("left", "users", "message"),
    [
        (np.zeros((30, 3)), np.arange(30), "both samples need the same features, got 3 and 2"),
        (np.zeros((30, 2)), np.arange(29), "left sample has 30 rows"),
        (np.zeros((30, 2)), np.repeat(np.arange(5), 6), "left sample has 5 users; the test needs 10"),
        (np.full((30, 2), np.inf), np.arange(30), "left sample holds inf in row 0, column 0"),
        (np.zeros(30), np.arange(30), "must be a matrix"),
    ],
)
def test_the_two_sample_test_refuses_what_it_cannot_test(left: Any, users: Any, message: str) -> None:
    with pytest.raises(RecGymError, match=message):
        two_sample_test(left, np.ones((30, 2)), users, np.arange(30))


@pytest.mark.parametrize(
    ("scores", "labels", "message"),
    [
        ([0.1, 0.2], [1, 1], "labels 0 or 1 with both present"),
        ([0.1, np.nan], [0, 1], "scores must be finite"),
        ([0.1], [0, 1], "vectors of one length"),
    ],
)
def test_the_area_refuses_what_it_cannot_rank(scores: Any, labels: Any, message: str) -> None:
    with pytest.raises(RecGymError, match=message):
        area_under_curve(scores, labels, np.arange(len(labels)), np.random.default_rng(0))
