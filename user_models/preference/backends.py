"""The arithmetic of simulated users: in torch on any device, and compiled for a CPU.

Both compute the same from the same weights, floats to rounding; a CPU takes the compiled one. Within either, a lane's
result never depends on how many others there are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from recgym.simulation.kernels import sigmoid
from recgym.types import Appraisal, Noise, Record, Response, Slate, Visit
from recgym.user_models.preference import kernels
from recgym.user_models.preference.cache import advance, slot_biases
from recgym.user_models.preference.kernels.weights import Distribution, Hand, Starts, Tables
from recgym.user_models.preference.network import (
    GAP_EDGES,
    MAX_FEEDBACK,
    SIZE_BINS,
    PreferenceNetwork,
    pace_features,
    pair_features,
    time_features,
)
from recgym.user_models.preference.numerics import dot, linear, silu
from recgym.worlds.world import Ragged

if TYPE_CHECKING:
    from recgym.user_models.preference.users import PreferenceState
    from recgym.user_models.protocol import Exchange


@dataclass(frozen=True)
class Feedback:
    """How a slate went, as the next token tells it; B lanes, K slots."""

    items: Tensor  # [B, K] int64 item rows
    told: Tensor  # [B, K] int64, units or stars
    consumed: Tensor  # [B, K] bool
    ignored: Tensor  # [B, K] bool, examined and not consumed
    active: Tensor  # [B] bool; the state of other lanes is never used


class Backend(Protocol):
    """B lanes, K slots, C items."""

    def appraise(
        self, query: Tensor, items: Tensor, own_counts: Tensor, own_days: Tensor, pace: Tensor, visit: Visit
    ) -> Appraisal:
        """See ``UserModel.appraise``; ``query`` and ``pace`` as in ``PreferenceState``."""
        ...

    def respond(self, view: Appraisal, slate: Slate, noise: Noise) -> tuple[Response, Tensor]:
        """See ``UserModel.respond``."""
        ...

    def advance(self, cache: Tensor, position: Tensor, gap_level: Tensor, slate: Feedback) -> Tensor:
        """Sequence state [B, d] after one more token; arguments as in ``PreferenceState``, ``cache`` in place."""
        ...

    def refresh(self, user: Tensor, sequence: Tensor, pace: Tensor, visit: Visit) -> tuple[Tensor, Tensor]:
        """The fused user state x [B, d], and what the heads need of it [B, h + d + r]."""
        ...


class TorchBackend:
    """Torch operations, for any device."""

    def __init__(self, network: PreferenceNetwork, tables: Tables) -> None:
        """Keeps both; ``network`` in evaluation mode."""
        self._net, self._tables = network, tables
        self._biases = [slot_biases(block) for block in network.blocks]
        self._cuts = network.rating_thresholds()

    def appraise(
        self, query: Tensor, items: Tensor, own_counts: Tensor, own_days: Tensor, pace: Tensor, visit: Visit
    ) -> Appraisal:
        """See ``Backend.appraise``."""
        net, hidden, dim = self._net, self._net.config.hidden, self._net.config.dim
        table, query = self._tables.item[items], query[:, None]  # [B, C, h + d + r + 1], [B, 1, h + d + r]
        wide = silu(query[..., :hidden] + table[..., :hidden])
        logit = dot(wide, net.head_purchase) + dot(query[..., hidden : hidden + dim], table[..., hidden : hidden + dim])
        logit = logit + table[..., -1]
        gap = visit.gap_days.float()
        features = pair_features(own_counts, own_days, self._tables.interval[items], pace[:, None])
        first = linear(features.flatten(0, 1), net.repeat_pair.weight, net.repeat_pair.bias).view(*items.shape, -1)
        asked = linear(pace_features(pace, gap), net.repeat_pace.weight)[:, None] + query[..., hidden + dim :]
        first = silu(first + asked + table[..., hidden + dim : -1])
        second = linear(first.flatten(0, 1), net.repeat_inner.weight, net.repeat_inner.bias).view_as(first)
        logit = logit + torch.where(own_counts > 0, dot(silu(second), net.repeat_out), 0.0)
        stop = sigmoid(dot(wide, net.head_quantity) + net.quantity_bias) if self._tables.quantities else None
        cdf = sigmoid(self._cuts - dot(wide, net.head_rating)[..., None]) if self._tables.ratings else None
        return Appraisal(logit, stop, cdf)

    def respond(self, view: Appraisal, slate: Slate, noise: Noise) -> tuple[Response, Tensor]:
        """See ``Backend.respond``."""
        probability = sigmoid(view.logit + slate.lift)
        consumed = slate.examined & (noise.want < probability)
        quantity = consumed.to(torch.int32)
        if view.quantity_stop is not None:
            more = torch.log(noise.quantity) / torch.log1p(-view.quantity_stop.clamp(max=0.9999))
            quantity = quantity * (1 + more.floor().clamp(0, MAX_FEEDBACK - 1).to(torch.int32))
        rating = torch.zeros_like(quantity)
        if view.rating_cdf is not None:
            rated = 1 + (noise.rating[..., None] > view.rating_cdf).sum(-1).to(torch.int32)
            rating = torch.where(consumed, rated, rating)
        return Response(consumed, quantity, rating), probability

    def advance(self, cache: Tensor, position: Tensor, gap_level: Tensor, slate: Feedback) -> Tensor:
        """See ``Backend.advance``."""
        net, tables = self._net, self._tables
        consumed, ignored = slate.consumed, slate.ignored
        bought = ((tables.token[slate.items] + net.feedback.weight[slate.told]) * consumed[..., None]).sum(1)
        passed = (tables.ignored[slate.items] * ignored[..., None]).sum(1)
        count, shown = consumed.sum(1).float(), ignored.sum(1).float()
        pooled = bought / count.clamp(min=1).sqrt()[:, None] + passed / shown.clamp(min=1).sqrt()[:, None]
        sizes = torch.stack((torch.log1p(count), torch.log1p(shown)), dim=-1)
        raw = pooled + linear(sizes, net.size_token.weight, net.size_token.bias) + net.gap_level.weight[gap_level]
        token = F.layer_norm(raw, raw.shape[-1:], net.norm_token.weight, net.norm_token.bias)
        return advance(net, self._biases, cache, position, token)

    def refresh(self, user: Tensor, sequence: Tensor, pace: Tensor, visit: Visit) -> tuple[Tensor, Tensor]:
        """See ``Backend.refresh``."""
        fusion, dim, tables = self._net.fusion, self._net.config.dim, self._tables
        inside = (visit.step > 0).float()
        time = time_features(
            visit.gap_days.float(), inside, visit.bought.float(), pace[:, 0], pace[:, 1], pace[:, 2], visit.day.float()
        )
        gates = tables.static_gate[user]
        for name, source in (("sequence", sequence), ("time", time)):
            gates = gates + linear(source, fusion.gate[name].weight, fusion.gate[name].bias)
        gates = sigmoid(gates)
        static = tables.static_parts[user]
        parts = {"graph": static[:, 0], "attributes": static[:, 1]}
        for name, source in (("sequence", sequence), ("time", time)):
            parts[name] = linear(source, fusion.project[name].weight, fusion.project[name].bias)
        fused = torch.zeros_like(sequence)
        for index, name in enumerate(fusion.names):
            fused = fused + gates[:, index * dim : (index + 1) * dim] * parts[name]
        return fused, linear(fused, tables.query_weight, tables.query_bias)


class CompiledBackend:
    """Compiled kernels, for tensors on a CPU."""

    def __init__(self, network: PreferenceNetwork, tables: Tables) -> None:
        """Packs the weights as the kernels read them; ``network`` in evaluation mode."""
        self._quantities, self._ratings = tables.quantities, tables.ratings
        self._sequence = kernels.sequence_weights(network, tables)
        self._state = kernels.state_weights(network, tables)
        self._heads = kernels.head_weights(network, tables)
        self._sizes = kernels.distribution(network.size_head, SIZE_BINS)
        self._gaps = kernels.distribution(network.gap_head, GAP_EDGES)
        self._blank = network.start.detach()
        self._dim, self._asked = network.config.dim, len(tables.query_bias)

    def appraise(
        self, query: Tensor, items: Tensor, own_counts: Tensor, own_days: Tensor, pace: Tensor, visit: Visit
    ) -> Appraisal:
        """See ``Backend.appraise``."""
        shape = items.shape
        logit = torch.empty(shape)
        stop = torch.empty(shape if self._quantities else (0, 0))
        cdf = torch.empty((*shape, 4) if self._ratings else (0, 0, 4))
        kernels.appraise(
            self._heads, *arrays(query, items, own_counts, own_days, pace, visit.gap_days, logit, stop, cdf)
        )
        return Appraisal(logit, stop if self._quantities else None, cdf if self._ratings else None)

    def respond(self, view: Appraisal, slate: Slate, noise: Noise) -> tuple[Response, Tensor]:
        """See ``Backend.respond``."""
        shape = slate.items.shape
        stop = torch.empty((0, 0)) if view.quantity_stop is None else view.quantity_stop
        cdf = torch.empty((0, 0, 4)) if view.rating_cdf is None else view.rating_cdf
        probability, consumed = torch.empty(shape), torch.empty(shape, dtype=torch.bool)
        quantity, rating = torch.empty(shape, dtype=torch.int32), torch.empty(shape, dtype=torch.int32)
        given = (view.logit, stop, cdf, slate.lift, slate.examined, noise.want, noise.quantity, noise.rating)
        kernels.respond(*arrays(*given), MAX_FEEDBACK, *arrays(probability, consumed, quantity, rating))
        return Response(consumed, quantity, rating), probability

    def advance(self, cache: Tensor, position: Tensor, gap_level: Tensor, slate: Feedback) -> Tensor:
        """See ``Backend.advance``."""
        sequence = torch.zeros(len(position), self._dim)
        shown = (slate.items, slate.told, slate.consumed, slate.ignored)
        lanes = slate.active.nonzero().squeeze(1)
        kernels.advance(self._sequence, *arrays(lanes, cache, position, *shown, gap_level, sequence))
        return sequence

    def size(self, fused: Tensor, target: Tensor) -> Tensor:
        """Basket sizes int32 [B] at which survival falls to ``target``."""
        return self._sample(self._sizes, fused, target)[0]

    def gap(self, fused: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Days away int32 [B] at which survival falls to ``target``, and whether that is in the last bin, bool [B]."""
        return self._sample(self._gaps, fused, target)

    @staticmethod
    def _sample(head: Distribution, fused: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        whole = torch.empty(len(target), dtype=torch.int32)
        beyond = torch.empty(len(target), dtype=torch.bool)
        kernels.sample(head, np.arange(len(target)), *arrays(fused, target, whole, beyond))
        return whole, beyond

    def replay(self, users: Tensor, histories: Ragged, levels: Tensor, caches: Tensor, states: Tensor) -> None:
        """Writes the caches [U, L, 2, W d] and states [U, d] of ``users`` after their shipped histories."""
        tokens = histories.values
        given = (users, histories.offsets, tokens["items"], tokens["feedback"], levels, self._blank, caches, states)
        kernels.replay(self._sequence, *arrays(*given))

    def refresh(self, user: Tensor, sequence: Tensor, pace: Tensor, visit: Visit) -> tuple[Tensor, Tensor]:
        """See ``Backend.refresh``."""
        fused, query = torch.empty(len(user), self._dim), torch.empty(len(user), self._asked)
        given = (user, sequence, visit.gap_days, visit.step, visit.bought, visit.day, pace, fused, query)
        kernels.refresh(self._state, np.arange(len(user)), *arrays(*given))
        return fused, query

    def bind(
        self,
        state: PreferenceState,
        user: Tensor,
        record: Record,
        visit: Visit,
        exchange: Exchange,
        starts: Starts,
        prepare: Callable[[np.ndarray], None],
    ) -> Bound:
        """Kernels bound to the memory of lanes; see ``UserModel.bind``.

        ``prepare`` sees to it that ``starts`` holds the users of an array.
        """
        hand = Hand(
            *arrays(state.user, state.cache, state.position, state.sequence, state.fused, state.query),
            *arrays(state.pace, state.gap_level, user, record.num_trips, record.mean_log_size, record.mean_log_gap),
            *arrays(visit.gap_days, visit.step, visit.bought, visit.day, visit.intended),
        )
        shape = exchange.items.shape
        logit = np.empty(shape, np.float32)
        stop = np.empty(shape if self._quantities else (0, 0), np.float32)
        cdf = np.empty((*shape, 4) if self._ratings else (0, 0, 4), np.float32)
        told = exchange
        known = (self._heads, hand.query, told.items, told.own_counts, told.own_days, hand.pace, hand.gap_days)
        slate = (
            *(told.lift, told.examined),
            *(told.want, told.quantity_luck, told.rating_luck, MAX_FEEDBACK),
            *(told.probability, told.consumed, told.quantity, told.rating),
        )
        return Bound(
            prepare,
            hand,
            slate=(told.items, told.examined, told.consumed, told.rating if self._ratings else told.quantity),
            to_init=(self._state, starts),
            to_go=(self._gaps,),
            to_arrive=(self._state, starts, self._sizes),
            to_answer=((*known, logit, stop, cdf), slate),
            to_move=(self._sequence, self._state),
        )


@dataclass(frozen=True)
class Bound:
    """Compiled users bound to the memory of some lanes; see ``recgym.user_models.protocol.BoundUsers``."""

    prepare: Callable[[np.ndarray], None]
    hand: Hand
    slate: tuple[np.ndarray, ...]
    to_init: tuple[Any, ...]  # what each kernel is always given first
    to_go: tuple[Any, ...]
    to_arrive: tuple[Any, ...]
    to_answer: tuple[Any, ...]
    to_move: tuple[Any, ...]

    def init(self, lanes: np.ndarray) -> None:
        """See ``BoundUsers.init``."""
        self.prepare(self.hand.owner[lanes])
        kernels.init(*self.to_init, lanes, self.hand)

    def away(self, lanes: np.ndarray, luck: np.ndarray, hazard: np.ndarray, gap: np.ndarray, gone: np.ndarray) -> None:
        """See ``BoundUsers.away``."""
        kernels.away(*self.to_go, lanes, self.hand, luck, hazard, gap, gone)

    def arrive(self, lanes: np.ndarray, luck: np.ndarray) -> None:
        """See ``BoundUsers.arrive``."""
        kernels.arrive(*self.to_arrive, lanes, self.hand, luck)

    def answer(self) -> None:
        """See ``BoundUsers.answer``."""
        kernels.answer(*self.to_answer)

    def move(self, lanes: np.ndarray) -> None:
        """See ``BoundUsers.move``."""
        kernels.move(*self.to_move, lanes, *self.slate, self.hand)


def arrays(*tensors: Tensor) -> list[np.ndarray]:
    """Tensors as kernels read them; bfloat16, which numpy has not, as its bits."""
    return [(t.view(torch.uint16) if t.dtype == torch.bfloat16 else t).numpy() for t in tensors]
