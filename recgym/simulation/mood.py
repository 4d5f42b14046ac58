"""What recommendations do to wants and visits: boredom, drift, promotions, purchases put off, prices; all assumed.

None of it needs the user model's help: wants move by what is added to the logit of an item that is looked at, the same
way as the effect of being shown at all (``Slate.lift``), and visits by a multiplier of the hazard of returning.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from recgym.errors import ScenarioError
from recgym.random import Purpose, fold, uniform
from recgym.scenario import Scenario
from recgym.simulation.draws import trip_key
from recgym.simulation.state import Mood, State
from recgym.types import Response, Visit
from recgym.worlds.world import World

CAPACITY = 64  # items put aside at a time; what comes beyond is forgotten
_USER_KEY = 103  # family of the keys that say how a user's taste changes


@dataclass(frozen=True)
class Deal:
    """What a slate offers and what becomes of it, beyond the response on the spot; B lanes, K slots."""

    promoted: Tensor | None  # [B, K] bool
    aside: Tensor | None  # [B, K] bool, wanted and put aside
    due: Tensor | None  # [B, CAPACITY] bool, put aside earlier and bought now


class Moods:
    """The assumed dynamics of wants and visits; each part is off where the scenario gives it no strength."""

    def __init__(self, world: World, scenario: Scenario, price: Tensor, device: torch.device) -> None:
        """Tabulates topics.

        Args:
            world: its items have topics.
            scenario: the sections ``behaviour`` and ``actions.promotions``.
            price: of the items, [N].
            device: where lanes live.

        Raises:
            ScenarioError: promotions or a price image in a world where nothing is paid.
        """
        behaviour, self._promotions = scenario.behaviour, scenario.actions.promotions
        self._boredom, self._drift = behaviour.boredom, behaviour.drift
        self._shift, self._delay = behaviour.shift, behaviour.delay
        self._tolerance = math.log1p(self._boredom.tolerance)
        self._base, self._price, self._image = behaviour.lift, price, behaviour.price_image
        names = world.items[behaviour.topics].astype(str).to_numpy()
        levels, codes = np.unique(names, return_inverse=True)
        self.topics = torch.from_numpy(codes.astype(np.int64)).to(device)  # [N]
        self.num_topics = len(levels)
        share = np.bincount(codes, minlength=len(levels)) / len(codes)
        self._share = torch.tensor(share.astype(np.float32), device=device)  # [T] of the catalogue
        self._bargain = behaviour.price_elasticity * -math.log(1.0 - self._promotions.discount)
        self.promotes, self.delays = self._promotions.slots > 0, self._delay.share > 0
        self._bores, self._drifts, self._shifts = (
            part.strength > 0 for part in (self._boredom, self._drift, self._shift)
        )
        self._compares = self._image.effect > 0
        self.active = any((self._bores, self._drifts, self._shifts, self._compares, self.promotes, self.delays))
        check_prices(world, scenario)
        bought = torch.from_numpy(world.items["popularity"].to_numpy("float64")).to(device)
        self.dearness = dearness(price, bought) if self._compares else price  # [N]

    def start(self, size: int) -> Mood | None:
        """Of ``size`` lanes at the start of an episode; None where nothing is to be remembered."""
        if not self.active:
            return None
        device = self._share.device
        topics = torch.zeros(size, self.num_topics, device=device)
        waiting = torch.full((size, CAPACITY), -1, dtype=torch.int32, device=device)
        return Mood(
            exposures=topics if self._bores else None,
            lately=self._share.repeat(size, 1) if self._drifts else None,
            waiting=waiting if self.delays else None,
            due=torch.zeros_like(waiting) if self.delays else None,
            spent=torch.zeros(size, device=device) if self.promotes else None,
            dearness=torch.full((size,), 0.5, device=device) if self._compares else None,
        )

    # ------------------------------------------------------------------ before the response

    def waits(self, state: State, items: Tensor) -> Tensor:
        """Whether ``items`` (int64 [B, C]) have been put aside: they are not wanted again until bought, bool [B, C]."""
        if state.mood is None or state.mood.waiting is None:
            return torch.zeros(items.shape, dtype=torch.bool, device=items.device)
        return (state.mood.waiting[:, None, :] == items[:, :, None]).any(dim=2)

    def lift(self, state: State, items: Tensor) -> Tensor:
        """What is added to the logits of ``items`` (int64 [B, C]) when they are looked at, float32 [B, C]."""
        lift = torch.full(items.shape, self._base, device=items.device)
        mood = state.mood
        if mood is None:
            return lift
        topics = self.topics[items]
        if mood.exposures is not None:
            # in float64: rounding to float32 then hides how vectors of different lengths are computed
            bored = mood.exposures.gather(1, topics).to(torch.float64).log1p() - self._tolerance
            bored = bored.clamp(min=0.0)
            lift = lift - (self._boredom.strength * bored).to(torch.float32)
        if mood.lately is not None:
            lift = lift + self._drift.strength * (mood.lately.gather(1, topics) - self._share[topics])
        if self._shifts:
            key = fold(fold(torch.full_like(state.user, _USER_KEY), Purpose.SHIFT), state.user)
            side = torch.where(uniform(fold(key[:, None], topics)) < 0.5, -1.0, 1.0)
            changed = state.visit.day - state.start_day >= self._shift.day
            lift = lift + self._shift.strength * side * changed[:, None]
        return lift

    def offer(self, state: State, slate: Tensor) -> tuple[Tensor, Tensor | None]:
        """``lift`` of a slate [B, K] with its promotions, and which items are promoted."""
        lift = self.lift(state, slate)
        if state.mood is None or state.mood.spent is None:
            return lift, None
        top = torch.arange(slate.shape[1], device=slate.device) < self._promotions.slots
        promoted = top & (state.mood.spent < self._promotions.budget)[:, None]
        return lift + self._bargain * promoted, promoted

    # ------------------------------------------------------------------ after the response

    def put_off(self, state: State, slate: Tensor, response: Response) -> tuple[Response, Tensor | None]:
        """The response without what users put aside for later, and what they put aside, bool [B, K].

        An item that is waiting already is neither bought nor put aside again.
        """
        mood = state.mood
        if mood is None or mood.waiting is None:
            return response, None
        key = fold(trip_key(state.luck, state.visit), Purpose.DELAY)
        later = uniform(fold(key[:, None], slate)) < self._delay.share
        already = self.waits(state, slate)
        aside = response.consumed & later & ~already
        gone = response.consumed & (later | already)
        left = Response(
            consumed=response.consumed & ~gone,
            quantity=response.quantity.masked_fill(gone, 0),
            rating=response.rating.masked_fill(gone, 0),
        )
        return left, aside

    def deliver(self, state: State) -> Tensor | None:
        """What was put aside and is bought as the trip begins, bool [B, CAPACITY]; on its first slate only."""
        mood = state.mood
        if mood is None or mood.waiting is None or mood.due is None:
            return None
        return (mood.waiting >= 0) & (mood.due <= state.visit.trip[:, None]) & (state.visit.step == 0)[:, None]

    def delivered(self, state: State, due: Tensor | None) -> dict[str, Tensor]:
        """How many items are ``due`` and what they cost, float32 [B] each, by the names of ``Shown``."""
        if due is None or state.mood is None or state.mood.waiting is None:
            nothing = torch.zeros(len(state.seed), device=self._share.device)
            return {"delivered": nothing, "delivered_value": nothing}
        price = self._price[state.mood.waiting.clamp(min=0).to(torch.int64)]
        return {"delivered": due.sum(dim=1, dtype=torch.float32), "delivered_value": (price * due).sum(dim=1)}

    def paid(self, promoted: Tensor | None, like: Tensor) -> Tensor:
        """The share of the price that is asked for, float32 of the shape of ``like``."""
        full = torch.ones(like.shape, device=like.device)
        return full if promoted is None else full - self._promotions.discount * promoted

    def settle(self, state: State, slate: Tensor, examined: Tensor, response: Response, deal: Deal) -> Mood | None:
        """What a slate leaves behind; ``state`` is as it was when the slate was shown."""
        mood = state.mood
        if mood is None:
            return None
        topics = self.topics[slate]
        looked = torch.zeros(len(slate), self.num_topics, device=slate.device)
        looked.scatter_add_(1, topics, examined.to(torch.float32))  # whole numbers: exact in any order
        if mood.exposures is not None:
            mood = replace(mood, exposures=mood.exposures + looked)
        if mood.lately is not None:
            count = looked.sum(dim=1, keepdim=True)
            share = looked / count.clamp(min=1.0)
            mood = replace(mood, lately=mood.lately + self._drift.rate * (count > 0) * (share - mood.lately))
        if mood.spent is not None and deal.promoted is not None:
            off = self._price[slate] * response.quantity * deal.promoted
            mood = replace(mood, spent=mood.spent + self._promotions.discount * off.sum(dim=1))
        if mood.dearness is not None:
            count = examined.sum(dim=1)
            mean = (self.dearness[slate] * examined).sum(dim=1) / count.clamp(min=1)  # a sum without rounding
            mood = replace(mood, dearness=mood.dearness + self._image.rate * (count > 0) * (mean - mood.dearness))
        if mood.waiting is not None and mood.due is not None and deal.aside is not None:
            waiting = torch.cat((mood.waiting, slate.to(torch.int32).masked_fill(~deal.aside, -1)), dim=1)
            due = torch.cat((mood.due, self._due(state, slate)), dim=1)
            order = (waiting < 0).to(torch.uint8).argsort(dim=1, stable=True)[:, :CAPACITY]
            mood = replace(mood, waiting=waiting.gather(1, order), due=due.gather(1, order))
        return mood

    def _due(self, state: State, slate: Tensor) -> Tensor:
        """The trips [B, K] int32 on which items that are put aside now are bought."""
        key = fold(trip_key(state.luck, state.visit), Purpose.DELAY_TRIPS)
        more = torch.zeros(slate.shape, device=slate.device)
        if self._delay.trips > 1:
            luck = uniform(fold(key[:, None], slate)).to(torch.float64)
            more = (luck.log() / math.log1p(-1.0 / self._delay.trips)).floor()
        return (state.visit.trip[:, None] + 1 + more.clamp(max=1e6)).to(torch.int32)

    # ------------------------------------------------------------------ between trips

    def hazard(self, mood: Mood | None) -> Tensor | float:
        """Multiplier of the fitted return hazard, float32 [B]: 1 where prices look as those of the log's purchases."""
        if mood is None or mood.dearness is None:
            return 1.0
        # in float64: rounding to float32 then hides how vectors of different lengths are computed
        return (-self._image.effect * (mood.dearness.to(torch.float64) - 0.5)).exp().to(torch.float32)

    def basket(self, mood: Mood | None, bought: Tensor, trip: Tensor) -> Tensor:
        """What a trip's record says was ``bought`` (int32 [n, S], -1 pads) with what had been put aside for it."""
        if mood is None or mood.waiting is None or mood.due is None:
            return bought
        return torch.cat((bought, mood.waiting.masked_fill(mood.due > trip[:, None], -1)), dim=1)

    def away(self, mood: Mood | None, visit: Visit) -> Mood | None:
        """After days away; ``visit`` is the one that begins. What was bought on the trip before waits no more."""
        if mood is None:
            return None
        if mood.exposures is not None:
            fading = (visit.gap_days.to(torch.float64) * (-math.log(2.0) / self._boredom.half_life)).exp()
            mood = replace(mood, exposures=mood.exposures * fading.to(torch.float32)[:, None])
        if mood.waiting is not None and mood.due is not None:
            mood = replace(mood, waiting=mood.waiting.masked_fill(mood.due < visit.trip[:, None], -1))
        return mood


def dearness(price: Tensor, bought: Tensor) -> Tensor:
    """The share of purchases that cost less than each item, ties by half, in steps of 1/1024: float32 [N].

    The mean over the purchases is 1/2; sums of a slate's are exact in any order.

    Args:
        price: of the items, [N].
        bought: how often each was bought, float64 [N]; where nothing was, every item counts once.
    """
    weight = bought if bought.sum() > 0 else torch.ones_like(bought)
    levels, level = price.unique(return_inverse=True)  # ascending
    at = torch.zeros(len(levels), dtype=torch.float64, device=price.device).index_add_(0, level, weight)
    below = at.cumsum(0) - at / 2
    return ((below / at.sum())[level] * 1024).round().to(torch.float32) / 1024


def check_prices(world: World, scenario: Scenario) -> None:
    """Refuses promotions and a price image where nothing is paid.

    Raises:
        ScenarioError: the scenario has one of them.
    """
    if "quantity" in world.spec.responses and world.prices is not None:
        return
    why = f"nothing is paid in world {world.name!r}, so"
    if scenario.actions.promotions.slots:
        raise ScenarioError(f"{scenario.at('actions.promotions')}: {why} nothing can be discounted")
    if scenario.behaviour.price_image.effect:
        raise ScenarioError(f"{scenario.at('behaviour.price_image')}: {why} nothing can look dear")
