"""Simulated users whose wants come from the fitted preference network, updated incrementally."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import Any, ClassVar, cast

import numpy as np
import torch
from torch import Tensor

from recgym import compiled
from recgym.errors import WorldError
from recgym.types import Appraisal, Noise, Record, Response, Slate, TensorRecord, Visit
from recgym.user_models.preference.attributes import attribute_columns, item_statistics, item_trends
from recgym.user_models.preference.backends import Backend, CompiledBackend, Feedback, TorchBackend, arrays
from recgym.user_models.preference.cache import prefill
from recgym.user_models.preference.config import NetworkConfig
from recgym.user_models.preference.kernels.weights import Starts, Tables
from recgym.user_models.preference.network import (
    GAP_EDGES,
    GAP_LEVELS,
    MAX_FEEDBACK,
    SIZE_BINS,
    PreferenceNetwork,
    gap_levels,
    item_features,
)
from recgym.user_models.preference.numerics import linear, silu
from recgym.user_models.protocol import BoundUsers, Exchange, overridden
from recgym.worlds.world import World

PREFILL_CHUNK = 64  # users whose starting caches are computed together, always the same ones: see ``_start``


@dataclass(frozen=True)
class PreferenceState(TensorRecord):
    """Hidden state of simulated users; L layers, window W, width d, head width h."""

    user: Tensor  # [B] int64 user row
    cache: Tensor  # [B, L, 2, W d] keys and values of the last W tokens: see ``cache.py``
    position: Tensor  # [B] int64 tokens so far
    sequence: Tensor  # [B, d] sequence state
    fused: Tensor  # [B, d] x, the fused user state
    query: Tensor  # [B, h + d + r] what the heads need of x: U x + b, M x and the repeat term's user part
    pace: Tensor  # [B, 3] trips so far, mean log size, mean log gap, as of the start of the trip
    gap_level: Tensor  # [B] int64 gap level of the next token: 0 within a trip


class PreferenceUsers:
    """The default user model: text Transformer, sequence Transformer and GCN, fitted by ``recgym world build``."""

    cache_dtype: ClassVar[torch.dtype] = torch.float32

    def __init__(self, world: World, device: str | torch.device = "cpu") -> None:
        self.world = world
        self.device = torch.device(device)
        config = NetworkConfig.model_validate(world.spec.config["model"]["network"])
        attributes = attribute_columns(world.users, world.spec.attributes)
        with torch.device("meta"):  # no storage, and no draw from the global generator, for weights that come next
            network = PreferenceNetwork(config, attributes.shape[1])
        try:
            network.load_state_dict({name: value.clone() for name, value in world.weights.items()}, assign=True)
        except RuntimeError as error:
            raise WorldError(f"{world.path / 'model.safetensors'} does not fit its configuration: {error}") from error
        self.network = network.eval().requires_grad_(False).to(self.device)
        self.config = config
        with torch.inference_mode(False), torch.no_grad():
            self._prepare(attributes.to(self.device))

    def _prepare(self, attributes: Tensor) -> None:
        """Everything that depends on items or users alone is computed here, once."""
        net, world = self.network, self.world
        vectors = world.item_tensors["vectors"].to(self.device)  # y, [N, d]
        graph = world.user_tensors["graph"].float().to(self.device)
        fusion = net.fusion
        self.item_vectors = vectors
        self.item_statistics = item_statistics(world.items).to(self.device)
        no_bias = torch.zeros_like(net.repeat_user.weight[:, 0])
        known = item_features(self.item_statistics, item_trends(world.items).to(self.device))
        repeat = net.repeat_item(vectors) + net.repeat_known(known)
        tables = Tables(
            item=torch.cat((net.head_item(vectors), vectors, repeat, net.item_bias(vectors)), dim=1),
            interval=self.item_statistics[:, 0].contiguous(),
            token=net.item_token(vectors),
            ignored=net.item_ignored(vectors),
            static_gate=fusion.gate["graph"](graph) + fusion.gate["attributes"](attributes),
            static_parts=torch.stack((fusion.project["graph"](graph), fusion.project["attributes"](attributes)), 1),
            query_weight=torch.cat((net.head_user.weight, net.match.weight, net.repeat_user.weight)),
            query_bias=torch.cat((net.head_user.bias, net.match.bias, no_bias)),
            quantities="quantity" in world.spec.responses,
            ratings="rating" in world.spec.responses,
        )
        self._rated = tables.ratings
        self._torch = TorchBackend(net, tables)
        self._compiled = CompiledBackend(net, tables) if self.device.type == "cpu" else None
        self._lengths = world.tokens.offsets.diff().to(self.device)  # [U] tokens of each shipped history
        size = (world.num_users, self.config.layers, 2, self.config.window * self.config.dim)
        self._caches = torch.empty(
            size, dtype=self.cache_dtype, device=self.device
        )  # pages are touched only for chunks that are needed
        self._states = torch.empty((world.num_users, self.config.dim), device=self.device)
        self._gap_levels = gap_levels(torch.arange(GAP_LEVELS[-1] + 1))  # by days
        self._filling = threading.Lock()
        self._ready = torch.zeros(world.num_users, dtype=torch.bool, device=self.device)

    @property
    def _backend(self) -> Backend:
        return self._torch if self._compiled is None or not compiled.enabled() else self._compiled

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickles as what it was made of: tables, kernels and caches are computed again."""
        return type(self), (self.world, str(self.device))

    # ------------------------------------------------------------------ protocol

    def init(self, users: Tensor, record: Record, visit: Visit) -> PreferenceState:
        """See ``UserModel.init``."""
        sequence = self.starting_states(users)
        state = PreferenceState(
            user=users,
            cache=self._caches[users],
            position=self._lengths[users],
            sequence=sequence,
            fused=sequence,
            query=sequence,
            pace=_pace(record),
            gap_level=gap_levels(visit.gap_days),
        )
        return self._refresh(state, visit)

    def appraise(
        self, state: PreferenceState, items: Tensor, own_counts: Tensor, own_days: Tensor, visit: Visit
    ) -> Appraisal:
        """See ``UserModel.appraise``."""
        return self._backend.appraise(state.query, items, own_counts, own_days, state.pace, visit)

    def respond(self, state: PreferenceState, slate: Slate, visit: Visit, noise: Noise) -> tuple[Response, Tensor]:
        """See ``UserModel.respond``."""
        view = self.appraise(state, slate.items, slate.own_counts, slate.own_days, visit)
        return self.answer(view, slate, noise)

    def answer(self, view: Appraisal, slate: Slate, noise: Noise) -> tuple[Response, Tensor]:
        """What users who see the slate as ``view`` says answer; see ``UserModel.respond``."""
        return self._backend.respond(view, slate, noise)

    def transition(self, state: PreferenceState, slate: Slate, response: Response, visit: Visit) -> PreferenceState:
        """See ``UserModel.transition``; the cache of ``state`` is reused. ``visit`` counts this slate already."""
        consumed = response.consumed
        feedback = (response.rating if self._rated else response.quantity).clamp(0, MAX_FEEDBACK).long()
        ignored = slate.examined & ~consumed
        shown = Feedback(slate.items, feedback, consumed, ignored, slate.active)
        sequence = self._backend.advance(state.cache, state.position, state.gap_level, shown)
        moved = replace(
            state, position=state.position + 1, sequence=sequence, gap_level=torch.zeros_like(state.gap_level)
        )
        return self._refresh(moved, visit)

    def bind(
        self, state: PreferenceState, user: Tensor, record: Record, visit: Visit, exchange: Exchange
    ) -> BoundUsers:
        """See ``BindingUserModel.bind``."""
        assert self._compiled is not None  # noqa: S101 - only asked for on a CPU
        starts = Starts(*arrays(self._caches, self._states, self._lengths, self._gap_levels))
        return self._compiled.bind(state, user, record, visit, exchange, starts, self._start_rows)

    def intend(self, state: PreferenceState, uniforms: Tensor) -> Tensor:
        """See ``UserModel.intend``: the fitted distribution of basket sizes, by inversion."""
        own = overridden(self, PreferenceUsers, "size_survival", "size_of")
        if compiled.runs_on(uniforms) and self._compiled is not None and not own:
            return self._compiled.size(state.fused, 1 - uniforms)
        return self.size_of(self.size_survival(state), uniforms)

    def away(self, state: PreferenceState, record: Record, uniforms: Tensor, hazard: Tensor) -> tuple[Tensor, Tensor]:
        """See ``UserModel.away``: the fitted gaps with their hazard multiplied; the last bin never returns."""
        own = overridden(self, PreferenceUsers, "gap_survival", "gap_of")
        if compiled.runs_on(uniforms) and self._compiled is not None and not own:
            return self._compiled.gap(state.fused, _gap_target(uniforms, hazard))
        return self.gap_of(self.gap_survival(state), uniforms, hazard)

    def arrive(self, state: PreferenceState, record: Record, visit: Visit) -> PreferenceState:
        """See ``UserModel.arrive``."""
        return self._refresh(replace(state, pace=_pace(record), gap_level=gap_levels(visit.gap_days)), visit)

    # ------------------------------------------------------------------ fitted distributions

    def size_survival(self, state: PreferenceState) -> Tensor:
        """P(size bin > b) for each bin of SIZE_BINS, [B, bins]."""
        return _survival(self._small_head(self.network.size_head, state.fused))

    def gap_survival(self, state: PreferenceState) -> Tensor:
        """P(gap bin > b) for each bin of GAP_BINS, [B, bins]."""
        return _survival(self._small_head(self.network.gap_head, state.fused))

    @staticmethod
    def size_of(survival: Tensor, uniforms: Tensor) -> Tensor:
        """Basket sizes int32 [B] drawn, by inversion, from the survival [B, bins] of ``size_survival``."""
        return _invert(survival, SIZE_BINS, 1 - uniforms)

    @staticmethod
    def gap_of(survival: Tensor, uniforms: Tensor, hazard: Tensor) -> tuple[Tensor, Tensor]:
        """Days away int32 [B] and whether for good, from the survival [B, bins] of ``gap_survival``."""
        target = _gap_target(uniforms, hazard)
        return _invert(survival, GAP_EDGES, target), survival[:, -2] > target

    def starting_states(self, users: Tensor) -> Tensor:
        """Sequence states [B, d] of ``users`` (int64 [B] rows) where their shipped histories end."""
        self._start(users)
        return self._states[users]

    # ------------------------------------------------------------------ internals

    @staticmethod
    def _small_head(head: torch.nn.Sequential, fused: Tensor) -> Tensor:
        first, last = cast(torch.nn.Linear, head[0]), cast(torch.nn.Linear, head[2])
        return linear(silu(linear(fused, first.weight, first.bias)), last.weight, last.bias)

    def _refresh(self, state: PreferenceState, visit: Visit) -> PreferenceState:
        fused, query = self._backend.refresh(state.user, state.sequence, state.pace, visit)
        return replace(state, fused=fused, query=query)

    def _start(self, users: Tensor) -> None:
        """Computes the starting caches and states of ``users`` where they are not there yet."""
        if not bool(self._ready[users].all()):
            with self._filling:  # another thread may have filled some meanwhile, and read them by now
                missing = users[~self._ready[users]].unique()
                own = overridden(self, PreferenceUsers, "history_tokens")
                (self._replay if self._backend is self._compiled and not own else self._prefill)(missing)

    def _start_rows(self, rows: np.ndarray) -> None:
        ready = self._ready.numpy()
        if not ready[rows].all():
            with self._filling:  # see ``_start``
                missing = rows[~ready[rows]]
                self._replay(torch.from_numpy(missing if len(missing) == 1 else np.unique(missing)))

    def _replay(self, users: Tensor) -> None:
        """User by user, by the kernels of the simulation."""
        assert self._compiled is not None  # noqa: S101 - the caller has checked
        self._compiled.replay(users, self.world.tokens, self._levels, self._caches, self._states)
        self._ready[users] = True

    def _prefill(self, users: Tensor) -> None:
        """All tokens at once, in fixed chunks: a user's cache is bitwise the same whoever else is asked for."""
        for chunk in torch.unique(users // PREFILL_CHUNK).tolist():
            start = chunk * PREFILL_CHUNK
            rows = torch.arange(start, min(start + PREFILL_CHUNK, self.world.num_users), device=self.device)
            tokens, lengths = self.history_tokens(rows.cpu())
            caches, states = prefill(self.network, tokens, lengths)
            missing = ~self._ready[rows]  # what is ready may be read meanwhile
            rows = rows[missing]
            self._caches[rows], self._states[rows] = caches[missing].to(self._caches.dtype), states[missing]
            self._ready[rows] = True

    @cached_property
    def _levels(self) -> Tensor:
        """Gap levels of all shipped tokens, int64 [T]."""
        return _token_levels(self.world.tokens.values["gap"])

    def history_tokens(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Token inputs [n, T, d] of the users' shipped histories, right-padded, and their lengths [n]."""
        net, histories = self.network, self.world.tokens
        lengths = self._lengths.cpu()[rows]
        width = max(int(self._lengths.max()) if len(rows) else 1, 1)
        padded = histories.padded(rows, width, fill={"items": -1})
        items = padded["items"].long().to(self.device)
        pooled, count = net.pool(self.item_vectors, items, padded["feedback"].long().to(self.device))
        level = _token_levels(padded["gap"]).to(self.device)
        nothing = torch.zeros_like(pooled)
        return net.token(pooled, nothing, count, torch.zeros_like(count), level), lengths.to(self.device)


class CompactPreferenceUsers(PreferenceUsers):
    """``preference_bfloat16``: keys and values of the sequence Transformer are kept as bfloat16, in half the memory.

    Users then answer a little differently: ``benchmarks/bfloat16.py`` measures how much, and how much faster.
    """

    cache_dtype = torch.bfloat16


def _token_levels(gaps: Tensor) -> Tensor:
    """Gap levels int64 of shipped tokens, whose gap in days is -1 within a trip."""
    gaps = gaps.long()
    return torch.where(gaps < 0, 0, gap_levels(gaps.clamp(min=0)))


def _pace(record: Record) -> Tensor:
    return torch.stack((record.num_trips.float(), record.mean_log_size, record.mean_log_gap), dim=-1)


def _gap_target(uniforms: Tensor, hazard: Tensor) -> Tensor:
    """The survival at which users return: (1 - u) ** (1 / hazard), the same in any batch."""
    return torch.exp(torch.log1p(-uniforms) / hazard)


def _survival(logits: Tensor) -> Tensor:
    """Survival after each bin from bin logits [B, bins]; the last is 0 up to rounding."""
    return (1 - logits.softmax(-1).cumsum(-1)).clamp(min=0)


def _invert(survival: Tensor, edges: tuple[int, ...], target: Tensor) -> Tensor:
    """The whole number whose survival first falls to ``target`` [B]; bin b is [edges[b], edges[b + 1])."""
    bin_index = (survival > target[:, None]).sum(-1, keepdim=True).clamp(max=survival.shape[1] - 1)
    after = survival.gather(1, bin_index)[:, 0]
    before = torch.cat((torch.ones_like(survival[:, :1]), survival), dim=1).gather(1, bin_index)[:, 0]
    fraction = ((before - target) / (before - after).clamp(min=1e-9)).clamp(0, 1 - 1e-6)
    bounds = _bounds(edges, survival.device)
    low, high = bounds[bin_index[:, 0]], bounds[bin_index[:, 0] + 1]
    return (low + (fraction * (high - low)).floor()).to(torch.int32)


@cache
def _bounds(edges: tuple[int, ...], device: torch.device) -> Tensor:
    """Edges as float32, uploaded once."""
    return torch.tensor(edges, dtype=torch.float32, device=device)
