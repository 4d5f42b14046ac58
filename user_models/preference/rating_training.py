"""Training on a log of ratings: hidden ratings are predicted from the others, early stopping on a carved-out part."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recgym.errors import RecGymError
from recgym.user_models.preference.calibration import OrdinalCalibration
from recgym.user_models.preference.config import ModelConfig
from recgym.user_models.preference.items import ItemEncoder
from recgym.user_models.preference.loop import Fit, Row, descend, fit, luck_of, pace, unsaved
from recgym.user_models.preference.losses import ordinal_loss
from recgym.user_models.preference.network import PreferenceNetwork
from recgym.user_models.preference.rating import RatingHead, expected_rating
from recgym.user_models.preference.ratings import Neighbours, Ratings
from recgym.user_models.preference.sides import Sides

Progress = Callable[[str, float], None]


class RatingModel(nn.Module):
    """The item encoder, the preference network and its rating head."""

    def __init__(self, config: ModelConfig, sides: Sides) -> None:
        super().__init__()
        self.config = config
        self.encoder = ItemEncoder(
            config.network, config.graph, len(sides.text), sides.text.shape[1], sides.items.shape[1]
        )
        self.network = PreferenceNetwork(config.network, sides.users.shape[1])
        self.rating = RatingHead(config.rating, config.network, sides.users.shape[1])
        with torch.no_grad():  # cut points half-way between the ratings
            self.network.rating_cuts.copy_(torch.tensor([-3.0, *[math.log(math.expm1(2.0))] * 3]))

    def forward(self, sides: Sides, seen: Ratings, user: Tensor, item: Tensor, time: Tensor) -> Tensor:
        """P(rating <= 1..4) [Q, 4] of users [Q] for items [Q] at times [Q], given the ratings seen."""
        share = self.config.rating.input_dropout

        def noisy(values: Tensor) -> Tensor:
            return F.dropout(values, share, self.training)

        hidden = torch.bincount(seen.item, minlength=seen.num_items) == 0  # new items have text alone
        if self.training:
            hidden |= torch.rand(seen.num_items) < self.encoder.id_dropout
        vectors, _ = self.encoder(noisy(sides.text), noisy(sides.items), None, hidden)
        attributes = noisy(sides.users)
        tables = self.rating.tables(self.rating.dropout(vectors), attributes, seen)
        near = Neighbours.of(seen, user, time, self.config.rating.window)
        location = self.rating.location(self.network, tables, attributes, seen, user, item, near)
        return self.rating.chances(self.network, location)


def train(
    sides: Sides,
    ratings: Ratings,
    config: ModelConfig,
    seed: int,
    *,
    held_out: Ratings | None = None,
    epochs: int | None = None,
    progress: Progress | None = None,
) -> Fit[RatingModel]:
    """Trains one model on ``ratings``.

    At every step a share of the ratings is hidden from the graph, the offsets and the context, and predicted: what
    the model sees of a rating in training is what it sees of a new one.

    Args:
        sides: texts and attributes.
        ratings: all ratings that may be learned from.
        config: of the model.
        seed: of initial weights, dropout and what is hidden when.
        held_out: validation ratings; training stops early on their error and the best epoch's weights are kept.
        epochs: stop after that many epochs of the schedule of ``config.rating.epochs``.
        progress: called with what is under way and the share done.

    Raises:
        DivergedError: the loss is not finite.
    """
    rating, count = config.rating, len(ratings)
    with luck_of(seed):
        model = RatingModel(config, sides)
        quick = model.rating.quick()
        rest = [p for p in model.parameters() if all(p is not q for q in quick)]
        groups = [{"params": rest, "pace": 1.0}, {"params": quick, "pace": rating.quick_pace, "weight_decay": 0.0}]
        optimizer = torch.optim.AdamW(groups, lr=rating.learning_rate, weight_decay=rating.weight_decay)
        steps = max(1, round(1 / rating.hidden_share))

        def learn(epoch: int) -> Row:
            losses = []
            for group in optimizer.param_groups:
                group["lr"] = rating.learning_rate * group["pace"] * pace(epoch, rating.epochs)
            model.train()
            for number, rows in enumerate(torch.randperm(count).chunk(steps)):
                keep = torch.ones(count, dtype=torch.bool)
                keep[rows] = False
                cdf = model(sides, ratings.select(keep), ratings.user[rows], ratings.item[rows], ratings.time[rows])
                real = ratings.value[rows]
                error = F.mse_loss(expected_rating(cdf), real)
                descend(
                    error + rating.likelihood * ordinal_loss(cdf, real),
                    model,
                    optimizer,
                    rating.clip_norm,
                    functools.partial(unsaved, epoch, number),
                )
                losses.append(float(error.detach()))
            return {"train_rmse": float(np.sqrt(np.mean(losses)))}

        def validate(held: Ratings) -> tuple[float, Row]:
            error = rmse(predict(model, sides, ratings, held.user, held.item, held.time), held)
            return error, {"rmse": error}

        return fit(
            model,
            min(epochs or rating.epochs, rating.epochs),
            rating.patience,
            learn,
            None if held_out is None else lambda: validate(held_out),
            None if progress is None else lambda done: progress(f"seed {seed}", done / rating.epochs),
        )


@torch.no_grad()
def predict(model: RatingModel, sides: Sides, seen: Ratings, user: Tensor, item: Tensor, time: Tensor) -> Tensor:
    """P(rating <= 1..4) [Q, 4] given all ratings ``seen``, dropout off."""
    model.eval()
    return torch.cat(
        [
            model(sides, seen, user[low : low + 20_000], item[low : low + 20_000], time[low : low + 20_000])
            for low in range(0, len(user), 20_000)
        ]
    )


def rmse(cdf: Tensor, real: Ratings) -> float:
    """Root mean squared error of the expected rating."""
    return float((expected_rating(cdf) - real.value).square().mean().sqrt())


@dataclass(frozen=True, eq=False)
class Ensemble:
    """Models alike but for their seed, trained on all ratings, and calibrated as their like was on held-out ones."""

    members: list[RatingModel]
    seen: Ratings
    epochs: int  # chosen on validation
    validation_rmse: float  # of the one model that chose them
    history: list[dict[str, float]]
    calibration: OrdinalCalibration

    def predict(self, sides: Sides, user: Tensor, item: Tensor, time: Tensor) -> Tensor:
        """P(rating <= 1..4) [Q, 4]: the mean over the calibrated members."""
        told = [self.calibration(predict(m, sides, self.seen, user, item, time)) for m in self.members]
        return torch.stack(told).mean(0)


def train_ensemble(
    sides: Sides, ratings: Ratings, config: ModelConfig, seed: int, progress: Progress | None = None
) -> Ensemble:
    """Chooses the number of epochs on a part carved out of ``ratings`` at random, then trains the members on all of it.

    What is fitted to that part besides is a calibration of the chances: members are alike and take them over.

    Raises:
        RecGymError: too few ratings to carve a validation part from. DivergedError: see ``train``.
    """
    share = config.rating.validation_share
    held = np.zeros(len(ratings), bool)
    held[np.random.default_rng([seed, 0]).permutation(len(ratings))[: round(share * len(ratings))]] = True
    if not held.any() or held.all():
        raise RecGymError(f"{len(ratings)} ratings are too few to carve a validation share of {share:g} from")
    mask = torch.from_numpy(held)
    known, carved = ratings.select(~mask), ratings.select(mask)
    chosen = train(sides, known, config, seed, held_out=carved, progress=progress)
    told = predict(chosen.model, sides, known, carved.user, carved.item, carved.time)
    calibration = OrdinalCalibration.fit(told, carved.value)
    members = [
        train(sides, ratings, config, seed + number, epochs=chosen.epochs, progress=progress).model
        for number in range(1, config.rating.members + 1)
    ]
    best = min(row["rmse"] for row in chosen.history)
    return Ensemble(members, ratings, chosen.epochs, best, chosen.history, calibration)
