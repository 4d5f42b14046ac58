"""Rating prediction: the preference model beside SVD and SVD++ on one split, test ratings read once.

    python benchmarks/rating.py --train u1.base --test u1.test

Both files are in MovieLens ``u.data`` format: user, item, rating and time (seconds) in four tab-separated columns. A
validation part is carved out of the training file, and early stopping looks at that alone; then models that differ by
their seed are trained on the whole training file for as many epochs, and their expected ratings are averaged.
Item texts, genres and user attributes come from MovieLens-100K (``recgym data fetch ml-100k``, done here if need be);
users and items that it does not know are described by their ratings alone. The baselines need ``scikit-surprise``.
The last line is one JSON object: ``{"preference": {"rmse": .., "mae": ..}, "svdpp": {..}, "svd": {..}}``.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from recgym.benchmark.options import at_least
from recgym.benchmark.ratings import BASELINES, Errors, baseline, read_split, side_information
from recgym.commands.progress import stage_progress
from recgym.errors import RecGymError
from recgym.user_models.preference.config import GraphConfig, ModelConfig, NetworkConfig, RatingConfig
from recgym.user_models.preference.metrics import rating_calibration
from recgym.user_models.preference.rating import expected_rating
from recgym.user_models.preference.rating_training import train_ensemble
from recgym.user_models.preference.ratings import Ratings

BINS = 10  # of the calibration


def as_ratings(frame: pd.DataFrame, users: pd.Index, items: pd.Index) -> tuple[Ratings, np.ndarray]:
    """Ratings sorted by user and time, and where each row of ``frame`` went."""
    user, item = users.get_indexer(frame["user"]), items.get_indexer(frame["item"])
    order = np.lexsort((np.arange(len(frame)), frame["time"], user))
    place = np.empty(len(frame), np.int64)
    place[order] = np.arange(len(frame))
    rows = (user, item, frame["rating"].to_numpy(), frame["time"].to_numpy())
    u, i, r, t = (torch.tensor(values, dtype=torch.int64) for values in rows)
    ratings = Ratings.of(u, i, r, t, len(users), len(items))
    return ratings, place


def default_config() -> ModelConfig:
    """The preference model for rating logs of the size of MovieLens-100K; chosen on parts of training files alone."""
    return ModelConfig(network=NetworkConfig(dropout=0.25), graph=GraphConfig(id_dropout=0.95), rating=RatingConfig())


def preference(
    train: pd.DataFrame, test: pd.DataFrame, config: ModelConfig, seed: int, described: bool
) -> torch.Tensor:
    """The preference model's P(rating <= 1..4) [Q, 4] for the rows of ``test``; their ratings are not looked at."""
    users = pd.Index(np.union1d(train["user"], test["user"]))
    items = pd.Index(np.union1d(train["item"], test["item"]))
    sides = side_information(users, items, described)
    seen, _ = as_ratings(train, users, items)
    asked, place = as_ratings(test.assign(rating=1), users, items)
    with stage_progress() as progress:
        ensemble = train_ensemble(sides, seen, config, seed, progress=progress)
    print(
        f"preference: {ensemble.epochs} epochs, chosen on {config.rating.validation_share:.0%} of the training file "
        f"(RMSE {ensemble.validation_rmse:.4f} there, one model), then {len(ensemble.members)} models on all of it"
    )
    return ensemble.predict(sides, asked.user, asked.item, asked.time).double()[place]


def report(predicted: dict[str, np.ndarray], test: pd.DataFrame, train: pd.DataFrame) -> dict[str, dict[str, float]]:
    """Prints errors with intervals, and the preference model paired with each baseline; returns RMSE and MAE."""
    real, users = test["rating"].to_numpy(float), test["user"].to_numpy()
    errors = {name: Errors(values - real, users) for name, values in predicted.items()}
    print(f"{'':12}{'RMSE':>8}  {'95% interval':18}{'MAE':>8}   (intervals over users, one training run)")
    for name, each in errors.items():
        print(f"{name:12}{each.summary()['rmse']:8.4f}  {each.interval():18}{each.summary()['mae']:8.4f}")
    for name in predicted:
        if name != "preference":
            print(f"preference / {name}, RMSE: {errors['preference'].ratio(errors[name])}")
    new = ~(test["user"].isin(train["user"]) & test["item"].isin(train["item"])).to_numpy()
    if new.any():
        known = {name: Errors(each.error[new], users[new]).summary()["rmse"] for name, each in errors.items()}
        print(f"RMSE on the {new.sum()} ratings whose user or item has no rating in the training file: {known}")
    return {name: each.summary() for name, each in errors.items()}


def calibration(cdf: torch.Tensor, test: pd.DataFrame) -> str:
    """What is to be said of the calibration of P(rating <= 1..4), [Q, 4], of the rows of ``test``."""
    if len(test) < BINS:
        return f"preference: no calibration error, {len(test)} test ratings do not fill {BINS} bins"
    found = rating_calibration(cdf, torch.tensor(test["rating"].to_numpy(), dtype=cdf.dtype), BINS)
    return (
        f"preference: mean absolute calibration error of the expected rating {found.error:.4f} rating points "
        f"in {BINS} bins of equal mass; a perfect model would have {found.floor:.4f} on as many ratings"
    )


def main(arguments: list[str] | None = None) -> int:
    """The command line; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=Path, required=True, help="training ratings, u.data format")
    parser.add_argument("--test", type=Path, required=True, help="test ratings, u.data format")
    parser.add_argument("--no-baselines", action="store_true", help="the preference model alone")
    parser.add_argument("--no-text", action="store_true", help="ratings and times alone: no titles, genres, people")
    parser.add_argument("--members", type=at_least(1), help="models that are averaged")
    parser.add_argument("--epochs", type=at_least(1), help="length of the learning-rate schedule")
    parser.add_argument("--seed", type=at_least(0), default=0)
    options = parser.parse_args(arguments)
    try:
        train, test = read_split(options.train, options.test, baselines=not options.no_baselines)
        config = default_config()
        changes = {name: getattr(options, name) for name in ("members", "epochs") if getattr(options, name)}
        rating = RatingConfig.model_validate({**config.rating.model_dump(), **changes})
        config = config.model_copy(update={"rating": rating})
        unseen = {name: int((~test[name].isin(train[name])).sum()) for name in ("user", "item")}
        print(
            f"{len(train)} training and {len(test)} test ratings; of the latter {unseen['user']} by users and "
            f"{unseen['item']} of items that training never saw"
        )
        started = time.perf_counter()
        cdf = preference(train, test, config, options.seed, described=not options.no_text)
        predicted = {"preference": expected_rating(cdf).numpy()}
        print(f"preference: trained and predicted in {time.perf_counter() - started:.0f} s")
        for name in () if options.no_baselines else BASELINES:
            predicted[name] = baseline(name, train, test, options.seed)
        result = report(predicted, test, train)
        print(calibration(cdf, test))
    except RecGymError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    torch.set_num_threads(1)  # rows of 32 numbers: more threads cost more than they bring
    sys.exit(main())
