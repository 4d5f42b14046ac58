"""A hand-written reference user: latent topics and boredom, no network; cheap, and small enough to reason about."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recgym.compiled import arithmetic
from recgym.compiled.arithmetic import kernel
from recgym.random import episode_key, fold, integers, uniform
from recgym.types import Record, Response, Slate, TensorRecord, Visit
from recgym.user_models.protocol import Exchange
from recgym.user_models.simple import LARGEST_BASKET, LONGEST_GAP, SimpleUsers
from recgym.worlds.world import World

NUM_TOPICS = 10
SLOPE, OFFSET = 6.0, 6.0  # logit q = SLOPE * relevance - OFFSET
SEEN_LIMIT = 10.0  # examined items of a topic, recent ones counted in full, from which on the topic bores
MEMORY = 0.8  # weight of what was seen after one more slate, or one day away
MEAN_BASKET = 8.0  # items, geometric
MEAN_GAP = 7.0  # days, exponential
RATING_SLOPE = 3.0

# Relevance is a sum of products of multiples of 1/64, none above 1: exact in float32, so in any order, in any batch.
_GRAIN = 64
_USERS, _ITEMS = 1, 2  # the two families of draws


@dataclass(frozen=True)
class BoredState(TensorRecord):
    """Hidden state; T topics."""

    affinity: Tensor  # [B, T] float32 in [0, 1], multiples of 1/64
    seen: Tensor  # [B, T] float32, examined items by main topic, discounted by MEMORY a slate


class BoredUsers(SimpleUsers):
    """Users with a few topics of interest, who lose interest in a topic while they are shown too much of it.

    In the manner of SARDINE (Deffayet et al., SARDINE: a simulator for automated recommendation in dynamic and
    interactive environments, TORS 2024): an item is a mixture of topics, a user likes 3 to 5 of them, the chance of a
    purchase is a logistic function of their inner product, and a topic that was seen too often lately counts for
    nothing until enough slates have passed. Departures: what wears a topic out is being shown it, not clicking on it;
    memory fades instead of being cut off; tastes do not drift; items carry their weights on a grid. Every number here
    is assumed, nothing is fitted.

    An item's main topic is its category in the world (by size, modulo the number of topics); its second topic and the
    weights of both, and a user's interests, are hashes of the row numbers.
    """

    mean_basket, mean_gap = MEAN_BASKET, MEAN_GAP

    def __init__(self, world: World, device: str | torch.device = "cpu") -> None:
        """Tabulates topics by item and interests by user."""
        super().__init__(world, device)
        self.topics = _main_topics(world).to(self.device)  # [N] int64
        self.vectors = _item_vectors(self.topics)  # [N, T], rows sum to 1
        self.affinities = _interests(torch.arange(world.num_users, device=self.device))  # [U, T]

    def init(self, users: Tensor, record: Record, visit: Visit) -> BoredState:
        """See ``UserModel.init``: nothing was seen yet."""
        affinity = self.affinities[users]
        return BoredState(affinity, torch.zeros_like(affinity))

    def logits(self, state: BoredState, items: Tensor, visit: Visit) -> Tensor:
        """See ``SimpleUsers.logits``."""
        return self._relevance(state, items) * SLOPE - OFFSET

    def liking(self, state: BoredState, items: Tensor, visit: Visit) -> Tensor:
        """See ``SimpleUsers.liking``."""
        return RATING_SLOPE * (self._relevance(state, items) - 0.5)

    def transition(self, state: BoredState, slate: Slate, response: Response, visit: Visit) -> BoredState:
        """See ``UserModel.transition``: what was seen fades a little, and this slate's examined items are added."""
        counts = torch.zeros_like(state.seen)  # whole numbers: exact in whatever order they are added
        topics = self.topics.take(slate.items)
        counts.scatter_add_(1, topics, slate.examined.to(torch.float32))
        return replace(state, seen=state.seen * MEMORY + counts)

    def bind(
        self, state: BoredState, user: Tensor, record: Record, visit: Visit, exchange: Exchange
    ) -> BoundBoredUsers:
        """See ``BindingUserModel.bind``."""
        return BoundBoredUsers(
            exchange,
            tables=(self.vectors.numpy(), self.topics.numpy(), self.affinities.numpy()),
            cuts=self._cuts.numpy() if self.ratings else np.empty(0, np.float32),
            pace=(np.float32(-self.mean_gap), np.float32(1.0 / math.log1p(-1.0 / self.mean_basket))),
            hidden=(state.affinity.numpy(), state.seen.numpy()),
            user=user.numpy(),
            gap_days=visit.gap_days.numpy(),
            intended=visit.intended.numpy(),
        )

    def arrive(self, state: BoredState, record: Record, visit: Visit) -> BoredState:
        """See ``UserModel.arrive``: boredom fades while away."""
        fading = torch.exp(visit.gap_days.to(torch.float32) * math.log(MEMORY))
        return replace(state, seen=state.seen * fading[:, None])

    def _appeal(self, state: BoredState) -> Tensor:
        return state.affinity.masked_fill(state.seen >= SEEN_LIMIT, 0.0)

    def _relevance(self, state: BoredState, items: Tensor) -> Tensor:
        """The inner product of item and user in [0, 1], topics that bore left out, [B, C]."""
        appeal = self._appeal(state)
        vectors = self.vectors.index_select(0, items.reshape(-1)).view(*items.shape, NUM_TOPICS)
        return torch.bmm(vectors, appeal[:, :, None])[..., 0]


@dataclass(frozen=True)
class BoundBoredUsers:
    """``BoredUsers`` by compiled kernels, in the memory of some lanes; see ``BoundUsers``."""

    exchange: Exchange
    tables: tuple[np.ndarray, np.ndarray, np.ndarray]  # item vectors [N, T], topics [N], affinities [U, T]
    cuts: np.ndarray  # RATING_CUTS, or none where the world has no ratings
    pace: tuple[np.float32, np.float32]  # what the logarithm of luck is multiplied by: for gaps, and for baskets
    hidden: tuple[np.ndarray, np.ndarray]  # affinity and seen, [n, T] each
    user: np.ndarray
    gap_days: np.ndarray
    intended: np.ndarray

    def init(self, lanes: np.ndarray) -> None:
        """See ``BoundUsers.init``."""
        _init(self.tables[2], lanes, self.user, *self.hidden)

    def away(self, lanes: np.ndarray, luck: np.ndarray, hazard: np.ndarray, gap: np.ndarray, gone: np.ndarray) -> None:
        """See ``BoundUsers.away``."""
        _away(self.pace[0], luck, hazard, gap, gone)

    def arrive(self, lanes: np.ndarray, luck: np.ndarray) -> None:
        """See ``BoundUsers.arrive``."""
        _arrive(self.pace[1], lanes, luck, self.gap_days, self.hidden[1], self.intended)

    def answer(self) -> None:
        """See ``BoundUsers.answer``."""
        told = self.exchange
        given = (told.items, told.lift, told.examined, told.want, told.rating_luck)
        _answer(
            self.tables[0], self.cuts, *self.hidden, *given, told.probability, told.consumed, told.quantity, told.rating
        )

    def move(self, lanes: np.ndarray) -> None:
        """See ``BoundUsers.move``."""
        _move(self.tables[1], lanes, self.exchange.items, self.exchange.examined, self.hidden[1])


_F = np.float32


@kernel
def _init(affinities: Any, lanes: Any, user: Any, affinity: Any, seen: Any) -> None:
    for lane in lanes:
        affinity[lane] = affinities[user[lane]]
        seen[lane] = _F(0.0)


@kernel
def _away(pace: Any, luck: Any, hazard: Any, gap: Any, gone: Any) -> None:
    for n in range(luck.shape[0]):
        gap[n] = np.int32(min(arithmetic.log(luck[n]) * pace / hazard[n], _F(LONGEST_GAP)))
        gone[n] = False


@kernel
def _arrive(pace: Any, lanes: Any, luck: Any, gap_days: Any, seen: Any, intended: Any) -> None:
    for n in range(lanes.shape[0]):
        lane = lanes[n]
        fading = arithmetic.exp(_F(gap_days[lane]) * _F(math.log(MEMORY)))
        for topic in range(NUM_TOPICS):
            seen[lane, topic] *= fading
        size = _F(1.0) + np.floor(arithmetic.log(luck[n]) * pace)
        intended[lane] = np.int32(min(size, _F(LARGEST_BASKET)))


@kernel
def _answer(
    vectors: Any,
    cuts: Any,
    affinity: Any,
    seen: Any,
    items: Any,
    lift: Any,
    examined: Any,
    want: Any,
    rating_luck: Any,
    probability: Any,
    consumed: Any,
    quantity: Any,
    rating: Any,
) -> None:
    appeal = np.empty(NUM_TOPICS, np.float32)
    for lane in range(items.shape[0]):
        for topic in range(NUM_TOPICS):
            appeal[topic] = _F(0.0) if seen[lane, topic] >= _F(SEEN_LIMIT) else affinity[lane, topic]
        for slot in range(items.shape[1]):
            relevance = _F(0.0)
            for topic in range(NUM_TOPICS):
                relevance += vectors[items[lane, slot], topic] * appeal[topic]
            chance = arithmetic.sigmoid(relevance * _F(SLOPE) - _F(OFFSET) + lift[lane, slot])
            bought = examined[lane, slot] and want[lane, slot] < chance
            stars = np.int32(0)
            if bought and cuts.size > 0:
                stars = np.int32(1)
                for cut in cuts:
                    level = arithmetic.sigmoid(cut - _F(RATING_SLOPE) * (relevance - _F(0.5)))
                    stars += np.int32(rating_luck[lane, slot] > level)
            probability[lane, slot] = chance
            consumed[lane, slot] = bought
            quantity[lane, slot] = np.int32(bought)
            rating[lane, slot] = stars


@kernel
def _move(topics: Any, lanes: Any, items: Any, examined: Any, seen: Any) -> None:
    for lane in lanes:
        for topic in range(NUM_TOPICS):
            seen[lane, topic] *= _F(MEMORY)
        for slot in range(items.shape[1]):
            if examined[lane, slot]:
                seen[lane, topics[items[lane, slot]]] += _F(1.0)


def _main_topics(world: World) -> Tensor:
    """Each item's main topic, int64 [N]: categories by falling size, dealt out to the topics in turn."""
    names = world.items["category"].astype(str)
    sizes = names.value_counts()
    order = sorted(sizes.index, key=lambda name: (-int(sizes[name]), name))  # ties by name, so that the deal is defined
    topic = {name: place % NUM_TOPICS for place, name in enumerate(order)}
    return torch.tensor([topic[name] for name in names], dtype=torch.int64)


def _item_vectors(topics: Tensor) -> Tensor:
    """Topic weights float32 [N, T]: between 5/8 and all of it on the main topic, the rest on one other."""
    key = _keys(_ITEMS, torch.arange(len(topics), device=topics.device))
    second = (topics + 1 + integers(fold(key, 0), NUM_TOPICS - 1)) % NUM_TOPICS
    main = _GRAIN - integers(fold(key, 1), 3 * _GRAIN // 8 + 1)
    vectors = torch.zeros(len(topics), NUM_TOPICS, device=topics.device)
    vectors.scatter_(1, topics[:, None], main[:, None].to(torch.float32))
    vectors.scatter_(1, second[:, None], (_GRAIN - main)[:, None].to(torch.float32))
    return vectors / _GRAIN


def _interests(users: Tensor) -> Tensor:
    """Interest of each user in each topic, float32 [U, T]: 3 to 5 topics at 1/2 to 1, the others at 0."""
    key = _keys(_USERS, users)
    topics = torch.arange(NUM_TOPICS, device=users.device)
    order = uniform(fold(fold(key, 0)[:, None], topics)).argsort(dim=1, stable=True)
    place = torch.empty_like(order).scatter_(1, order, topics.expand_as(order).contiguous())
    chosen = place < (3 + integers(fold(key, 1), 3))[:, None]
    level = _GRAIN - integers(fold(fold(key, 2)[:, None], topics), _GRAIN // 2 + 1)
    return (level * chosen).to(torch.float32) / _GRAIN


def _keys(family: int, rows: Tensor) -> Tensor:
    """Mixed keys int64, one a row number of a family."""
    return episode_key(torch.full_like(rows, family), rows)
