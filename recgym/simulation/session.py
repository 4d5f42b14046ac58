"""Sessions and returns: when a user leaves, how content it is, and when it comes back."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from recgym.scenario import Scenario
from recgym.simulation.state import State
from recgym.types import TensorRecord, Visit


@dataclass(frozen=True)
class Leaving:
    """Who leaves after a slate, bool [B] each."""

    left: Tensor  # the need is met, or patience ran out
    limit: Tensor  # the trip has reached its limit of slates


@dataclass(frozen=True)
class Aftermath(TensorRecord):
    """What a slate leaves behind; fields as in ``State``, [B] or [B, 16]."""

    visit: Visit  # the slate counted in
    satisfaction: Tensor
    steps: Tensor
    shown_text: Tensor
    shown_count: Tensor
    consumed_text: Tensor
    last_hits: Tensor
    left: Tensor  # bool, the need is met, or patience ran out
    limit: Tensor  # bool, the trip has reached its limit of slates


class Session:
    """The rules of one trip and of what lies between two."""

    def __init__(self, scenario: Scenario, satisfaction_reference: float) -> None:
        """Reads the limits and the assumed parameters of ``scenario``.

        ``satisfaction_reference`` is the mean satisfaction under the reference policy that the world's card names.
        """
        self.reference = satisfaction_reference
        self.horizon = scenario.episode.horizon_days if scenario.episode.kind == "horizon" else None
        self.max_slates = scenario.episode.max_slates
        self.max_steps = scenario.episode.max_steps
        self.patience = scenario.behaviour.patience
        self.rate = scenario.behaviour.satisfaction.rate
        self._return_effect = scenario.behaviour.satisfaction.return_effect

    def settle(self, state: State, slate: Tensor, consumed: Tensor, luck: Tensor, text: Tensor) -> Aftermath:
        """What a slate leaves behind.

        Args:
            state: as it was when the slate was shown.
            slate: item rows, int64 [B, K].
            consumed: bool [B, K].
            luck: of staying, float32 [B].
            text: item text vectors, float32 [N, 16].
        """
        visit, count = state.visit, consumed.sum(dim=1, dtype=torch.int32)
        leaving = self.leave(luck, visit, count)
        shown = text[slate]  # [B, K, 16]
        return Aftermath(
            visit=replace(visit, step=visit.step + 1, bought=visit.bought + count),
            satisfaction=self.satisfy(state.satisfaction, count),
            steps=state.steps + 1,
            shown_text=state.shown_text + shown.sum(dim=1),
            shown_count=state.shown_count + slate.shape[1],
            consumed_text=state.consumed_text + (shown * consumed[..., None]).sum(dim=1),
            last_hits=count / slate.shape[1],
            left=leaving.left,
            limit=leaving.limit,
        )

    def leave(self, luck: Tensor, visit: Visit, num_consumed: Tensor) -> Leaving:
        """Decides who leaves after a slate.

        Args:
            luck: uniform draws, float32 [B].
            visit: the visit as it was when the slate was shown.
            num_consumed: items consumed on the slate, int32 [B].
        """
        met = visit.bought + num_consumed >= visit.intended
        lost = (num_consumed == 0) & (luck < self.patience)
        return Leaving(left=met | lost, limit=visit.step + 1 >= self.max_slates)

    def satisfy(self, satisfaction: Tensor, num_consumed: Tensor) -> Tensor:
        """The running mean, float32 [B], of whether a slate held anything that was consumed."""
        return satisfaction + self.rate * ((num_consumed > 0).to(torch.float32) - satisfaction)

    def hazard(self, satisfaction: Tensor) -> Tensor:
        """Multiplier of the fitted return hazard, float32 [B]: 1 at the reference, above it for content users."""
        return (self._return_effect * (satisfaction - self.reference)).exp()
