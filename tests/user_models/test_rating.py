"""The rating head learns what a planted log holds, sees no hidden rating, and copes with new users and items."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from recgym.errors import RecGymError
from recgym.user_models.preference.config import GraphConfig, ModelConfig, NetworkConfig, RatingConfig
from recgym.user_models.preference.metrics import rating_calibration
from recgym.user_models.preference.rating import expected_rating
from recgym.user_models.preference.rating_training import RatingModel, predict, train, train_ensemble
from recgym.user_models.preference.ratings import Neighbours, Ratings
from recgym.user_models.preference.sides import Sides

USERS, ITEMS = 80, 60
CONFIG = ModelConfig(
    network=NetworkConfig(dim=16, hidden=16, dropout=0.1),
    graph=GraphConfig(id_dropout=0.5),
    rating=RatingConfig(epochs=25, members=2, window=4, heads=2, learning_rate=0.01, input_dropout=0.0),
)


def planted(seed: int = 0) -> tuple[Sides, Ratings, Ratings]:
    """Ratings from user and item offsets and a two-dimensional taste that the item texts tell; then some held out."""
    rng = np.random.default_rng(seed)
    user, item = (grid.ravel() for grid in np.meshgrid(np.arange(USERS), np.arange(ITEMS), indexing="ij"))
    taste, text = rng.normal(0, 0.7, (USERS, 2)), rng.normal(0, 1, (ITEMS, 2))
    location = (
        3.2 + rng.normal(0, 0.4, USERS)[user] + rng.normal(0, 0.4, ITEMS)[item] + (taste[user] * text[item]).sum(1)
    )
    value = np.clip(np.rint(location + rng.normal(0, 0.3, len(user))), 1, 5)
    time = 1_000_000 * user + 20 * rng.permutation(len(user))
    kept = rng.random(len(user)) < 0.5
    columns = [torch.from_numpy(array[kept]) for array in (user, item, value, time)]
    ratings = Ratings.of(*columns, USERS, ITEMS)
    held = torch.from_numpy(rng.random(len(ratings)) < 0.2)
    sides = Sides(torch.from_numpy(text).float(), torch.zeros(ITEMS, 1), torch.zeros(USERS, 1))
    return sides, ratings.select(~held), ratings.select(held)


def means_error(seen: Ratings, held: Ratings) -> float:
    """RMSE of the head's offsets alone at their starting shrinkage."""
    offsets = RatingModel(CONFIG, planted()[0]).rating.offsets(seen)
    guess = offsets.mean + offsets.user[held.user] + offsets.item[held.item]
    return float((guess.detach().clamp(1, 5) - held.value).square().mean().sqrt())


def test_ratings_are_sorted_by_user_and_time() -> None:
    ratings = Ratings.of(
        torch.tensor([1, 0, 1]), torch.tensor([5, 6, 7]), torch.tensor([1.0, 2, 3]), torch.tensor([9, 4, 2]), 2, 8
    )
    assert ratings.item.tolist() == [6, 7, 5]


def test_neighbours_are_the_users_nearest_in_time() -> None:
    seen = Ratings.of(
        torch.tensor([0, 0, 0, 1]), torch.arange(4), torch.ones(4), torch.tensor([10, 20, 5000, 21]), 2, 4
    )
    near = Neighbours.of(seen, torch.tensor([0]), torch.tensor([22]), width=2)
    assert near.inside.tolist() == [[True, True, True, False]]
    assert seen.item[near.event[near.inside]].tolist() == [0, 1, 2]
    before, after = near.level[0, 1], near.level[0, 2]
    assert int(before) == 1  # two seconds earlier: the level of 1 to 9 seconds
    assert int(after) > 11  # later ratings have levels of their own


def test_beats_offsets_on_planted_tastes() -> None:
    sides, seen, held = planted()
    fit = train(sides, seen, CONFIG, seed=0)
    cdf = predict(fit.model, sides, seen, held.user, held.item, held.time)
    error = float((expected_rating(cdf) - held.value).square().mean().sqrt())
    assert error < 0.85 * means_error(seen, held)
    assert bool((cdf.diff(dim=1) >= 0).all())


def test_training_never_uses_what_is_held_out() -> None:
    sides, seen, held = planted()
    scrambled = Ratings(held.user, held.item, held.value.flip(0), held.time, USERS, ITEMS)
    config = CONFIG.model_copy(update={"rating": CONFIG.rating.model_copy(update={"epochs": 2})})
    fits = [train(sides, seen, config, seed=3, held_out=part) for part in (held, scrambled)]
    losses = [[row["train_rmse"] for row in fit.history] for fit in fits]
    assert losses[0] == losses[1]


def test_same_seed_same_model() -> None:
    sides, seen, held = planted()
    config = CONFIG.model_copy(update={"rating": CONFIG.rating.model_copy(update={"epochs": 2})})
    first, second = (train(sides, seen, config, seed=1).model for _ in range(2))
    answers = [predict(model, sides, seen, held.user, held.item, held.time) for model in (first, second)]
    torch.testing.assert_close(*answers, rtol=0, atol=0)


def test_new_users_and_items_get_a_distribution() -> None:
    sides, seen, _ = planted()
    known = seen.select((seen.user > 0) & (seen.item > 0))
    ensemble = train_ensemble(
        sides, known, CONFIG.model_copy(update={"rating": CONFIG.rating.model_copy(update={"epochs": 2})}), seed=0
    )
    cdf = ensemble.predict(sides, torch.tensor([0, 0, 5]), torch.tensor([0, 7, 0]), torch.tensor([5, 5, 5]))
    assert torch.isfinite(cdf).all()
    assert len(ensemble.members) == 2


def test_too_few_ratings_to_validate() -> None:
    sides, seen, _ = planted()
    few = seen.select(torch.arange(len(seen)) < 2)
    with pytest.raises(RecGymError, match="2 ratings are too few"):
        train_ensemble(sides, few, CONFIG, seed=0)


def test_calibration_of_a_perfect_model_is_its_floor_and_a_shift_adds_to_it() -> None:
    rng = np.random.default_rng(0)
    cuts, place = np.array([-2.0, -0.5, 0.5, 2.0]), rng.normal(0, 2, 20_000)
    cdf = torch.from_numpy(1 / (1 + np.exp(place[:, None] - cuts)))
    floors, errors = [], []
    for _ in range(30):
        real = torch.from_numpy(1.0 + (rng.random((len(place), 1)) > cdf.numpy()).sum(1))
        errors.append(rating_calibration(cdf, real).error)
        floors.append(rating_calibration(cdf, real).floor)
    assert np.mean(errors) == pytest.approx(floors[0], rel=0.15)
    shifted = torch.from_numpy(1 / (1 + np.exp(place[:, None] + 0.5 - cuts)))
    assert rating_calibration(shifted, real).error > 5 * floors[0]
