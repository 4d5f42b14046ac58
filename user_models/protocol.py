"""The protocol of a user model: batched, pure, with hidden state kept apart from what is observable.

``UserModel`` is all that is needed. A model that can also step in place, in the memory that the core gives it, adds
``bind`` (``BindingUserModel``) and is then driven without any tensor being made.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from recgym.types import Appraisal, Noise, Record, Response, Slate, Visit


class UserModel(Protocol):
    """Simulated users. Every method works on all lanes at once; B lanes, K slate positions.

    The core owns the calendar (``Visit``), the purchase record (``Record``), examination, leaving and luck; a user
    model owns what users want. Its state is a ``TensorRecord`` of tensors with the lane dimension first, so the core
    can copy, save and branch it without knowing what is inside.
    """

    def init(self, users: Tensor, record: Record, visit: Visit) -> Any:
        """Hidden state of ``users`` (int64 [B] user rows) at the start of their first trip of the episode."""
        ...

    def appraise(self, state: Any, items: Tensor, own_counts: Tensor, own_days: Tensor, visit: Visit) -> Appraisal:
        """The true response model for ``items`` (int64 [B, C]); see ``Slate`` for own_counts and own_days."""
        ...

    def respond(self, state: Any, slate: Slate, visit: Visit, noise: Noise) -> tuple[Response, Tensor]:
        """The response, and the purchase probability float32 [B, K] each examined item had (lift included)."""
        ...

    def transition(self, state: Any, slate: Slate, response: Response, visit: Visit) -> Any:
        """State after the slate.

        May write into the storage of ``state`` where no method reads it, such as into the next entry of a cache: a step
        that fails later on is taken again from ``state``.
        """
        ...

    def intend(self, state: Any, uniforms: Tensor) -> Tensor:
        """Intended basket size int32 [B] of the trip that begins, from uniforms float32 [B]."""
        ...

    def away(self, state: Any, record: Record, uniforms: Tensor, hazard: Tensor) -> tuple[Tensor, Tensor]:
        """Days to the next trip int32 [B], and whether the user never returns bool [B].

        ``hazard`` float32 [B] multiplies the fitted hazard: survival S(t) becomes S(t) ** hazard.
        """
        ...

    def arrive(self, state: Any, record: Record, visit: Visit) -> Any:
        """State at the start of the next trip; ``record`` already holds the trip before, ``visit`` the new day."""
        ...


@dataclass(frozen=True)
class Exchange:
    """What the core and bound users tell each other, numpy; n lanes, K slots."""

    items: np.ndarray  # [n, K] int64
    examined: np.ndarray  # [n, K] bool
    lift: np.ndarray  # [n, K] float32
    own_counts: np.ndarray  # [n, K] float32
    own_days: np.ndarray  # [n, K] float32
    want: np.ndarray  # [n, K] float32, uniform draws
    quantity_luck: np.ndarray  # [n, K] float32
    rating_luck: np.ndarray  # [n, K] float32
    probability: np.ndarray  # [n, K] float32; this and what follows is the users' answer
    consumed: np.ndarray  # [n, K] bool
    quantity: np.ndarray  # [n, K] int32
    rating: np.ndarray  # [n, K] int32


class BoundUsers(Protocol):
    """Users bound to the memory of n lanes: their hidden state, owners, record and visit, and an ``Exchange``.

    Methods compute what those of ``UserModel`` do, in place, and must not fail. ``lanes`` int64 [m] names the lanes to
    work on; other arrays have one entry each for those. The core sees to everything in record and visit but
    ``Visit.intended``.
    """

    def init(self, lanes: np.ndarray) -> None:
        """``UserModel.init``."""
        ...

    def away(self, lanes: np.ndarray, luck: np.ndarray, hazard: np.ndarray, gap: np.ndarray, gone: np.ndarray) -> None:
        """``UserModel.away``: from ``luck`` and ``hazard`` float32 [m], writes ``gap`` int32 and ``gone`` bool."""
        ...

    def arrive(self, lanes: np.ndarray, luck: np.ndarray) -> None:
        """``UserModel.arrive``, then ``UserModel.intend`` from ``luck`` float32 [m], into ``Visit.intended``."""
        ...

    def answer(self) -> None:
        """``UserModel.respond`` of all lanes: writes the answer and nothing else."""
        ...

    def move(self, lanes: np.ndarray) -> None:
        """``UserModel.transition``; the visit counts the slate already."""
        ...


class BindingUserModel(UserModel, Protocol):
    """A user model that can be bound to memory, where that lies on a CPU."""

    def bind(self, state: Any, user: Tensor, record: Record, visit: Visit, exchange: Exchange) -> BoundUsers:
        """Users that live in the memory of ``state``; ``user`` int64 [n] holds the lanes' user rows."""
        ...


def can_bind(model: UserModel) -> bool:
    """Whether ``model`` can be bound: not where a subclass has its own version of what the bound users compute."""
    binding = next((kind for kind in type(model).__mro__ if "bind" in vars(kind)), None)
    return binding is not None and not overridden(model, binding)


def overridden(model: object, base: type, *names: str) -> bool:
    """Whether ``model`` has its own version of a method of its ancestor ``base``: of one of ``names``, else of any."""
    kinds = type(model).__mro__
    return any(
        hasattr(value, "__get__") and hasattr(base, name) and (name in names if names else not name.startswith("__"))
        for kind in kinds[: kinds.index(base)]
        for name, value in vars(kind).items()
    )
