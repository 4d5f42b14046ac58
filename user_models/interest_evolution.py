"""Interest evolution, a reference user by hand: clicks shift interests, and good content keeps users for longer."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from recgym.random import episode_key, fold, uniform
from recgym.types import Noise, Record, Response, Slate, TensorRecord, Visit
from recgym.user_models.simple import SimpleUsers
from recgym.worlds.world import World

NUM_TOPICS = 12
LOW_QUALITY = 8  # topics of quality -3 to 0, evenly spaced; the others lie at 0 to 3
QUALITY_SPREAD = 0.1  # standard deviation of an item's quality around its topic's
BUDGET = 200.0  # minutes
LENGTH = 4.0  # minutes of every item
NO_CLICK_MASS = 1.0
STEP_PENALTY = 0.5  # minutes that a slate without a click costs
BONUS = 0.9 / 3.4  # share of an item's length that one unit of quality gives back
LEARNING = 0.3  # step of an interest of 0 towards what was clicked; it falls to 0 at an interest of 1 or -1
_USERS, _ITEMS = 6, 7  # families of draws


@dataclass(frozen=True)
class Interests(TensorRecord):
    """Hidden state; T topics."""

    interest: Tensor  # [B, T] float32 in [-1, 1]
    budget: Tensor  # [B] float32 minutes left


class InterestEvolutionUsers(SimpleUsers):
    """Users who click at most one item of a slate, whose interests move with clicks and who leave when time is up.

    RecSim's interest evolution (Ie et al., RecSim, arXiv 1909.04847, 2019; SlateQ, IJCAI 2019): item i of topic t is
    clicked with chance ``v_i / (1 + sum over the slate of v_j)``, ``v_i = 1 + interest_t``. A click costs 4 minutes of
    a budget of 200 and gives back ``0.9 / 3.4 * 4 * quality_i``; a slate without a click costs half a minute. An
    interest x moves by ``0.3 (1 - |x|) (1 - x)``, upwards with chance ``(1 + x) / 2`` and else downwards.

    Departures: 12 topics (RecSim: 20), as many as candidates have columns for, so 8 of low quality instead of 14; the
    interest moves by the expectation of that step, since transitions draw nothing; interests are hidden, RecSim shows
    them; they belong to the user row. Made for scenarios of one slate a trip, see ``recgym.worlds.reference``: whoever
    is through with the budget never returns. An item's topic is its category. All of it is assumed, nothing is fitted.
    """

    mean_basket = 2.0

    def __init__(self, world: World, device: str | torch.device = "cpu") -> None:
        """Tabulates topics and qualities of items, and interests of users."""
        super().__init__(world, device)
        names = sorted(set(world.items["category"].astype(str)))
        number = {name: place % NUM_TOPICS for place, name in enumerate(names)}
        self.topic = torch.tensor([number[str(name)] for name in world.items["category"]], device=self.device)  # [N]
        low, high = torch.linspace(-3, 0, LOW_QUALITY), torch.linspace(0, 3, NUM_TOPICS - LOW_QUALITY)
        spread = torch.special.ndtri(keyed(_ITEMS, world.num_items, 1)[:, 0].double()).float() * QUALITY_SPREAD
        self.quality = torch.cat((low, high)).to(self.device)[self.topic] + spread.to(self.device)  # [N]
        self.interests = (2 * keyed(_USERS, world.num_users, NUM_TOPICS) - 1).to(self.device)  # [U, T]

    def init(self, users: Tensor, record: Record, visit: Visit) -> Interests:
        """See ``UserModel.init``."""
        return Interests(self.interests[users], torch.full(users.shape, BUDGET, device=self.device))

    def logits(self, state: Interests, items: Tensor, visit: Visit) -> Tensor:
        """See ``SimpleUsers.logits``: of being clicked where nothing else is on the slate."""
        return torch.log(self._mass(state, items) / NO_CLICK_MASS)

    def respond(self, state: Interests, slate: Slate, visit: Visit, noise: Noise) -> tuple[Response, Tensor]:
        """See ``UserModel.respond``: a race of exponential clocks, one an examined item and one for leaving it be."""
        mass = self._mass(state, slate.items) * torch.exp(slate.lift)
        total = torch.full((len(mass),), NO_CLICK_MASS, device=self.device)
        for slot in range(mass.shape[1]):  # one after another: sums in one order
            total = total + mass[:, slot] * slate.examined[:, slot]
        others = total[:, None] - mass * slate.examined + mass  # an item not examined is judged as if it were
        probability = mass / others
        clock = (-torch.log(noise.want) / mass).masked_fill(~slate.examined, torch.inf)
        first = slate.items.argmin(1, keepdim=True)  # whose draw is that of no click: the same in any order
        no_click = -torch.log(noise.quantity.gather(1, first)) / NO_CLICK_MASS
        consumed = (clock == clock.amin(1, keepdim=True)) & (clock < no_click)
        quantity = consumed.to(torch.int32)
        view = self.appraise(state, slate.items, slate.own_counts, slate.own_days, visit)
        if view.rating_cdf is None:
            return Response(consumed, quantity, torch.zeros_like(quantity)), probability
        stars = 1 + (noise.rating[..., None] > view.rating_cdf).sum(-1, dtype=torch.int32)
        return Response(consumed, quantity, quantity * stars), probability

    def transition(self, state: Interests, slate: Slate, response: Response, visit: Visit) -> Interests:
        """See ``UserModel.transition``: the expected step of the interest, and the minutes it took."""
        clicked = response.consumed
        row = clicked.to(torch.uint8).argmax(1, keepdim=True)
        item, any_click = slate.items.gather(1, row)[:, 0], clicked.any(1)
        topic = self.topic[item][:, None]
        x = state.interest.gather(1, topic)
        step = x * LEARNING * (1 - x.abs()) * (1 - x)  # (2 (1 + x) / 2 - 1) times the step
        moved = state.interest.scatter(1, topic, (x + step * any_click[:, None]).clamp(-1, 1))
        spent = torch.where(any_click, LENGTH - BONUS * LENGTH * self.quality[item], STEP_PENALTY)
        return Interests(moved, state.budget - spent)

    def away(self, state: Interests, record: Record, uniforms: Tensor, hazard: Tensor) -> tuple[Tensor, Tensor]:
        """See ``UserModel.away``: the next slate comes a day later, as long as there is time left."""
        return torch.ones_like(uniforms, dtype=torch.int32), state.budget <= 0

    def _mass(self, state: Interests, items: Tensor) -> Tensor:
        return (1 + state.interest.gather(1, self.topic[items])).clamp(min=1e-6)


def keyed(family: int, rows: int, columns: int) -> Tensor:
    """Uniform float32 [rows, columns] in (0, 1), hashes of family, row and column."""
    row = torch.arange(rows)
    key = episode_key(torch.full_like(row, family), row)
    return uniform(fold(key[:, None], torch.arange(columns)))
