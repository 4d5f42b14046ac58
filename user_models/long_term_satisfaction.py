"""Long-term satisfaction ("choc and kale"), a reference user by hand: what engages most now engages least later."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from recgym.simulation.kernels import sigmoid
from recgym.types import Appraisal, Noise, Record, Response, Slate, TensorRecord, Visit
from recgym.user_models.interest_evolution import keyed
from recgym.user_models.simple import SimpleUsers
from recgym.worlds.world import World

MEMORY = 0.7  # share of the net positive exposure that is left after a slate
SENSITIVITY = 0.2  # of satisfaction to net positive exposure
CHOC, KALE = 5.0, 4.0  # mean log engagement at satisfaction 1
SPREAD = 1.0  # standard deviation of log engagement
BUDGET = 60  # slates
LARGEST = 100  # units of engagement that are told
CERTAIN = 12.0  # logit of looking at what is examined
_USERS = 8  # family of draws


@dataclass(frozen=True)
class Exposure(TensorRecord):
    """Hidden state."""

    net: Tensor  # [B] float32, net positive exposure
    left: Tensor  # [B] int32 slates left


class LongTermSatisfactionUsers(SimpleUsers):
    """Users who take what they are shown, and like it less the more of it was clickbait.

    RecSim's long-term satisfaction (Ie et al., RecSim, arXiv 1909.04847, 2019): an item has a clickbait score c, 1 for
    choc and 0 for kale. Engagement is log-normal, ``exp(N((5 c + 4 (1 - c)) s, 1))``, with satisfaction
    ``s = sigmoid(sensitivity * n)`` and net positive exposure ``n' = 0.7 n - 2 (c - 1/2)``. An episode is 60 slates. It
    is told as ``quantity``, in whole units from 1 to 100.

    Departures: the innovation N(0, 0.05) of n is left out, since transitions draw nothing; sensitivity is 0.2, because
    at RecSim's 0.01 choc is best in the long run too (5 sigmoid(-0.01 / 0.3) > 4 sigmoid(0.01 / 0.3)) and there is
    nothing to plan; every examined item is taken, so play it with slates of one item, see ``recgym.worlds.reference``.
    Trips end with the scenario's ``max_slates``. Give them several: satisfaction is hidden, and what a trip has shown
    is all that tells an agent of it. With one slate a trip, what a slate does to later ones cannot be learned from
    observations, and a far-sighted agent has no more to go by than a myopic one. The clickbait score is the rank of the
    item's first text component, in (0, 1). All of it is assumed, nothing is fitted.
    """

    def __init__(self, world: World, device: str | torch.device = "cpu") -> None:
        """Tabulates clickbait scores, and where users start."""
        super().__init__(world, device)
        first = world.item_tensors["text_pca"][:, 0]
        rank = first.argsort(stable=True).argsort(stable=True)
        self.clickbait = ((rank.float() + 0.5) / world.num_items).to(self.device)  # [N]
        start = (keyed(_USERS, world.num_users, 1)[:, 0] - 0.5) / (1 - MEMORY)
        self.start = start.to(self.device)  # [U]

    def init(self, users: Tensor, record: Record, visit: Visit) -> Exposure:
        """See ``UserModel.init``."""
        return Exposure(self.start[users], torch.full(users.shape, BUDGET, dtype=torch.int32, device=self.device))

    def logits(self, state: Exposure, items: Tensor, visit: Visit) -> Tensor:
        """See ``SimpleUsers.logits``."""
        return torch.full(items.shape, CERTAIN, device=self.device)

    def appraise(self, state: Exposure, items: Tensor, own_counts: Tensor, own_days: Tensor, visit: Visit) -> Appraisal:
        """See ``UserModel.appraise``: quantities are given the geometric distribution with the mean of engagement."""
        view = super().appraise(state, items, own_counts, own_days, visit)
        mean = torch.exp(self._location(state, items) + SPREAD**2 / 2).clamp(1.0, LARGEST)
        return replace(view, quantity_stop=1.0 / mean)

    def respond(self, state: Exposure, slate: Slate, visit: Visit, noise: Noise) -> tuple[Response, Tensor]:
        """See ``UserModel.respond``."""
        response, probability = super().respond(state, slate, visit, noise)
        normal = torch.special.ndtri(noise.quantity.double()).float()
        engaged = torch.exp(self._location(state, slate.items) + SPREAD * normal).round().clamp(1, LARGEST)
        return replace(response, quantity=engaged.to(torch.int32) * response.consumed), probability

    def transition(self, state: Exposure, slate: Slate, response: Response, visit: Visit) -> Exposure:
        """See ``UserModel.transition``; of several items taken the mean counts."""
        taken = response.consumed.to(torch.float32)
        total, number = torch.zeros_like(state.net), torch.zeros_like(state.net)
        for slot in range(taken.shape[1]):  # one after another: sums in one order
            total = total + self.clickbait[slate.items[:, slot]] * taken[:, slot]
            number = number + taken[:, slot]
        push = torch.where(number > 0, 2 * (total / number.clamp(min=1) - 0.5), 0.0)
        return Exposure(torch.where(number > 0, MEMORY * state.net - push, state.net), state.left - 1)

    def intend(self, state: Exposure, uniforms: Tensor) -> Tensor:
        """See ``UserModel.intend``: no trip ends because enough was taken."""
        return torch.full(uniforms.shape, BUDGET, dtype=torch.int32, device=self.device)

    def away(self, state: Exposure, record: Record, uniforms: Tensor, hazard: Tensor) -> tuple[Tensor, Tensor]:
        """See ``UserModel.away``: the next slate comes a day later, as long as there are slates left."""
        return torch.ones_like(uniforms, dtype=torch.int32), state.left <= 0

    def _location(self, state: Exposure, items: Tensor) -> Tensor:
        choc = self.clickbait[items]
        satisfaction = sigmoid(SENSITIVITY * state.net)
        return (CHOC * choc + KALE * (1 - choc)) * satisfaction[:, None]
