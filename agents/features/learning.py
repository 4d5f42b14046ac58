"""Fitting a scoring model to targets, with the best epoch on held-out examples kept."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from recgym.agents.features.inputs import Batch, ScoringModel
from recgym.agents.features.measures import auc
from recgym.user_models.preference.loop import Fit, Row, descend, fit, pace

Loss = Literal["squared", "logistic"]


@dataclass(frozen=True, eq=False)
class Examples:
    """Inputs with the scores that they should get."""

    batch: Batch
    target: Tensor  # [B, M] float32
    counts: Tensor  # [B, M] bool: the target is known

    def __len__(self) -> int:
        return len(self.batch)

    def select(self, rows: Tensor) -> Self:
        """The examples of the users at ``rows``."""
        return type(self)(self.batch.select(rows), self.target[rows], self.counts[rows])

    def known(self, scores: Tensor) -> tuple[Tensor, Tensor]:
        """Scores and targets [n] where the target is known."""
        return scores[self.counts], self.target[self.counts]


@dataclass(frozen=True)
class Schedule:
    """How long and how fast."""

    epochs: int
    patience: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    id_dropout: float  # share of users and items that are unknown at a step


def mean_loss(scores: Tensor, target: Tensor, loss: Loss) -> Tensor:
    """The mean over [n]: squared errors, or -log P(target) where the score is a logit."""
    return F.mse_loss(scores, target) if loss == "squared" else F.binary_cross_entropy_with_logits(scores, target)


def learn(
    model: ScoringModel,
    examples: Examples,
    held_out: Examples | None,
    loss: Loss,
    schedule: Schedule,
    generator: torch.Generator,
    epochs: int | None = None,
) -> Fit[ScoringModel]:
    """Fits ``model`` in place; its inputs are normalised by those of ``examples``.

    Args:
        model: with its initial weights.
        examples: what is learned from.
        held_out: decides which epoch's weights are kept; None: the last one's.
        loss: ``squared``, or ``logistic`` for targets from 0 to 1.
        schedule: of the optimiser, AdamW.
        generator: of the order of the examples and of the ids dropped.
        epochs: stop after that many epochs of the schedule.

    Raises:
        DivergedError: the loss is not finite.
    """
    rows = examples.counts.any(1).nonzero().squeeze(1)
    mean = examples.target[examples.counts].mean()
    model.calibrate(examples.batch, float(mean if loss == "squared" else mean.clamp(1e-4, 1 - 1e-4).logit()))
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=schedule.learning_rate, weight_decay=schedule.weight_decay, eps=1e-6
    )

    def step(epoch: int) -> Row:
        losses = []
        for group in optimizer.param_groups:
            group["lr"] = schedule.learning_rate * pace(epoch, schedule.epochs)
        for chosen in rows[torch.randperm(len(rows), generator=generator)].split(schedule.batch_size):
            part = examples.select(chosen)
            scores, target = part.known(model(part.batch.without_ids(schedule.id_dropout, generator)))
            value = mean_loss(scores, target, loss)
            descend(value, model, optimizer, 1.0, lambda: f"epoch {epoch}; lower the learning rate")
            losses.append(float(value.detach()))
        return {"train_loss": sum(losses) / len(losses)}

    def validate(held: Examples) -> tuple[float, Row]:
        error = float(mean_loss(*held.known(predict(model, held.batch)), loss))
        return error, {"loss": error}

    return fit(
        model,
        min(epochs or schedule.epochs, schedule.epochs),
        schedule.patience,
        step,
        None if held_out is None else lambda: validate(held_out),
        None,
    )


@torch.no_grad()
def predict(model: ScoringModel, batch: Batch, size: int = 2048) -> Tensor:
    """Scores [B, M]."""
    return torch.cat([model(batch.select(rows)) for rows in torch.arange(len(batch)).split(size)])


def importance(
    model: ScoringModel, examples: Examples, names: dict[str, list[str]], generator: torch.Generator
) -> dict[str, float]:
    """How much AUC is lost when one column is shuffled, by column, the largest loss first (Breiman, 2001).

    Args:
        model: fitted.
        examples: held out, with targets 0 and 1.
        names: of the columns of ``user``, ``item`` and ``context``.
        generator: of the shuffling.
    """

    def measure(batch: Batch) -> float:
        scores, target = examples.known(predict(model, batch))
        return auc(scores, target > 0.5)

    whole, lost = measure(examples.batch), {}
    for source, columns in names.items():
        values: Tensor = getattr(examples.batch, source)
        for number, name in enumerate(columns):
            column = values[..., number].reshape(-1)
            shuffled = values.clone()
            shuffled[..., number] = column[torch.randperm(len(column), generator=generator)].view(values.shape[:-1])
            lost[name] = whole - measure(replace(examples.batch, **{source: shuffled}))
    return dict(sorted(lost.items(), key=lambda entry: -entry[1]))
