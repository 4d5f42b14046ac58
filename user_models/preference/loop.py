"""What the trainings that keep their best epoch share: the loop over epochs, a step, the pace, early stopping."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from recgym.errors import RecGymError

Model = TypeVar("Model", bound=nn.Module)
Row = dict[str, float]
Progress = Callable[[float], None]
WARM_UP = 3  # epochs or steps


class DivergedError(RecGymError):
    """Training met a loss or a gradient that is not finite."""


@dataclass(frozen=True, eq=False)
class Fit(Generic[Model]):
    """A trained model and how it came about."""

    model: Model
    epochs: int  # epochs that its weights were trained for
    history: list[Row]  # an epoch a row


@contextmanager
def luck_of(seed: int) -> Iterator[None]:
    """Torch draws by ``seed`` meanwhile; its generator is then as it was.

    Raises:
        RecGymError: the seed is negative; it may be as large as you like.
    """
    if seed < 0:
        raise RecGymError(f"a seed is a whole number from 0 up, got {seed}")
    with torch.random.fork_rng():
        torch.manual_seed(seed if seed < 2**64 else int(np.random.SeedSequence(seed).generate_state(1)[0]))
        yield


def pace(epoch: int, epochs: int, warm_up: int = WARM_UP) -> float:
    """Factor on the learning rate: a short warm-up, and a cosine that would reach zero after ``epochs``."""
    return min(1.0, (epoch + 1) / warm_up) * 0.5 * (1 + math.cos(math.pi * epoch / epochs))


class BestEpoch:
    """The weights of the epoch with the lowest error on validation."""

    def __init__(self, patience: int) -> None:
        self.patience = patience
        self.error, self.epoch = math.inf, -1
        self._weights: dict[str, Any] = {}

    def enough(self, epoch: int, error: float, model: nn.Module) -> bool:
        """Takes note of an epoch; True once ``patience`` epochs have brought nothing better."""
        if error < self.error:
            self.error, self.epoch, self._weights = error, epoch, copy.deepcopy(model.state_dict())
        return epoch - self.epoch >= self.patience

    def restore(self, model: nn.Module) -> None:
        """Puts the best epoch's weights back."""
        model.load_state_dict(self._weights)


def fit(
    model: Model,
    epochs: int,
    patience: int,
    learn: Callable[[int], Row],
    validate: Callable[[], tuple[float, Row]] | None,
    progress: Progress | None,
) -> Fit[Model]:
    """Trains ``model`` for at most ``epochs`` epochs and, with validation, goes back to the best one.

    Args:
        model: changed in place.
        epochs: most epochs.
        patience: epochs without improvement on validation before stopping.
        learn: trains for the epoch of a number; what to remember of it.
        validate: the error on validation, and what to remember of it; None: all epochs are run, the last one kept.
        progress: called with the number of epochs done.
    """
    history: list[Row] = []
    best = BestEpoch(patience)
    for epoch in range(epochs):
        started = time.perf_counter()
        row: Row = {"epoch": epoch, **learn(epoch)}
        error = math.inf
        if validate is not None:
            error, measured = validate()
            row |= measured
        history.append({**row, "seconds": round(time.perf_counter() - started, 2)})
        if progress is not None:
            progress(epoch + 1)
        if validate is not None and best.enough(epoch, error, model):
            break
    if validate is None:
        return Fit(model, len(history), history)
    best.restore(model)
    return Fit(model, best.epoch + 1, history)


def unsaved(epoch: int, step: int) -> str:
    """Where a training that writes no checkpoint was, for ``descend`` to tell."""
    return f"epoch {epoch} step {step}; this training takes minutes and keeps no checkpoint. Lower the learning rate."


def descend(
    loss: Tensor,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    clip_norm: float,
    where: Callable[[], str],
    backward: Callable[[Tensor], None] = Tensor.backward,
) -> None:
    """A gradient step; ``backward`` leaves the gradients of a loss in the parameters.

    Raises:
        DivergedError: the loss or its gradient is not finite, before a weight has changed; ``where`` tells what the
            message says after it.
    """
    if not torch.isfinite(loss):
        raise DivergedError(f"loss {float(loss.detach())} at {where()}")
    optimizer.zero_grad(set_to_none=True)
    backward(loss)
    norm = nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
    if not torch.isfinite(norm):  # one such step would spoil all weights, and the checkpoint after it
        raise DivergedError(f"gradient of norm {float(norm)} at {where()}")
    optimizer.step()
