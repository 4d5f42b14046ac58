"""Weights and tables as the kernels read them: packed, contiguous, numpy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from recgym.compiled.products import VECTOR, packed
from recgym.user_models.preference.cache import slot_biases
from recgym.user_models.preference.network import NUM_TIME_FEATURES, PreferenceNetwork, time_features

Floats = NDArray[np.float32]
Integers = NDArray[np.integer[Any]]


@dataclass(frozen=True)
class Tables:
    """What depends on items or users alone, computed once a world; widths d, h (head), r (repeat term)."""

    item: Tensor  # [N, h + d + r + 1]: all that the heads need of an item, so that scoring is a single gather
    interval: Tensor  # [N] days, see ``pair_features``
    token: Tensor  # [N, d]
    ignored: Tensor  # [N, d]
    static_gate: Tensor  # [U, 4 d], the part of the fusion's gates that never changes for a user
    static_parts: Tensor  # [U, 2, d], projections of graph and attributes
    query_weight: Tensor  # [h + d + r, d]
    query_bias: Tensor  # [h + d + r]
    quantities: bool  # whether the world's responses hold them
    ratings: bool


class SequenceWeights(NamedTuple):
    """Of tokens and Transformer; L layers, width d."""

    item_token: Floats  # [N, d]
    item_ignored: Floats  # [N, d]
    feedback: Floats  # [21, d]
    gap_level: Floats  # [13, d]
    size_token: Floats  # [3, d]: bias, log1p(consumed), log1p(ignored)
    norm_token: Floats  # [2, d]: weight, bias
    norms: Floats  # [L, 4, d]: weight and bias before attention, then before the feed-forward
    qkv: Floats  # [L, d + 1, 3 d], packed
    out: Floats  # [L, d + 1, d], packed
    expand: Floats  # [L, d + 1, f], packed
    contract: Floats  # [L, f + 1, d], packed
    slot_bias: Floats  # [L, 2 W, heads, W'], W' the next multiple of ``VECTOR``; minus infinity beyond W
    norm_out: Floats  # [2, d]


class StateWeights(NamedTuple):
    """Of the fused user state and what the heads need of it."""

    fuse: Floats  # [d + 9 + 1, 6 d], packed: gates of the four sources, then projections of sequence and time
    query: Floats  # [d + 1, h + d + r], packed
    static_gate: Floats  # [U, 4 d]
    static_parts: Floats  # [U, 2, d]: graph, attributes
    week: Floats  # [7, 2]: sine and cosine of the day of the week


class HeadWeights(NamedTuple):
    """Of the response heads; width h, repeat width r."""

    item_table: Floats  # [N, h + d + r + 1]
    item_interval: Floats  # [N]
    purchase: Floats  # [h]
    quantity: Floats  # [h]
    quantity_bias: np.float32
    rating: Floats  # [h]
    cuts: Floats  # [4]
    repeat_pace: Floats  # [1 + 4, r], bias first
    repeat_pair: Floats  # [6, r]
    repeat_inner: Floats  # [r + 1, r'], packed
    repeat_out: Floats  # [r]


class Starts(NamedTuple):
    """How every user stands when the log ends; valid where somebody has asked for the user."""

    caches: Floats  # [U, L, 2, W d]
    states: Floats  # [U, d]
    lengths: Integers  # [U] int64, tokens so far
    gap_levels: Integers  # [longest + 1] int64, by days


class Hand(NamedTuple):
    """The memory of some lanes: fields of ``PreferenceState``, the lanes' users, and what there is of record and visit.

    Names are those of ``PreferenceState``, ``Record`` and ``Visit``.
    """

    user: Integers
    cache: Floats
    position: Integers
    sequence: Floats
    fused: Floats
    query: Floats
    pace: Floats
    gap_level: Integers
    owner: Integers  # [B] int64, ``State.user``
    num_trips: Integers
    mean_log_size: Floats
    mean_log_gap: Floats
    gap_days: Integers
    step: Integers
    bought: Integers
    day: Integers
    intended: Integers


class Distribution(NamedTuple):
    """A fitted distribution of whole numbers by bins: a head of two layers, then bins [edges[b], edges[b + 1])."""

    first: Floats  # [d + 1, 32], packed
    last: Floats  # [32 + 1, bins], packed
    edges: Floats  # [bins + 1]


def _array(tensor: Tensor) -> Floats:
    return np.ascontiguousarray(tensor.detach().cpu().numpy())


def sequence_weights(network: PreferenceNetwork, tables: Tables) -> SequenceWeights:
    """The weights of ``network`` as ``advance`` reads them."""

    def norm(layer: torch.nn.LayerNorm) -> list[Tensor]:
        return [layer.weight, layer.bias]

    def stacked(name: str) -> Floats:
        layers = [getattr(block, name) for block in network.blocks]
        return np.stack([packed(layer.weight, layer.bias) for layer in layers])

    size = network.size_token
    norms = [torch.stack([*norm(block.norm_attention), *norm(block.norm_feedforward)]) for block in network.blocks]
    biases = torch.stack([slot_biases(block) for block in network.blocks])
    return SequenceWeights(
        item_token=_array(tables.token),
        item_ignored=_array(tables.ignored),
        feedback=_array(network.feedback.weight),
        gap_level=_array(network.gap_level.weight),
        size_token=_array(torch.cat((size.bias[None], size.weight.T))),
        norm_token=_array(torch.stack(norm(network.norm_token))),
        norms=_array(torch.stack(norms)),
        qkv=stacked("qkv"),
        out=stacked("out"),
        expand=stacked("expand"),
        contract=stacked("contract"),
        slot_bias=_array(F.pad(biases, (0, -biases.shape[-1] % VECTOR), value=-torch.inf)),
        norm_out=_array(torch.stack(norm(network.norm_out))),
    )


def state_weights(network: PreferenceNetwork, tables: Tables) -> StateWeights:
    """The weights of ``network`` as ``refresh`` reads them."""
    fusion, dim = network.fusion, network.config.dim
    nothing = torch.zeros(dim, dim), torch.zeros(dim, NUM_TIME_FEATURES)
    sequence, time = fusion.gate["sequence"], fusion.gate["time"]
    rows = (
        torch.cat((sequence.weight, time.weight), dim=1),
        torch.cat((fusion.project["sequence"].weight, nothing[1]), dim=1),
        torch.cat((nothing[0], fusion.project["time"].weight), dim=1),
    )
    biases = (sequence.bias + time.bias, fusion.project["sequence"].bias, fusion.project["time"].bias)
    days, zero = torch.arange(7.0), torch.zeros(7)
    return StateWeights(
        fuse=packed(torch.cat(rows), torch.cat(biases)),
        query=packed(tables.query_weight, tables.query_bias),
        static_gate=_array(tables.static_gate),
        static_parts=_array(tables.static_parts),
        week=_array(time_features(zero, zero, zero, zero, zero, zero, days)[:, -2:]),
    )


def head_weights(network: PreferenceNetwork, tables: Tables) -> HeadWeights:
    """The weights of ``network`` as ``appraise`` reads them."""
    return HeadWeights(
        item_table=_array(tables.item),
        item_interval=_array(tables.interval),
        purchase=_array(network.head_purchase),
        quantity=_array(network.head_quantity),
        quantity_bias=np.float32(network.quantity_bias.item()),
        rating=_array(network.head_rating),
        cuts=_array(network.rating_thresholds()),
        repeat_pace=_array(torch.cat((network.repeat_pair.bias[None], network.repeat_pace.weight.T))),
        repeat_pair=_array(network.repeat_pair.weight.T),
        repeat_inner=packed(network.repeat_inner.weight, network.repeat_inner.bias),
        repeat_out=_array(network.repeat_out),
    )


def distribution(head: torch.nn.Sequential, edges: tuple[int, ...]) -> Distribution:
    """A head of ``network`` as ``sample`` reads it."""
    first, last = cast(torch.nn.Linear, head[0]), cast(torch.nn.Linear, head[2])
    return Distribution(packed(first.weight, first.bias), packed(last.weight, last.bias), np.array(edges, np.float32))
