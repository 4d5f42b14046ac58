"""Action modes: what an agent's decision looks like, and the slate of item rows that it means."""

from __future__ import annotations

from typing import Any, Protocol

import gymnasium
import numpy as np
import torch
from torch import Tensor

from recgym.errors import ActionError, unknown_name
from recgym.simulation.kernels import repeats_earlier
from recgym.simulation.simulator import Simulator
from recgym.simulation.state import State


class ActionMode(Protocol):
    """One way of deciding on slates; B lanes, M candidates, K slots."""

    def space(self) -> gymnasium.Space:
        """The action space of one lane."""
        ...

    def slates(self, actions: Any, state: State, active: Tensor | None) -> Tensor:
        """The item rows int64 [B, K] that ``actions`` (numpy or torch, lane dimension first) mean.

        ``active`` bool [B] tells the lanes that will act; what the others say is ignored. None: all act.

        Raises:
            ActionError: wrong shape or type, or a value out of range in an acting lane; names the lane and the value.
        """
        ...


class _Positions:
    """Whole numbers, one a slot: shared by the modes that choose instead of scoring."""

    def __init__(self, simulator: Simulator, stop: int, what: str, strict: bool, shape: tuple[int, ...]) -> None:
        self._simulator, self._stop, self._what, self._strict, self._shape = simulator, stop, what, strict, shape

    def _read(self, actions: Any, active: Tensor | None, lanes: int) -> Tensor:
        """Checked actions, int64 [B, K]."""
        tensor = _tensor(actions, self._simulator.device, (lanes, *self._shape), integer=True)
        tensor = tensor.reshape(lanes, -1)
        if active is not None:  # any valid and distinct choice will do where it is ignored
            tensor = torch.where(active[:, None], tensor, torch.arange(tensor.shape[1], device=tensor.device))
        lowest, highest = torch.aminmax(tensor)
        if lowest.item() < 0 or highest.item() >= self._stop:
            wrong = (tensor < 0) | (tensor >= self._stop)
            lane, slot = (int(i) for i in wrong.nonzero()[0])
            raise ActionError(
                f"lane {lane}: {self._what} {int(tensor[lane, slot])} at position {slot} must lie in "
                f"0..{self._stop - 1}"
            )
        if self._strict:
            double = repeats_earlier(tensor)
            if double.any():
                lane, slot = (int(i) for i in double.nonzero()[0])
                raise ActionError(
                    f"lane {lane}: {self._what} {int(tensor[lane, slot])} at position {slot} is already on the slate "
                    "(strict=True refuses duplicates)"
                )
        return tensor


class SlateMode(_Positions):
    """``slate``: MultiDiscrete([M] * K), positions among the candidates, the top of the slate first."""

    def __init__(self, simulator: Simulator, strict: bool) -> None:
        """Reads K and M off ``simulator``."""
        super().__init__(simulator, simulator.num_candidates, "candidate", strict, (simulator.slate_size,))

    def space(self) -> gymnasium.Space:
        """See ``ActionMode.space``."""
        return gymnasium.spaces.MultiDiscrete([self._simulator.num_candidates] * self._simulator.slate_size)

    def slates(self, actions: Any, state: State, active: Tensor | None) -> Tensor:
        """See ``ActionMode.slates``."""
        return _chosen(state.candidates, self._read(actions, active, len(state.seed)))


class CatalogueMode(_Positions):
    """``catalogue``: MultiDiscrete([N] * K), item rows of the whole catalogue."""

    def __init__(self, simulator: Simulator, strict: bool) -> None:
        """Reads K and N off ``simulator``."""
        super().__init__(simulator, simulator.world.num_items, "item row", strict, (simulator.slate_size,))

    def space(self) -> gymnasium.Space:
        """See ``ActionMode.space``."""
        return gymnasium.spaces.MultiDiscrete([self._simulator.world.num_items] * self._simulator.slate_size)

    def slates(self, actions: Any, state: State, active: Tensor | None) -> Tensor:
        """See ``ActionMode.slates``."""
        return self._read(actions, active, len(state.seed))


class ItemMode(_Positions):
    """``item``: Discrete(M), a slate of one candidate."""

    def __init__(self, simulator: Simulator, strict: bool) -> None:
        """Reads M off ``simulator``, whose slates must hold one item."""
        super().__init__(simulator, simulator.num_candidates, "candidate", strict, ())

    def space(self) -> gymnasium.Space:
        """See ``ActionMode.space``."""
        return gymnasium.spaces.Discrete(self._simulator.num_candidates)

    def slates(self, actions: Any, state: State, active: Tensor | None) -> Tensor:
        """See ``ActionMode.slates``."""
        return _chosen(state.candidates, self._read(actions, active, len(state.seed)))


class ScoresMode:
    """``scores``: Box(-1, 1, M), a score for every candidate; the K best are shown, the best first.

    Only the order matters, so finite scores beyond the box are taken as they are. Ties go to the earlier candidate.
    """

    def __init__(self, simulator: Simulator, strict: bool) -> None:
        """Reads K and M off ``simulator``; scores cannot name an item twice, so ``strict`` changes nothing."""
        self._simulator = simulator

    def space(self) -> gymnasium.Space:
        """See ``ActionMode.space``."""
        return gymnasium.spaces.Box(-1.0, 1.0, (self._simulator.num_candidates,), np.float32)

    def slates(self, actions: Any, state: State, active: Tensor | None) -> Tensor:
        """See ``ActionMode.slates``."""
        shape = (len(state.seed), self._simulator.num_candidates)
        scores = _tensor(actions, self._simulator.device, shape, integer=False)
        if active is not None:
            scores = torch.where(active[:, None], scores, 0.0)
        wrong = ~scores.isfinite()
        if wrong.any():
            lane, slot = (int(i) for i in wrong.nonzero()[0])
            raise ActionError(f"lane {lane}: the score of candidate {slot} is {float(scores[lane, slot])}, not finite")
        best = scores.sort(dim=1, descending=True, stable=True).indices[:, : self._simulator.slate_size]
        return state.candidates.gather(1, best).to(torch.int64)


ACTION_MODES: dict[str, type[SlateMode] | type[CatalogueMode] | type[ItemMode] | type[ScoresMode]] = {
    "slate": SlateMode,
    "catalogue": CatalogueMode,
    "item": ItemMode,
    "scores": ScoresMode,
}


def action_mode(name: str, simulator: Simulator, strict: bool) -> ActionMode:
    """The action mode called ``name``.

    Raises:
        UnknownNameError: no such mode; the message gives the nearest one.
    """
    if name not in ACTION_MODES:
        raise unknown_name("action mode", name, ACTION_MODES)
    return ACTION_MODES[name](simulator, strict)


def _chosen(candidates: Tensor, positions: Tensor) -> Tensor:
    """Item rows int64 [B, K] at ``positions`` (int64 [B, K]) among candidates int32 [B, M]."""
    return candidates.gather(1, positions).to(torch.int64)


_WHOLE = {torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.uint16, torch.uint32, torch.uint64}


def _tensor(actions: Any, device: torch.device, shape: tuple[int, ...], *, integer: bool) -> Tensor:
    """``actions`` as an int64 or float32 tensor on ``device``, after checking type and shape."""
    if isinstance(actions, Tensor):
        tensor = actions.detach()
        if tensor.device.type != device.type:
            raise ActionError(f"the environment runs on {device}, the action is on {tensor.device}")
    else:
        array = np.asarray(actions)
        if array.dtype.kind not in "iuf":
            raise ActionError(f"an action holds numbers, got {array.dtype} ({_short(actions)})")
        tensor = torch.from_numpy(np.ascontiguousarray(array))
        tensor = tensor if device.type == "cpu" else tensor.to(device)
    whole = tensor.dtype in _WHOLE
    if integer and not whole:
        raise ActionError(f"an action of this mode holds whole numbers (int64), got {tensor.dtype}")
    if not integer and not tensor.is_floating_point():
        raise ActionError(f"an action of this mode holds scores (float32), got {tensor.dtype}")
    if tuple(tensor.shape) != shape:
        raise ActionError(
            f"an action of this mode has shape {shape} (lanes first, {shape[0]} here), got {tuple(tensor.shape)}"
        )
    return tensor.to(torch.int64 if integer else torch.float32)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
