"""Held-out answers with a grade: quantities bought, ratings given."""

from __future__ import annotations

from typing import Any

import numpy as np

from recgym.evaluation.fidelity.calibration import brier_scores, calibration_floor, log_losses, reliability
from recgym.user_models.preference.trips import Trips
from recgym.worlds.pointwise import summaries, summary
from recgym.worlds.views import Answers

SHRINKAGE = 5  # pseudo-answers that item and user means are shrunk by
SMALLEST = 1e-9


def measure_graded(answers: Answers, trips: Trips, targets: np.ndarray, threshold: int, seed: int) -> dict[str, Any]:
    """Log loss, errors and calibration of graded answers in trips ``targets``, as JSON values.

    Beside the model stand what was known before the held-out trips: the histogram of all answers for the log loss,
    and the mean of the item shifted by that of the user for the errors.

    Args:
        answers: the model's chances of each grade, and the answers given.
        trips: the log.
        targets: its held-out trips.
        threshold: answers of this grade or more are the event whose chance is checked (liked; more than one bought).
        seed: of the simulated answers of a perfect model.
    """
    known = np.ones(len(trips.trip_user), bool)
    known[targets] = False
    before = known[trips.trip]
    place = answers.grade - answers.values[0]
    rows = np.arange(len(place))
    counts = np.bincount(trips.feedback[before] - answers.values[0], minlength=len(answers.values)) + 1.0
    histogram = counts / counts.sum()
    expected = answers.chances @ answers.values
    means = user_item_means(trips, before, answers.user, answers.item).clip(answers.values[0], answers.values[-1])
    rng = np.random.default_rng([seed, 43])
    table = reliability(expected, answers.grade)
    floor = calibration_floor(answers.chances, answers.values, rng)
    event = answers.grade >= threshold
    chance = answers.chances[:, answers.values >= threshold].sum(1).clip(0, 1)
    likely = reliability(chance, event)
    base = float(histogram[answers.values >= threshold].sum())
    predicted = {"model": chance, "base_rate": np.full(len(event), base)}
    return {
        "answers": len(place),
        "log_loss": summaries(
            {"model": -np.log(answers.chances[rows, place].clip(SMALLEST)), "histogram": -np.log(histogram[place])},
            answers.user,
        ),
        **{
            name: {
                "rmse": round(float(np.sqrt(np.mean((values - answers.grade) ** 2))), 4),
                "mae": summary(np.abs(values - answers.grade), answers.user),
            }
            for name, values in (("model", expected), ("user_item_means", means))
        },
        "expected": {
            "bins": table.rows(4),  # [mean expected, mean given, answers]
            "calibration_error": round(table.error, 4),
            "calibration_error_of_a_perfect_model": [
                round(floor.error, 4),
                round(floor.error_95, 4),
            ],  # mean, 95% point
        },
        f"at_least_{threshold}": {
            "bins": likely.rows(4),
            "bins_within_0.8_and_1.25": likely.num_close,
            "calibration_error": round(likely.error, 4),
            **{
                name: summaries({source: score(p, event) for source, p in predicted.items()}, answers.user)
                for name, score in (("log_loss", log_losses), ("brier", brier_scores))
            },
        },
    }


def user_item_means(trips: Trips, before: np.ndarray, user: np.ndarray, item: np.ndarray) -> np.ndarray:
    """Mean of the item plus offset of the user, each shrunk, from the events ``before`` (bool [E]); [R]."""
    overall = trips.feedback[before].mean()

    def offsets(groups: np.ndarray, size: int, residual: np.ndarray) -> np.ndarray:
        total = np.bincount(groups, residual, minlength=size)
        shrunk: np.ndarray = total / (np.bincount(groups, minlength=size) + SHRINKAGE)
        return shrunk

    residual = trips.feedback[before] - overall
    by_item = offsets(trips.item[before], trips.num_items, residual)
    owner = trips.trip_user[trips.trip]
    by_user = offsets(owner[before], trips.num_users, residual - by_item[trips.item[before]])
    means: np.ndarray = overall + by_item[item] + by_user[user]
    return means
