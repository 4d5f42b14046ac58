"""Records that pass between the core, user models and environments; every tensor leads with the lane dimension B."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

from recgym import compiled


class TensorRecord:
    """Lane-wise operations shared by every dataclass whose fields are tensors or further records.

    Every tensor field has the lane dimension first; None fields are carried along.
    """

    def map(self, function: Any, *others: Any) -> Self:
        """A record with ``function`` applied field by field, to this record's tensors and those of ``others``."""
        values: dict[str, Any] = {}
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            mine = getattr(self, field.name)
            theirs = [getattr(other, field.name) for other in others]
            if isinstance(mine, TensorRecord):
                values[field.name] = mine.map(function, *theirs)
            elif mine is None:
                values[field.name] = None
            else:
                values[field.name] = function(mine, *theirs)
        return type(self)(**values)

    def clone(self) -> Self:
        """A copy that shares no storage."""
        return self.map(torch.clone)

    def select(self, lanes: Tensor) -> Self:
        """The rows ``lanes`` (int64 [n] or bool [B]) as a new record."""
        if lanes.dtype == torch.bool:
            lanes = lanes.nonzero().squeeze(1)
        return self.map(lambda tensor: tensor.index_select(0, lanes))

    def write(self, lanes: Tensor, rows: Self) -> None:
        """Overwrites, in place, the rows ``lanes`` (int64 [n]) with the n rows of ``rows``."""

        def put(mine: Tensor, theirs: Tensor) -> Tensor:
            theirs = theirs.to(mine.dtype)
            if compiled.runs_on(mine):  # numpy copies whole rows, torch element by element
                bits = torch.int16 if mine.dtype == torch.bfloat16 else mine.dtype
                mine.view(bits).numpy()[lanes.numpy()] = theirs.view(bits).numpy()
            else:
                mine[lanes] = theirs
            return mine

        self.map(put, rows)

    def assign(self, other: Self) -> None:
        """Overwrites every tensor, in place, with those of ``other``."""

        def put(mine: Tensor, theirs: Tensor) -> Tensor:
            return mine if mine.data_ptr() == theirs.data_ptr() else mine.copy_(theirs)

        self.map(put, other)

    def flatten(self, prefix: str = "") -> dict[str, Tensor]:
        """The tensors by dotted name, ready for safetensors."""
        out: dict[str, Tensor] = {}
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            if isinstance(value, TensorRecord):
                out.update(value.flatten(f"{prefix}{field.name}."))
            elif value is not None:
                out[f"{prefix}{field.name}"] = value
        return out

    def unflatten(self, tensors: dict[str, Tensor], prefix: str = "") -> Self:
        """A record of this one's structure with the tensors of ``tensors`` (the inverse of ``flatten``)."""
        values: dict[str, Any] = {}
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            mine = getattr(self, field.name)
            if isinstance(mine, TensorRecord):
                values[field.name] = mine.unflatten(tensors, f"{prefix}{field.name}.")
            else:
                values[field.name] = None if mine is None else tensors[f"{prefix}{field.name}"]
        return type(self)(**values)


@dataclass(frozen=True)
class Record(TensorRecord):
    """What the platform has on file about each user: observable, and what the repeat term reads.

    The table holds at most R items, sorted by item row (padded with the largest value); the oldest purchase is dropped.
    """

    items: Tensor  # [B, R] int32, item rows ascending, padded with 2**31 - 1
    counts: Tensor  # [B, R] int16, trips in which the item was bought
    last_days: Tensor  # [B, R] int16, day of the last purchase (days since the log's first day)
    num_trips: Tensor  # [B] int32
    mean_log_size: Tensor  # [B] float32, exponential mean (0.1) of log(basket size)
    mean_log_gap: Tensor  # [B] float32, exponential mean (0.1) of log(1 + gap in days)
    recent: Tensor  # [B, 50] int32, most recently bought item rows, newest first, padded with -1


@dataclass(frozen=True)
class Visit(TensorRecord):
    """Where a user stands in time: the calendar and the trip under way."""

    day: Tensor  # [B] int32, days since the log's first day
    gap_days: Tensor  # [B] int32, days between the previous trip and this one (0 allowed)
    trip: Tensor  # [B] int32, number of the trip in this episode, from 0
    step: Tensor  # [B] int32, slates answered so far on this trip
    bought: Tensor  # [B] int32, distinct items bought so far on this trip
    intended: Tensor  # [B] int32, intended basket size of this trip


@dataclass(frozen=True)
class Slate(TensorRecord):
    """A slate as the user meets it: the items, and what the core knows about user and item."""

    items: Tensor  # [B, K] int64 item rows
    examined: Tensor  # [B, K] bool; False also for duplicates
    lift: Tensor  # [B, K] float32, added to the purchase logit of an examined item (assumed effect of exposure)
    own_counts: Tensor  # [B, K] float32, trips before this one in which the user bought the item
    own_days: Tensor  # [B, K] float32, days since the user last bought it (0 where own_counts is 0)
    active: Tensor  # [B] bool; what becomes of the other lanes is never used, so a user model may skip them


@dataclass(frozen=True)
class Noise(TensorRecord):
    """Uniform draws in (0, 1) that decide a response; keyed by item, so independent of position."""

    want: Tensor  # [B, K] float32; one value per (episode, trip, item)
    quantity: Tensor  # [B, K] float32
    rating: Tensor  # [B, K] float32


@dataclass(frozen=True)
class Response(TensorRecord):
    """How users answered a slate."""

    consumed: Tensor  # [B, K] bool: bought (ecommerce) or watched (movies)
    quantity: Tensor  # [B, K] int32, units bought; 0 where not consumed
    rating: Tensor  # [B, K] int32, 1 to 5; 0 where not rated


@dataclass(frozen=True)
class Appraisal(TensorRecord):
    """The true response model's view of items: privileged, for the core, oracles and validation only."""

    logit: Tensor  # [B, C] float32, logit of q: the unaided chance of the item being consumed on this trip
    quantity_stop: Tensor | None  # [B, C] float32, geometric parameter: P(quantity = n) = stop (1 - stop)^(n - 1)
    rating_cdf: Tensor | None  # [B, C, 4] float32, P(rating <= 1..4 | consumed)
