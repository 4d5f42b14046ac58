"""The state of the simulation: one record of tensors with the lane dimension B first, to copy, save and branch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recgym.types import Record, Response, TensorRecord, Visit


@dataclass(frozen=True)
class Memory(TensorRecord):
    """What was shown on the trip under way, slate after slate: S = slates a trip x K slots.

    Each entry holds what is known of its item up to and including that slate, so the latest entry tells all.
    """

    items: Tensor  # [B, S] int32 item rows; -1 in slots not used yet and for duplicates within a slate
    refusals: Tensor  # [B, S] int16, how often the item was examined and declined
    refused: Tensor  # [B, S] float32, highest purchase probability at which it was declined
    floor: Tensor  # [B, S] float32, the part of ``refused`` known before luck was redrawn by a branch
    bought: Tensor  # [B, S] bool

    @classmethod
    def blank(cls, size: int, slots: int, device: torch.device) -> Memory:
        """Of ``size`` lanes that were shown nothing yet; ``slots`` is S."""
        shape = (size, slots)
        return cls(
            items=torch.full(shape, -1, dtype=torch.int32, device=device),
            refusals=torch.zeros(shape, dtype=torch.int16, device=device),
            refused=torch.zeros(shape, device=device),
            floor=torch.zeros(shape, device=device),
            bought=torch.zeros(shape, dtype=torch.bool, device=device),
        )


@dataclass(frozen=True)
class Pool(TensorRecord):
    """The user's own items that candidates are drawn from, by frequency and recency; fixed during a trip."""

    items: Tensor  # [B, P] int32 item rows, -1 pads
    cost: Tensor  # [B, P] float32, the inverse of the draw weight, 1 at the heaviest; inf pads
    num_items: Tensor  # [B] int32, distinct items in the record


@dataclass(frozen=True)
class Known(TensorRecord):
    """What the platform has on file, where that is less than what users did."""

    record: Record
    num_items: Tensor  # [B] int32, distinct items in it
    gap_days: Tensor  # [B] int32, days since the last trip it knows of; 0 where it knows none


@dataclass(frozen=True)
class Mood(TensorRecord):
    """What recommendations did to wants and visits; fields are None where the scenario leaves a part out."""

    exposures: Tensor | None  # [B, T] float32, items looked at by topic, fading while away
    lately: Tensor | None  # [B, T] float32, shares of the topics in what was looked at lately
    waiting: Tensor | None  # [B, CAPACITY] int32 item rows put aside, -1 pads
    due: Tensor | None  # [B, CAPACITY] int32, trips on which they are bought
    spent: Tensor | None  # [B] float32 currency units of the promotion budget
    dearness: Tensor | None  # [B] float32 in [0, 1], the price image


@dataclass(frozen=True)
class State(TensorRecord):
    """B lanes. ``hidden`` is the user model's own record; nothing in it is ever observable."""

    seed: Tensor  # [B] int64, the identity of the lane
    episode: Tensor  # [B] int64, number of the episode in the lane's stream
    luck: Tensor  # [B] int64, the key of every draw of the episode
    user: Tensor  # [B] int64 user rows
    record: Record
    visit: Visit
    memory: Memory
    pool: Pool
    satisfaction: Tensor  # [B] float32 in [0, 1]
    steps: Tensor  # [B] int32, slates answered in the episode
    start_day: Tensor  # [B] int32
    shown_text: Tensor  # [B, 16] float32, sum of the text vectors of items shown on this trip
    shown_count: Tensor  # [B] int32
    consumed_text: Tensor  # [B, 16] float32, the same of items consumed
    last_hits: Tensor  # [B] float32, share of the last slate of this trip that was consumed
    candidates: Tensor  # [B, M] int32 item rows, drawn for the step to come
    hidden: Any  # a TensorRecord
    known: Known | None = None  # None: the platform knows the whole ``record``
    mood: Mood | None = None  # None: recommendations change nothing about wants

    @property
    def on_file(self) -> Known:
        """What the platform knows of users, and agents may see."""
        return self.known or Known(self.record, self.pool.num_items, self.visit.gap_days)


@dataclass(frozen=True)
class Outcome:
    """What came of one slate."""

    slate: Tensor  # [B, K] int64 item rows
    examined: Tensor  # [B, K] bool
    response: Response
    duplicate: Tensor  # [B, K] bool, also shown higher up on the slate
    reward: Tensor  # [B] float32
    terms: dict[str, Tensor]  # each [B] float32, unweighted
    terminated: Tensor  # [B] bool, the user left (in horizon episodes: for good)
    truncated: Tensor  # [B] bool, a limit of slates or days was reached
    trip_ended: Tensor  # [B] bool
    gap_days: Tensor  # [B] int32, days to the next trip where one ended in a horizon episode, else 0
    costs: dict[str, Tensor] = field(default_factory=dict)  # each [B] float32, by constrained term

    @classmethod
    def of_arrays(
        cls, arrays: dict[str, np.ndarray], terms: dict[str, np.ndarray], costs: dict[str, Tensor] | None = None
    ) -> Outcome:
        """The outcome that lives in ``arrays``, by the names of ``array``, ``terms`` and ``costs``."""
        given = {name: torch.from_numpy(array) for name, array in arrays.items()}
        response = Response(*(given.pop(name) for name in ("consumed", "quantity", "rating")))
        outcome = cls(
            response=response,
            terms={name: torch.from_numpy(t) for name, t in terms.items()},
            costs=costs or {},
            **given,
        )
        outcome.__dict__["_arrays"] = arrays
        return outcome

    def array(self, name: str) -> np.ndarray:
        """A field as numpy; without a copy where it lies on a CPU."""
        arrays: dict[str, np.ndarray] = self.__dict__.get("_arrays", {})
        found = arrays.get(name)
        return getattr(self, name).numpy(force=True) if found is None else found

    @property
    def consumed(self) -> Tensor:
        """Which items were bought or watched, bool [B, K]."""
        return self.response.consumed

    @property
    def quantity(self) -> Tensor:
        """Units bought, int32 [B, K]."""
        return self.response.quantity

    @property
    def rating(self) -> Tensor:
        """Ratings 1 to 5, 0 where none, int32 [B, K]."""
        return self.response.rating


def used_entries(state: State, slate_size: int) -> Tensor:
    """How many entries of its memory each lane has written, int64 [B]."""
    return (state.visit.step.to(torch.int64) * slate_size).clamp_(max=state.memory.items.shape[1])
