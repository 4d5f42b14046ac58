"""Several preference networks fitted on one log, which answer together and know where they disagree."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from recgym.errors import WorldError
from recgym.simulation.kernels import sigmoid
from recgym.types import Appraisal, Noise, Record, Response, Slate, TensorRecord, Visit
from recgym.user_models.preference.users import PreferenceState, PreferenceUsers
from recgym.worlds.world import World

SMALLEST = 1e-7  # chances are kept this far from 0 and 1 before they become logits again


@dataclass(frozen=True)
class EnsembleState(TensorRecord):
    """The hidden state of every member: that of the first, and those of the others in the same manner."""

    first: PreferenceState
    others: EnsembleState | None

    def __iter__(self) -> Iterator[PreferenceState]:
        """The members' states, in order."""
        state: EnsembleState | None = self
        while state is not None:
            yield state.first
            state = state.others


def _state(states: list[PreferenceState]) -> EnsembleState:
    chain: EnsembleState | None = None
    for state in reversed(states):
        chain = EnsembleState(state, chain)
    assert chain is not None  # noqa: S101 - there are at least two members
    return chain


class EnsembleUsers:
    """``ensemble``: chances are the mean of the members'; their spread says how unsure the simulator is.

    The members are the networks of a world's bundle (``recgym world ensemble``): they differ in their seed and share
    the item table, so the spread is that of the user side (deep ensembles, Lakshminarayanan et al., NeurIPS 2017). Only
    evaluation reads it; agents never do.
    """

    def __init__(self, world: World, device: str | torch.device = "cpu") -> None:
        """Users of ``world``.

        Raises:
            WorldError: its bundle holds no members beside its own network.
        """
        if not world.members:
            raise WorldError(
                f"world {world.name!r} has one network and no ensemble; add members with: recgym world ensemble "
                f"{world.name}"
            )
        self.members = [PreferenceUsers(replace(world, weights=w), device) for w in (world.weights, *world.members)]

    # ------------------------------------------------------------------ what the members say together

    def disagreement(
        self, state: EnsembleState, items: Tensor, own_counts: Tensor, own_days: Tensor, visit: Visit
    ) -> Tensor:
        """Standard deviation over the members of the chance q of each item, float32 [B, C]."""
        views = self._views(state, items, own_counts, own_days, visit)
        chances = [sigmoid(view.logit) for view in views]
        mean = _mean(chances)
        return _mean([(chance - mean) ** 2 for chance in chances]).sqrt()

    def _views(
        self, state: EnsembleState, items: Tensor, own_counts: Tensor, own_days: Tensor, visit: Visit
    ) -> list[Appraisal]:
        return [
            member.appraise(own, items, own_counts, own_days, visit)
            for member, own in zip(self.members, state, strict=True)
        ]

    def _each(self, state: EnsembleState, move: Callable[[PreferenceUsers, PreferenceState], Any]) -> list[Any]:
        return [move(member, own) for member, own in zip(self.members, state, strict=True)]

    # ------------------------------------------------------------------ protocol

    def init(self, users: Tensor, record: Record, visit: Visit) -> EnsembleState:
        """See ``UserModel.init``."""
        return _state([member.init(users, record, visit) for member in self.members])

    def appraise(
        self, state: EnsembleState, items: Tensor, own_counts: Tensor, own_days: Tensor, visit: Visit
    ) -> Appraisal:
        """See ``UserModel.appraise``; chances, not logits, are averaged."""
        views = self._views(state, items, own_counts, own_days, visit)
        chance = _mean([sigmoid(view.logit) for view in views]).clamp(SMALLEST, 1 - SMALLEST)
        stop = None if views[0].quantity_stop is None else _mean([view.quantity_stop for view in views])
        cdf = None if views[0].rating_cdf is None else _mean([view.rating_cdf for view in views])
        return Appraisal(torch.log(chance) - torch.log1p(-chance), stop, cdf)

    def respond(self, state: EnsembleState, slate: Slate, visit: Visit, noise: Noise) -> tuple[Response, Tensor]:
        """See ``UserModel.respond``."""
        view = self.appraise(state, slate.items, slate.own_counts, slate.own_days, visit)
        return self.members[0].answer(view, slate, noise)

    def transition(self, state: EnsembleState, slate: Slate, response: Response, visit: Visit) -> EnsembleState:
        """See ``UserModel.transition``; the storage of ``state`` is reused."""
        return _state(self._each(state, lambda member, own: member.transition(own, slate, response, visit)))

    def intend(self, state: EnsembleState, uniforms: Tensor) -> Tensor:
        """See ``UserModel.intend``; the members' distributions are averaged."""
        survival = _mean(self._each(state, lambda member, own: member.size_survival(own)))
        return PreferenceUsers.size_of(survival, uniforms)

    def away(self, state: EnsembleState, record: Record, uniforms: Tensor, hazard: Tensor) -> tuple[Tensor, Tensor]:
        """See ``UserModel.away``; the members' distributions are averaged."""
        survival = _mean(self._each(state, lambda member, own: member.gap_survival(own)))
        return PreferenceUsers.gap_of(survival, uniforms, hazard)

    def arrive(self, state: EnsembleState, record: Record, visit: Visit) -> EnsembleState:
        """See ``UserModel.arrive``."""
        return _state(self._each(state, lambda member, own: member.arrive(own, record, visit)))


def _mean(parts: list[Any]) -> Tensor:
    """The mean of tensors of one shape, added one after the other: the same for a lane in any batch."""
    total: Tensor = parts[0]
    for part in parts[1:]:
        total = total + part
    return total / len(parts)
