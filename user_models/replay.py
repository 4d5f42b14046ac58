"""Replay, a reference user: answers from the log alone, and counts what the log cannot answer."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from recgym.types import Record, Response, Slate, TensorRecord, Visit
from recgym.user_models.simple import SimpleUsers
from recgym.worlds.world import World

UNKNOWN = -12.0  # logit of what the log does not know: never taken
CAUTION = 1.0  # trips added to the denominator of a share


@dataclass(frozen=True)
class Asked(TensorRecord):
    """Hidden state."""

    user: Tensor  # [B] int64 user rows
    answered: Tensor  # [B] int32 examined items that the log knew of with this user
    unanswered: Tensor  # [B] int32 those it did not


class ReplayUsers(SimpleUsers):
    """Users who want an item on a trip as often as the log says that they bought it, and nothing that it never saw.

    ``q(i | u) = trips of u with i / (trips of u + 1)``; ``knows`` tells which users and items the log has an answer
    for, and the state counts the examined items with and without one. A purchase log shows only what was bought, so
    most of a catalogue is unknown: the baseline against which a fitted model has to earn its generalisation (rejection
    as in Li et al., Unbiased offline evaluation of contextual-bandit-based news article recommendation, WSDM 2011).
    """

    def __init__(self, world: World, device: str | torch.device = "cpu") -> None:
        """Tabulates the pairs of the log."""
        super().__init__(world, device)
        log = world.interactions()
        user = torch.tensor(log["user"].to_numpy("int64"))
        pairs = user * world.num_items + torch.tensor(log["item"].to_numpy("int64"))
        order = pairs.argsort(stable=True)
        trips = torch.tensor(world.users["num_trips"].to_numpy("float32"))[user]
        share = torch.tensor(log["count"].to_numpy("float32")) / (trips + CAUTION)
        self.pairs = torch.cat((pairs[order], torch.tensor([2**62]))).to(self.device)  # ascending; the last is no pair
        self.share = torch.cat((share[order].clamp(1e-4, 0.999), torch.zeros(1))).to(self.device)

    def knows(self, users: Tensor, items: Tensor) -> Tensor:
        """Whether the log has ``users`` (int64 [B]) with ``items`` (int64 [B, C]), bool [B, C]."""
        return self._find(users, items)[1]

    def init(self, users: Tensor, record: Record, visit: Visit) -> Asked:
        """See ``UserModel.init``."""
        nothing = torch.zeros(users.shape, dtype=torch.int32, device=self.device)
        return Asked(users.clone(), nothing, nothing.clone())

    def logits(self, state: Asked, items: Tensor, visit: Visit) -> Tensor:
        """See ``SimpleUsers.logits``."""
        place, known = self._find(state.user, items)
        share = self.share[place].clamp(min=1e-4)
        return torch.where(known, torch.log(share / (1 - share)), UNKNOWN)

    def transition(self, state: Asked, slate: Slate, response: Response, visit: Visit) -> Asked:
        """See ``UserModel.transition``: counts."""
        known = self.knows(state.user, slate.items)
        answered = (slate.examined & known).sum(1, dtype=torch.int32)
        unanswered = (slate.examined & ~known).sum(1, dtype=torch.int32)
        return replace(state, answered=state.answered + answered, unanswered=state.unanswered + unanswered)

    def _find(self, users: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
        key = users[:, None] * self.world.num_items + items
        place = torch.searchsorted(self.pairs, key).clamp(max=len(self.pairs) - 1)
        return place, self.pairs[place] == key
