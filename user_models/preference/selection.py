"""What the trainings that keep their best epoch share: the pace of learning, early stopping, and what they return."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from torch import nn

Model = TypeVar("Model", bound=nn.Module)
WARM_UP = 3  # epochs


@dataclass(frozen=True, eq=False)
class Fit(Generic[Model]):
    """A trained model and how it came about."""

    model: Model
    epochs: int  # epochs that its weights were trained for
    history: list[dict[str, float]]  # an epoch a row


def pace(epoch: int, epochs: int) -> float:
    """Factor on the learning rate: a short warm-up, then a cosine that would reach zero after ``epochs``."""
    return min(1.0, (epoch + 1) / WARM_UP) * 0.5 * (1 + math.cos(math.pi * epoch / epochs))


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
