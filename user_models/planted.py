"""Planted users, whose preferences, drift, price response and returns are known: they mark fitted worlds."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from recgym.random import episode_key, fold, uniform
from recgym.types import Record, Response, Slate, TensorRecord, Visit
from recgym.user_models.simple import SimpleUsers, lookup
from recgym.worlds.world import World

NUM_FACTORS = 8
MEAN_BASKET = 6.0  # items that a user wants on a trip without any recommendation, on average on day 0
TASTE = 1.5  # standard deviation of <taste, factors> over items and users
SHARED = 0.7  # share of the variance of an item's factors that its category decides
POPULARITY = 0.8  # logits for one standard deviation of log(1 + popularity)
SENSITIVITY = (0.5, 0.3)  # mean and standard deviation over users: logits lost for one standard deviation of log price
DRIFT = 0.6  # standard deviation of the change of a taste coordinate in a year
MEAN_GAPS = (3.0, 12.0)  # days, uniform over users
LONGEST_GAP = 90  # days: whoever would stay away longer never returns
CONTENT = 3  # items taken from one slate that make it a perfect one
SATISFACTION_RATE = 0.2  # weight of the latest slate
RETURN_EFFECT = 1.5  # the hazard of returning is multiplied by exp(RETURN_EFFECT * (satisfaction - 1/2))
LARGEST_NEED = 60  # items

_ITEMS, _USERS, _CATEGORIES = 3, 4, 5  # families of draws
_SAMPLE = 512  # users from whom the level of the logits is set


@dataclass(frozen=True)
class Truth:
    """The parameters of planted users: N items, U users, T factors; all float32."""

    factors: Tensor  # [N, T]
    appeal: Tensor  # [N] logits: popularity and the level that all items share
    price: Tensor  # [N] standardised log price, discount taken off
    taste: Tensor  # [U, T] on day 0
    drift: Tensor  # [U, T] change of the taste a day
    sensitivity: Tensor  # [U] logits lost for one unit of ``price``
    gap: Tensor  # [U] mean days between trips at satisfaction 1/2
    need: Tensor  # [U] expected number of items wanted on a trip

    @classmethod
    def of(cls, world: World, seed: int = 0) -> Truth:
        """Truth for any world: popularity, prices and categories are the world's, the rest hashes of row numbers."""
        names = world.items["category"].astype(str).to_numpy()
        categories, category = np.unique(names, return_inverse=True)
        centres = _normal(_CATEGORIES, seed, len(categories), NUM_FACTORS)[torch.from_numpy(category)]
        own = _normal(_ITEMS, seed, world.num_items, NUM_FACTORS)
        factors = (math.sqrt(SHARED) * centres + math.sqrt(1 - SHARED) * own) * (TASTE / math.sqrt(NUM_FACTORS))
        users = _normal(_USERS, seed, world.num_users, 2 * NUM_FACTORS + 2)
        low, high = MEAN_GAPS
        price = np.log1p(np.zeros(world.num_items) if world.prices is None else world.prices)
        truth = cls(
            factors=factors,
            appeal=POPULARITY * _standardised(np.log1p(world.items["popularity"].to_numpy(np.float64))),
            price=_standardised(price),
            taste=users[:, :NUM_FACTORS],
            drift=users[:, NUM_FACTORS : 2 * NUM_FACTORS] * (DRIFT / 365),
            sensitivity=SENSITIVITY[0] + SENSITIVITY[1] * users[:, -1],
            gap=low + (high - low) * torch.special.ndtr(users[:, -2]),
            need=torch.zeros(world.num_users),
        )
        return truth._levelled()

    def _levelled(self) -> Truth:
        """Sets the level of the logits so that users want ``MEAN_BASKET`` items on average, and every user's need."""
        logits = self.logits(torch.arange(min(_SAMPLE, len(self.taste))), 0.0).double()
        low, high = -30.0, 10.0
        for _ in range(50):
            level = (low + high) / 2
            low, high = (low, level) if torch.sigmoid(logits + level).sum(1).mean() > MEAN_BASKET else (level, high)
        levelled = replace(self, appeal=self.appeal + low)
        rows = torch.arange(len(self.taste)).split(_SAMPLE)
        need = torch.cat([torch.sigmoid(levelled.logits(part, 0.0)).sum(1) for part in rows])
        return replace(levelled, need=need)

    def logits(self, users: Tensor, day: float) -> Tensor:
        """Logits of q [n, N] of ``users`` (int64 [n] rows) for every item on a day."""
        taste = self.taste[users] + day * self.drift[users]
        return self.appeal + taste @ self.factors.T - self.sensitivity[users, None] * self.price

    def select(self, items: Tensor, users: Tensor, day: int = 0) -> Truth:
        """The truth of some items and users (int64 rows), with ``day`` as the new day 0."""
        return Truth(
            factors=self.factors[items],
            appeal=self.appeal[items],
            price=self.price[items],
            taste=self.taste[users] + day * self.drift[users],
            drift=self.drift[users],
            sensitivity=self.sensitivity[users],
            gap=self.gap[users],
            need=self.need[users],
        )


@dataclass(frozen=True)
class PlantedState(TensorRecord):
    """Hidden state; T factors."""

    user: Tensor  # [B] int64
    taste: Tensor  # [B, T] float32 on the day of the visit
    satisfaction: Tensor  # [B] float32 in [0, 1]


class PlantedUsers(SimpleUsers):
    """Users whose truth is known in closed form, to mark worlds that were fitted on what they did.

    ``logit q(i | u, day) = appeal_i + <taste_u + day * drift_u, factors_i> - sensitivity_u * price_i``: latent factors
    and popularity as in matrix factorisation (Koren, Bell and Volinsky, 2009), tastes that drift linearly, and a
    response to price that differs between users. Earlier purchases do not matter. The need of a trip is a Poisson
    number around the items the user wants. Satisfaction is a running mean of how many items each slate sold, 1 from
    three on; days until the next trip are exponential, with a hazard that satisfaction multiplies as in
    ``hazard / gap_u * exp(1.5 * (satisfaction - 1/2))``; whoever would stay away for more than 90 days never returns.
    Ratings follow <taste, factors> plus logistic noise. All numbers are assumed, nothing is fitted.
    """

    def __init__(self, world: World, device: str | torch.device = "cpu", truth: Truth | None = None) -> None:
        """Tabulates ``truth``; None: ``Truth.of(world)``."""
        super().__init__(world, device)
        self.truth = truth = Truth.of(world) if truth is None else truth
        self._factors = truth.factors.T.contiguous().to(self.device)  # [T, N]
        self._appeal, self._price = truth.appeal.to(self.device), truth.price.to(self.device)
        self._taste, self._drift = truth.taste.to(self.device), truth.drift.to(self.device)
        self._sensitivity, self._gap = truth.sensitivity.to(self.device), truth.gap.to(self.device)
        sizes = torch.arange(LARGEST_NEED, dtype=torch.float64)
        need = truth.need.double().clamp(min=1e-9)[:, None]
        log_chance = sizes * need.log() - need - torch.lgamma(sizes + 1)
        self._sizes = log_chance.exp().cumsum(1).float().to(self.device)  # [U, LARGEST_NEED] Poisson P(n <= size)

    def init(self, users: Tensor, record: Record, visit: Visit) -> PlantedState:
        """See ``UserModel.init``."""
        content = torch.full(users.shape, 0.5, device=self.device)
        return PlantedState(users, self._taste_on(users, visit.day), content)

    def logits(self, state: PlantedState, items: Tensor, visit: Visit) -> Tensor:
        """See ``SimpleUsers.logits``."""
        paid = self._sensitivity[state.user][:, None] * self._price[items]
        return self._appeal[items] + self.liking(state, items, visit) - paid

    def liking(self, state: PlantedState, items: Tensor, visit: Visit) -> Tensor:
        """See ``SimpleUsers.liking``: <taste, factors>."""
        return lookup(self._factors, state.taste, items)

    def transition(self, state: PlantedState, slate: Slate, response: Response, visit: Visit) -> PlantedState:
        """See ``UserModel.transition``: the slate enters satisfaction."""
        pleased = response.consumed.sum(1).clamp(max=CONTENT) * (1.0 / CONTENT)
        return replace(state, satisfaction=state.satisfaction + SATISFACTION_RATE * (pleased - state.satisfaction))

    def intend(self, state: PlantedState, uniforms: Tensor) -> Tensor:
        """See ``UserModel.intend``: Poisson, at least one item."""
        return (self._sizes[state.user] < uniforms[:, None]).sum(1, dtype=torch.int32).clamp(min=1)

    def away(self, state: PlantedState, record: Record, uniforms: Tensor, hazard: Tensor) -> tuple[Tensor, Tensor]:
        """See ``UserModel.away``."""
        eager = hazard * torch.exp(RETURN_EFFECT * (state.satisfaction - 0.5))
        days = -torch.log(uniforms) * self._gap[state.user] / eager
        return days.clamp(max=LONGEST_GAP).to(torch.int32), days >= LONGEST_GAP

    def arrive(self, state: PlantedState, record: Record, visit: Visit) -> PlantedState:
        """See ``UserModel.arrive``: the taste of the new day."""
        return replace(state, taste=self._taste_on(state.user, visit.day))

    def _taste_on(self, users: Tensor, day: Tensor) -> Tensor:
        return self._taste[users] + day.to(torch.float32)[:, None] * self._drift[users]


def _standardised(values: np.ndarray) -> Tensor:
    """Float32 with mean 0 and standard deviation 1; all 0 where the values are all the same."""
    spread = values.std()
    return torch.from_numpy(((values - values.mean()) / (spread if spread > 0 else 1.0)).astype(np.float32))


def _normal(family: int, seed: int, rows: int, columns: int) -> Tensor:
    """Standard normal float32 [rows, columns], hashes of family, seed, row and column."""
    row = torch.arange(rows)
    key = fold(episode_key(torch.full_like(row, family), seed), row)
    return torch.special.ndtri(uniform(fold(key[:, None], torch.arange(columns))).double()).float()
