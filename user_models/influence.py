"""Influence, a reference user by hand: what users take makes them like more of the same."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from recgym.types import Response, Slate, Visit
from recgym.user_models.boredom import BoredState, BoredUsers
from recgym.user_models.simple import lookup
from recgym.worlds.world import World

OMEGA = 0.9  # share of the affinity that is left after a slate on which something was taken


class InfluencedUsers(BoredUsers):
    """``boredom``, and affinities that move towards what was taken.

    In the manner of SARDINE (Deffayet et al., SARDINE: a simulator for automated recommendation in dynamic and
    interactive environments, TORS 2024): after a slate, the affinity of a user becomes ``omega * affinity + (1 - omega)
    * m``, m the mean topic vector of the items that this user took; where nothing was taken it stays. Departures: those
    of ``BoredUsers``. omega is assumed.
    """

    def __init__(self, world: World, device: str | torch.device = "cpu") -> None:
        """See ``BoredUsers``."""
        super().__init__(world, device)
        self._by_topic = self.vectors.T.contiguous()  # [T, N]

    def transition(self, state: BoredState, slate: Slate, response: Response, visit: Visit) -> BoredState:
        """See ``UserModel.transition``."""
        moved = super().transition(state, slate, response, visit)
        taken = response.consumed.to(torch.float32)
        total, number = torch.zeros_like(state.affinity), torch.zeros_like(state.affinity[:, :1])
        for slot in range(taken.shape[1]):  # one after another: sums in one order
            total = total + self.vectors[slate.items[:, slot]] * taken[:, slot, None]
            number = number + taken[:, slot, None]
        drawn = OMEGA * state.affinity + (1 - OMEGA) * total / number.clamp(min=1)
        return replace(moved, affinity=torch.where(number > 0, drawn, state.affinity))

    def _relevance(self, state: BoredState, items: Tensor) -> Tensor:
        """See ``BoredUsers``; affinities leave the grid on which a product is exact, so it is added up in order."""
        return lookup(self._by_topic, self._appeal(state), items)
