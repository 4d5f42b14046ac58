"""The protocol of a user model: batched, pure, with hidden state kept apart from what is observable."""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor

from recgym.types import Appraisal, Noise, Record, Response, Slate, TensorRecord, Visit


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
        """State after the slate. May reuse the storage of ``state`` (the caller never reads it again)."""
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


HiddenState = TensorRecord
