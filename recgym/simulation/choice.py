"""Examination: which items of a slate a user looks at, and what the trip so far has settled about them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from recgym import compiled
from recgym.compiled import choice as kernels
from recgym.scenario import Behaviour
from recgym.simulation.draws import Draws, draw
from recgym.simulation.kernels import repeats_earlier, sort_rows
from recgym.simulation.record import own_history
from recgym.simulation.state import Memory, State, used_entries
from recgym.types import Noise, Response, TensorRecord


@dataclass(frozen=True)
class Seen(TensorRecord):
    """What the trip so far has settled about items [B, C]."""

    refusals: Tensor  # [B, C] int16
    refused: Tensor  # [B, C] float32, 0 where never declined
    floor: Tensor  # [B, C] float32
    bought: Tensor  # [B, C] bool


def recall(memory: Memory, used: Tensor, items: Tensor) -> Seen:
    """Looks ``items`` (int64 [B, C]) up in the memory of the trip: the latest entry of an item tells all.

    Args:
        memory: of the trip so far.
        used: how many of its entries are written, int64 [B].
        items: item rows.
    """
    if compiled.runs_on(items):
        seen = Seen(
            refusals=torch.empty(items.shape, dtype=torch.int16),
            refused=torch.empty(items.shape),
            floor=torch.empty(items.shape),
            bought=torch.empty(items.shape, dtype=torch.bool),
        )
        kernels.recall(*_arrays(memory), used.numpy(), items.numpy(), *_arrays(seen))
        return seen
    slots = memory.items.shape[1]
    code = torch.uint8 if slots < 256 else torch.int16
    number = torch.arange(1, slots + 1, device=items.device, dtype=torch.int32).to(code)
    same = memory.items[:, None, :] == items.to(torch.int32)[:, :, None]  # [B, C, S]
    latest = (same.view(torch.uint8) * number).amax(dim=2).to(torch.int64)  # [B, C], 0: not shown yet
    slot, known = (latest - 1).clamp_(min=0), latest > 0
    return Seen(
        refusals=memory.refusals.gather(1, slot) * known,
        refused=memory.refused.gather(1, slot) * known,
        floor=memory.floor.gather(1, slot) * known,
        bought=memory.bought.gather(1, slot) & known,
    )


def shown_before(memory: Memory, items: Tensor) -> Tensor:
    """Whether ``items`` (int32 [B, C]) stood on an earlier slate of the trip, bool [B, C]."""
    shown = sort_rows(memory.items)  # [B, S]
    place = torch.searchsorted(shown, items).clamp_(max=shown.shape[1] - 1)
    return shown.gather(1, place) == items


@dataclass(frozen=True)
class Entries(TensorRecord):
    """What a slate adds to the memory of the trip."""

    slots: Tensor  # [B, K] int64, where to write
    items: Tensor  # [B, K] int32 item rows, -1 for duplicates
    seen: Seen  # what was known of the items before the slate
    examined: Tensor  # [B, K] bool
    consumed: Tensor  # [B, K] bool
    probability: Tensor  # [B, K] float32, the purchase probability that an examined item had


def remember(memory: Memory, entries: Entries) -> None:
    """Writes a slate into the memory, in place."""
    seen, slots = entries.seen, entries.slots
    declined = entries.examined & ~entries.consumed
    refused = torch.where(declined, torch.maximum(seen.refused, entries.probability), seen.refused)
    memory.items.scatter_(1, slots, entries.items)
    memory.refusals.scatter_(1, slots, seen.refusals + declined.to(torch.int16))
    memory.refused.scatter_(1, slots, refused)
    memory.floor.scatter_(1, slots, seen.floor)
    memory.bought.scatter_(1, slots, seen.bought | entries.consumed)


def _arrays(known: Memory | Seen) -> tuple[np.ndarray, ...]:
    values = known.refusals.numpy(), known.refused.numpy(), known.floor.numpy(), known.bought.numpy()
    return (known.items.numpy(), *values) if isinstance(known, Memory) else values


@dataclass(frozen=True)
class Encounter(TensorRecord):
    """All that is known when a slate meets its user; bool and float32 [B, K] but for ``leave``."""

    duplicate: Tensor  # bool, stands higher up on the slate already
    examined: Tensor  # bool; in a cascade, unless an item higher up is consumed
    seen: Seen
    noise: Noise
    own_counts: Tensor  # see ``Slate``
    own_days: Tensor
    leave: Tensor  # [B], the luck of staying


def position_weights(behaviour: Behaviour, slate_size: int) -> Tensor:
    """Chance that each position is looked at, what lies above it aside (cascade: nothing is consumed there), [K]."""
    decay = behaviour.examination.decay
    return torch.tensor([decay**place for place in range(slate_size)], dtype=torch.float32)


class Examination:
    """Position-dependent examination (Craswell et al., WSDM 2008), with fatigue for items declined before.

    ``position``: P(examine p) = decay ** p, each position by itself. ``cascade``: the user scans from the top, goes on
    after each item with chance ``decay`` and stops at the first item consumed. Either is multiplied by
    ``reexamination ** n`` for an item examined and declined n times on the trip. A duplicate and an item already in
    the basket are passed over.
    """

    def __init__(self, behaviour: Behaviour, slate_size: int, max_slates: int, device: torch.device) -> None:
        """Tabulates both factors, so that no power is computed while stepping."""
        self.cascade = behaviour.examination.model == "cascade"
        decay = position_weights(behaviour, slate_size)
        fatigue = torch.tensor([behaviour.reexamination**n for n in range(max_slates + 1)], dtype=torch.float32)
        self._decay, self._fatigue = decay.to(device), fatigue.to(device)

    def meet(self, state: State, slate: Tensor) -> Encounter:
        """How ``slate`` (item rows, int64 [B, K]) meets its users."""
        draws = draw(state.luck, state.visit, slate)
        seen = recall(state.memory, used_entries(state, slate.shape[1]), slate)
        duplicate = repeats_earlier(slate)
        own_counts, own_days = own_history(state.record, state.visit.day, slate)
        return Encounter(
            duplicate=duplicate,
            examined=self.examine(draws, duplicate, seen),
            seen=seen,
            noise=draws.noise(seen.floor),
            own_counts=own_counts,
            own_days=own_days,
            leave=draws.leave,
        )

    def tables(self) -> tuple[np.ndarray, np.ndarray, bool]:
        """Factors by position and by refusals, and whether it is a cascade: as kernels take them."""
        return self._decay.numpy(), self._fatigue.numpy(), self.cascade

    def examine(self, draws: Draws, duplicate: Tensor, seen: Seen) -> Tensor:
        """Which items the user looks at (in a cascade: unless an item higher up is consumed).

        Args:
            draws: the luck of the slate.
            duplicate: bool [B, K].
            seen: what the trip so far has settled.

        Returns:
            bool [B, K].
        """
        most = len(self._fatigue) - 1  # refused more often where a lane that ended is stepped on
        fatigue = self._fatigue[seen.refusals.to(torch.int64).clamp(max=most)]
        free = ~(duplicate | seen.bought)
        if not self.cascade:
            return (draws.examine < self._decay * fatigue) & free
        return (draws.scan[:, None] < self._decay) & (draws.examine < fatigue) & free

    def stop(self, examined: Tensor, response: Response) -> tuple[Tensor, Response]:
        """In a cascade, nothing below the first consumed item was examined: cuts both accordingly."""
        if not self.cascade:
            return examined, response
        consumed = response.consumed.to(torch.int32)
        above = consumed.cumsum(dim=1) - consumed > 0  # an item higher up was consumed
        cut = replace(
            response,
            consumed=response.consumed & ~above,
            quantity=response.quantity.masked_fill(above, 0),
            rating=response.rating.masked_fill(above, 0),
        )
        return examined & ~above, cut
