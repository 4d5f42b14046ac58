"""Action modes: what an agent's decision looks like, and the slate of item rows that it means."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Protocol

import gymnasium
import numpy as np
import torch
from torch import Tensor

from recgym.envs.arrays import array_of, short
from recgym.errors import ActionError, unknown_name
from recgym.simulation.kernels import repeats_earlier
from recgym.simulation.observation import candidate_features
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


class _Ranking(ABC):
    """Finite numbers that rank the candidates, of which the K best are shown, the best first.

    Shared by the modes that score instead of choosing. No item can be named twice, so ``strict`` changes nothing.
    Numbers beyond the box are taken as they are. Ties go to the earlier candidate.
    """

    def __init__(self, simulator: Simulator, width: int, what: str) -> None:
        self._simulator, self._width, self._what = simulator, width, what

    def space(self) -> gymnasium.Space:
        """See ``ActionMode.space``."""
        return gymnasium.spaces.Box(-1.0, 1.0, (self._width,), np.float32)

    def slates(self, actions: Any, state: State, active: Tensor | None) -> Tensor:
        """See ``ActionMode.slates``."""
        shape = (len(state.seed), self._width)
        numbers = _tensor(actions, self._simulator.device, shape, integer=False)
        if active is not None:
            numbers = torch.where(active[:, None], numbers, 0.0)
        wrong = ~numbers.isfinite()
        if wrong.any():
            lane, place = (int(i) for i in wrong.nonzero()[0])
            raise ActionError(
                f"lane {lane}: the {self._what} {self._name(place)} is {float(numbers[lane, place])}, not finite"
            )
        scores = self._scores(numbers, state)
        best = scores.sort(dim=1, descending=True, stable=True).indices[:, : self._simulator.slate_size]
        return state.candidates.gather(1, best).to(torch.int64)

    @abstractmethod
    def _scores(self, numbers: Tensor, state: State) -> Tensor:
        """Scores [B, M] of the candidates by ``numbers`` [B, width]."""

    def _name(self, place: int) -> str:
        """What the number at ``place`` of an action is about."""
        return candidate_features(self._simulator.world)[place]

    def _features(self, state: State) -> Tensor:
        """The observable features [B, M, F] of the candidates."""
        return self._simulator.observe(state, ("candidates",))["candidates"]


class ScoresMode(_Ranking):
    """``scores``: Box(-1, 1, M), a score for every candidate."""

    def __init__(self, simulator: Simulator, strict: bool) -> None:
        """Reads K and M off ``simulator``."""
        super().__init__(simulator, simulator.num_candidates, "score of candidate")

    def _scores(self, numbers: Tensor, state: State) -> Tensor:
        return numbers

    def _name(self, place: int) -> str:
        return str(place)


class WeightsMode(_Ranking):
    """``weights``: Box(-1, 1, F), a weight for every feature of ``candidates``: the linear re-ranker."""

    def __init__(self, simulator: Simulator, strict: bool) -> None:
        """Reads K and F off ``simulator``."""
        super().__init__(simulator, simulator.observer.entries["candidates"].shape[1], "weight of feature")

    def _scores(self, numbers: Tensor, state: State) -> Tensor:
        return linear_scores(numbers, self._features(state))


class ProtoMode(_Ranking):
    """``proto``: Box(-1, 1, F), the features of an ideal item; the candidates nearest to it are shown.

    Nearest by Euclidean distance in all the F observable features of ``candidates``: text, popularity, price and
    category, and also the user's own count and recency and what this trip has shown. In the text alone, no agent could
    ask for what this user buys again.
    """

    def __init__(self, simulator: Simulator, strict: bool) -> None:
        """Reads K and F off ``simulator``."""
        super().__init__(simulator, simulator.observer.entries["candidates"].shape[1], "proto-item's feature")

    def _scores(self, numbers: Tensor, state: State) -> Tensor:
        return -squared_distances(numbers, self._features(state))


def linear_scores(weights: Tensor, features: Tensor) -> Tensor:
    """The weighted sums [B, M] of features [B, M, F] by weights [B, F].

    Multiplied and summed: a matrix product would round differently with the number of lanes.
    """
    return (features * weights[:, None, :]).sum(-1)


def squared_distances(proto: Tensor, features: Tensor) -> Tensor:
    """Squared Euclidean distances [B, M] of features [B, M, F] to proto [B, F], each lane's as if it were alone."""
    difference = features - proto[:, None, :]
    return (difference * difference).sum(-1)


ACTION_MODES: dict[str, Callable[[Simulator, bool], ActionMode]] = {
    "slate": SlateMode,
    "catalogue": CatalogueMode,
    "item": ItemMode,
    "scores": ScoresMode,
    "weights": WeightsMode,
    "proto": ProtoMode,
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
        array = array_of(actions, "an action", ActionError)
        if array.dtype.kind not in "iuf":
            raise ActionError(f"an action holds numbers, got {array.dtype} ({short(actions)})")
        tensor = torch.from_numpy(np.ascontiguousarray(array))
        tensor = tensor if device.type == "cpu" else tensor.to(device)
    whole = tensor.dtype in _WHOLE
    if integer and not whole:
        raise ActionError(f"an action of this mode holds whole numbers (int64), got {tensor.dtype}")
    if not integer and not tensor.is_floating_point():
        raise ActionError(f"an action of this mode holds fractions (float32), got {tensor.dtype}")
    if tuple(tensor.shape) != shape:
        raise ActionError(
            f"an action of this mode has shape {shape} (lanes first, {shape[0]} here), got {tuple(tensor.shape)}"
        )
    return tensor.to(torch.int64 if integer else torch.float32)
