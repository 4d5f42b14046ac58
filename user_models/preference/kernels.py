"""Compiled CPU kernels of the preference model: appraisal, the next token of the sequence Transformer, the user state.

Each computes what its torch twin in ``users.py`` and ``cache.py`` does, a lane at a time, with its temporary values in
the nearest cache; products take ``BLOCK`` lanes at a time (``recgym.compiled.products``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recgym.compiled.arithmetic import exp, kernel, log, log1p, prefetch, prefetch_row, sigmoid, summing_kernel
from recgym.compiled.products import BLOCK, affine, packed
from recgym.user_models.preference.cache import slot_biases
from recgym.user_models.preference.network import (
    MAX_FEEDBACK,
    NUM_REPEAT_FEATURES,
    NUM_TIME_FEATURES,
    PreferenceNetwork,
    time_features,
)

if TYPE_CHECKING:
    from recgym.user_models.preference.backends import Tables

Floats = NDArray[np.float32]
_F = np.float32
_FEW = 32  # items whose rows fit into the nearest caches while they are waited for
_SOURCES = 4  # of the user state: sequence, graph, attributes, time


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
    slot_bias: Floats  # [L, 2 W, heads, W]
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
    item_statistics: Floats  # [N, 2]
    purchase: Floats  # [h]
    quantity: Floats  # [h]
    quantity_bias: np.float32
    rating: Floats  # [h]
    cuts: Floats  # [4]
    repeat_features: Floats  # [12, r]
    repeat_bias: Floats  # [r]
    repeat_out: Floats  # [r]


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
        slot_bias=_array(torch.stack([slot_biases(block) for block in network.blocks])),
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
        item_statistics=_array(tables.statistics),
        purchase=_array(network.head_purchase),
        quantity=_array(network.head_quantity),
        quantity_bias=np.float32(network.quantity_bias.item()),
        rating=_array(network.head_rating),
        cuts=_array(network.rating_thresholds()),
        repeat_features=_array(network.repeat_features.weight.T),
        repeat_bias=_array(network.repeat_features.bias),
        repeat_out=_array(network.repeat_out),
    )


def distribution(head: torch.nn.Sequential, edges: tuple[int, ...]) -> Distribution:
    """A head of ``network`` as ``sample`` reads it."""
    first, last = cast(torch.nn.Linear, head[0]), cast(torch.nn.Linear, head[2])
    return Distribution(packed(first.weight, first.bias), packed(last.weight, last.bias), np.array(edges, np.float32))


@summing_kernel
def _normalise(x: Any, weights: Any, first: int, out: Any) -> None:
    """Layer normalisation of one row; ``weights`` holds weight and bias in rows ``first`` and ``first + 1``."""
    width = x.shape[0]
    mean, square = _F(0.0), _F(0.0)
    for i in range(width):
        mean += x[i]
    mean /= _F(width)
    for i in range(width):
        square += (x[i] - mean) * (x[i] - mean)
    scale = _F(1.0) / np.sqrt(square / _F(width) + _F(1e-5))
    for i in range(width):
        out[i] = (x[i] - mean) * scale * weights[first, i] + weights[first + 1, i]


@kernel
def _gelu(x: np.float32) -> np.float32:
    """X * Phi(x), the error function to 2e-7 (Abramowitz and Stegun, 7.1.26)."""
    z = abs(x) * _F(0.70710678)
    t = _F(1.0) / (_F(1.0) + _F(0.3275911) * z)
    p = _F(1.061405429)
    p = p * t + _F(-1.453152027)
    p = p * t + _F(1.421413741)
    p = p * t + _F(-0.284496736)
    p = p * t + _F(0.254829592)
    tail = _F(0.5) * p * t * exp(-z * z)  # P(normal > |x|)
    return x * tail if x < _F(0.0) else x - x * tail


@summing_kernel
def _attend(keys: Any, values: Any, position: int, qkv: Any, bias: Any, scores: Any, out: Any, ahead: Any) -> None:
    """One token's attention over the ring [W, d] of its lane, which it joins.

    ``ahead`` [2, W, d] is the ring that comes next: it is asked for meanwhile, since most of the time would otherwise
    be spent waiting for it.
    """
    window, dim = keys.shape
    heads = bias.shape[1]
    width = dim // heads
    scale = _F(1.0) / np.sqrt(_F(width))
    slot = position % window
    row = position if position < window else window + slot
    for i in range(dim):
        keys[slot, i] = qkv[dim + i]
        values[slot, i] = qkv[2 * dim + i]
    for head in range(heads):
        first = head * width
        for place in range(window):
            for line in range(0, width, 16):
                prefetch(ahead, place * dim + first + line)
                prefetch(ahead, (window + place) * dim + first + line)
            product = _F(0.0)
            for i in range(width):
                product += qkv[first + i] * keys[place, first + i]
            scores[place] = product * scale + bias[row, head, place]
        highest = scores[0]
        for place in range(1, window):
            highest = max(highest, scores[place])
        for place in range(window):
            scores[place] = exp(scores[place] - highest)
        mass = _F(0.0)
        for place in range(window):
            mass += scores[place]
        for i in range(width):
            out[first + i] = _F(0.0)
        for place in range(window):
            share = scores[place] / mass
            for i in range(width):
                out[first + i] += share * values[place, first + i]


@summing_kernel
def _token(
    weights: Any, items: Any, feedback: Any, consumed: Any, ignored: Any, level: int, raw: Any, out: Any
) -> None:
    """The input token of one lane: what ``PreferenceUsers.transition`` pools, then ``PreferenceNetwork.token``."""
    dim = raw.shape[0]
    bought, passed = _F(0.0), _F(0.0)
    for slot in range(items.shape[0]):
        bought += _F(consumed[slot])
        passed += _F(ignored[slot])
    bought_scale = _F(1.0) / np.sqrt(max(bought, _F(1.0)))
    passed_scale = _F(1.0) / np.sqrt(max(passed, _F(1.0)))
    bought_size, passed_size = log1p(bought), log1p(passed)
    size, gap = weights.size_token, weights.gap_level
    for i in range(dim):
        raw[i] = size[0, i] + bought_size * size[1, i] + passed_size * size[2, i] + gap[level, i]
    for slot in range(items.shape[0]):
        item = items[slot]
        if consumed[slot]:
            told = feedback[slot]
            for i in range(dim):
                raw[i] += (weights.item_token[item, i] + weights.feedback[told, i]) * bought_scale
        elif ignored[slot]:
            for i in range(dim):
                raw[i] += weights.item_ignored[item, i] * passed_scale
    _normalise(raw, weights.norm_token, 0, out)


@summing_kernel
def _residual(x: Any, added: Any, norms: Any, first: int, rows: int, normed: Any) -> None:
    """Adds the first ``rows`` of ``added`` to ``x`` and normalises the sums."""
    for r in range(rows):
        for i in range(x.shape[1]):
            x[r, i] += added[r, i]
        _normalise(x[r], norms, first, normed[r])


@kernel
def _activate(wide: Any, rows: int, active: Any) -> None:
    for r in range(rows):
        for i in range(active.shape[1]):
            active[r, i] = _gelu(wide[r, i])


@summing_kernel
def advance(
    weights: Any,
    active: Any,
    cache: Any,
    position: Any,
    items: Any,
    feedback: Any,
    consumed: Any,
    ignored: Any,
    level: Any,
    sequence: Any,
) -> None:
    """The sequence state of ``active`` lanes after a slate, float32 [B, d]; ``cache`` [B, L, 2, W, d] in place."""
    order = np.flatnonzero(active)
    _, layers, _, window, dim = cache.shape
    x = np.empty((BLOCK, dim), np.float32)
    normed = np.empty((BLOCK, dim), np.float32)
    attended = np.empty((BLOCK, dim), np.float32)
    qkv = np.empty((BLOCK, weights.qkv.shape[2]), np.float32)
    wide = np.empty((BLOCK, weights.expand.shape[2]), np.float32)
    inner = np.empty((BLOCK, weights.contract.shape[1] - 1), np.float32)
    added = np.empty((BLOCK, weights.out.shape[2]), np.float32)
    scores = np.empty(window, np.float32)
    for start in range(0, order.shape[0], BLOCK):
        rows = min(BLOCK, order.shape[0] - start)
        for r in range(rows):
            lane = order[start + r]
            _token(weights, items[lane], feedback[lane], consumed[lane], ignored[lane], level[lane], normed[r], x[r])
            _normalise(x[r], weights.norms[0], 0, normed[r])
        for layer in range(layers):
            affine(normed, rows, weights.qkv[layer], qkv)
            for r in range(rows):
                lane = order[start + r]
                ring, bias = cache[lane, layer], weights.slot_bias[layer]
                if r + 1 < rows:
                    ahead = cache[order[start + r + 1], layer]
                elif layer + 1 < layers:
                    ahead = cache[order[start], layer + 1]
                else:
                    ahead = cache[order[min(start + BLOCK, order.shape[0] - 1)], 0]
                _attend(ring[0], ring[1], position[lane], qkv[r], bias, scores, attended[r], ahead)
            affine(attended, rows, weights.out[layer], added)
            _residual(x, added, weights.norms[layer], 2, rows, normed)
            affine(normed, rows, weights.expand[layer], wide)
            _activate(wide, rows, inner)
            affine(inner, rows, weights.contract[layer], added)
            following = weights.norms[layer + 1] if layer + 1 < layers else weights.norm_out
            _residual(x, added, following, 0, rows, normed)
        for r in range(rows):
            sequence[order[start + r]] = normed[r]


@summing_kernel
def replay(
    weights: Any,
    users: Any,
    offsets: Any,
    items: Any,
    feedback: Any,
    level: Any,
    blank: Any,
    caches: Any,
    states: Any,
) -> None:
    """Starting caches [U, L, 2, W, d] and states [U, d] of ``users`` after their histories, all tokens a layer at once.

    Token t of a user stands in row ``offsets[user] + t`` of items [T, G] (-1 pads), feedback [T, G] and level [T];
    ``blank`` [d] is the state of a user without history.
    """
    _, layers, _, window, dim = caches.shape
    longest = 1
    for user in users:
        longest = max(longest, offsets[user + 1] - offsets[user])
    x = np.empty((longest, dim), np.float32)
    normed = np.empty((longest, dim), np.float32)
    attended = np.empty((longest, dim), np.float32)
    qkv = np.empty((longest, weights.qkv.shape[2]), np.float32)
    wide = np.empty((longest, weights.expand.shape[2]), np.float32)
    inner = np.empty((longest, weights.contract.shape[1] - 1), np.float32)
    added = np.empty((longest, weights.out.shape[2]), np.float32)
    scores = np.empty(window, np.float32)
    group = items.shape[1]
    consumed, nothing = np.empty(group, np.bool_), np.zeros(group, np.bool_)
    for user in users:
        first, tokens = offsets[user], offsets[user + 1] - offsets[user]
        caches[user] = _F(0.0)
        for t in range(tokens):
            for slot in range(group):
                consumed[slot] = items[first + t, slot] >= 0
            _token(weights, items[first + t], feedback[first + t], consumed, nothing, level[first + t], normed[t], x[t])
            _normalise(x[t], weights.norms[0], 0, normed[t])
        for layer in range(layers):
            ring, bias = caches[user, layer], weights.slot_bias[layer]
            affine(normed, tokens, weights.qkv[layer], qkv)
            for t in range(tokens):
                _attend(ring[0], ring[1], t, qkv[t], bias, scores, attended[t], ring)
            affine(attended, tokens, weights.out[layer], added)
            _residual(x, added, weights.norms[layer], 2, tokens, normed)
            affine(normed, tokens, weights.expand[layer], wide)
            _activate(wide, tokens, inner)
            affine(inner, tokens, weights.contract[layer], added)
            following = weights.norms[layer + 1] if layer + 1 < layers else weights.norm_out
            _residual(x, added, following, 0, tokens, normed)
        states[user] = normed[tokens - 1] if tokens > 0 else blank


@summing_kernel
def refresh(
    weights: Any,
    user: Any,
    sequence: Any,
    gap_days: Any,
    step: Any,
    bought: Any,
    day: Any,
    pace: Any,
    fused: Any,
    query: Any,
) -> None:
    """``PreferenceUsers._refresh``: the fused user state float32 [B, d] and what the heads need of it [B, q]."""
    lanes, dim = sequence.shape
    source = np.empty((BLOCK, weights.fuse.shape[0] - 1), np.float32)
    told = np.empty((BLOCK, weights.fuse.shape[1]), np.float32)
    state = np.empty((BLOCK, dim), np.float32)
    asked = np.empty((BLOCK, weights.query.shape[1]), np.float32)
    for start in range(0, lanes, BLOCK):
        rows = min(BLOCK, lanes - start)
        for r in range(rows):
            lane = start + r
            prefetch_row(weights.static_gate[user[lane]])
            for i in range(dim):
                source[r, i] = sequence[lane, i]
            gap = log1p(_F(gap_days[lane]))
            weekday = day[lane] % 7
            source[r, dim] = gap * _F(0.5)
            source[r, dim + 1] = _F(1.0) if step[lane] > 0 else _F(0.0)
            source[r, dim + 2] = log1p(_F(bought[lane])) * _F(0.5)
            source[r, dim + 3] = log1p(pace[lane, 0]) * _F(0.2)
            source[r, dim + 4] = pace[lane, 1] * _F(0.5)
            source[r, dim + 5] = pace[lane, 2] * _F(0.5)
            source[r, dim + 6] = gap - pace[lane, 2]
            source[r, dim + 7] = weights.week[weekday, 0]
            source[r, dim + 8] = weights.week[weekday, 1]
        affine(source, rows, weights.fuse, told)
        for r in range(rows):
            lane = start + r
            static_gate, parts = weights.static_gate[user[lane]], weights.static_parts[user[lane]]
            for i in range(dim):
                of_sequence = sigmoid(static_gate[i] + told[r, i]) * told[r, _SOURCES * dim + i]
                of_graph = sigmoid(static_gate[dim + i] + told[r, dim + i]) * parts[0, i]
                of_attributes = sigmoid(static_gate[2 * dim + i] + told[r, 2 * dim + i]) * parts[1, i]
                of_time = sigmoid(static_gate[3 * dim + i] + told[r, 3 * dim + i]) * told[r, (_SOURCES + 1) * dim + i]
                state[r, i] = of_sequence + of_graph + of_attributes + of_time
                fused[lane, i] = state[r, i]
        affine(state, rows, weights.query, asked)
        for r in range(rows):
            for i in range(query.shape[1]):
                query[start + r, i] = asked[r, i]


@summing_kernel
def _repeat_term(
    weights: Any, item: int, count: np.float32, days: np.float32, pace: Any, gap: np.float32, user: Any, inner: Any
) -> np.float32:
    """The repeat term of an item bought ``count`` times before, by ``repeat_features``; ``user`` is the user's part."""
    width = inner.shape[0]
    table = weights.item_table[item]
    place = table.shape[0] - 1 - width
    interval, popularity = weights.item_statistics[item, 0], weights.item_statistics[item, 1]
    trips = pace[0]
    since = days * exp(-pace[2])
    frequency = count / max(trips, _F(1.0))
    features = (
        log1p(count),
        np.sqrt(min(frequency, _F(1.0))),
        log1p(days) * _F(0.5),
        log1p(days / interval),
        log1p(since),
        log1p(since * frequency),
        log1p(interval) * _F(0.5),
        log1p(trips) * _F(0.2),
        pace[1] * _F(0.5),
        pace[2] * _F(0.5),
        log1p(gap) * _F(0.5),
        popularity * _F(0.2),
    )
    for i in range(width):
        inner[i] = weights.repeat_bias[i] + user[i] + table[place + i]
    for feature in range(NUM_REPEAT_FEATURES):
        value = features[feature]
        for i in range(width):
            inner[i] += value * weights.repeat_features[feature, i]
    result = _F(0.0)
    for i in range(width):
        result += inner[i] * sigmoid(inner[i]) * weights.repeat_out[i]
    return result


@summing_kernel
def appraise(
    weights: Any,
    query: Any,
    items: Any,
    own_counts: Any,
    own_days: Any,
    pace: Any,
    gap_days: Any,
    logit: Any,
    stop: Any,
    cdf: Any,
) -> None:
    """``PreferenceUsers.appraise``: logit [B, C]; stop [B, C] and cdf [B, C, 4] unless they are empty."""
    hidden, width = weights.purchase.shape[0], weights.repeat_out.shape[0]
    dim = weights.item_table.shape[1] - hidden - width - 1
    wide = np.empty(hidden, np.float32)
    inner = np.empty(width, np.float32)
    quantities, ratings = stop.size > 0, cdf.size > 0
    lanes = items.shape[0]
    for lane in range(lanes):
        if lane + 1 < lanes and items.shape[1] <= _FEW:
            for slot in range(items.shape[1]):
                prefetch_row(weights.item_table[items[lane + 1, slot]])
        asked = query[lane]
        for slot in range(items.shape[1]):
            item = items[lane, slot]
            table = weights.item_table[item]
            value = table[hidden + dim + width]
            for i in range(hidden):
                inside = asked[i] + table[i]
                wide[i] = inside * sigmoid(inside)
            for i in range(hidden):
                value += wide[i] * weights.purchase[i]
            for i in range(dim):
                value += asked[hidden + i] * table[hidden + i]
            if own_counts[lane, slot] > _F(0.0):
                value += _repeat_term(
                    weights,
                    item,
                    own_counts[lane, slot],
                    own_days[lane, slot],
                    pace[lane],
                    _F(gap_days[lane]),
                    asked[hidden + dim :],
                    inner,
                )
            logit[lane, slot] = value
            if quantities:
                inside = weights.quantity_bias
                for i in range(hidden):
                    inside += wide[i] * weights.quantity[i]
                stop[lane, slot] = sigmoid(inside)
            if ratings:
                inside = _F(0.0)
                for i in range(hidden):
                    inside += wide[i] * weights.rating[i]
                for cut in range(4):
                    cdf[lane, slot, cut] = sigmoid(weights.cuts[cut] - inside)


@kernel
def respond(
    logit: Any,
    stop: Any,
    cdf: Any,
    lift: Any,
    examined: Any,
    want: Any,
    quantity_luck: Any,
    rating_luck: Any,
    most: int,
    probability: Any,
    consumed: Any,
    quantity: Any,
    rating: Any,
) -> None:
    """``PreferenceUsers.respond`` from an appraisal; at most ``most`` units."""
    for lane in range(logit.shape[0]):
        for slot in range(logit.shape[1]):
            chance = sigmoid(logit[lane, slot] + lift[lane, slot])
            bought = examined[lane, slot] and want[lane, slot] < chance
            probability[lane, slot] = chance
            consumed[lane, slot] = bought
            units, stars = np.int32(bought), np.int32(0)
            if bought and stop.size > 0:
                ratio = log(quantity_luck[lane, slot]) / log1p(-min(stop[lane, slot], _F(0.9999)))
                units = np.int32(1 + min(max(np.floor(ratio), _F(0.0)), _F(most - 1)))
            if bought and cdf.size > 0:
                stars = np.int32(1)
                for cut in range(4):
                    stars += np.int32(rating_luck[lane, slot] > cdf[lane, slot, cut])
            quantity[lane, slot] = units
            rating[lane, slot] = stars


@kernel
def sample(head: Any, fused: Any, target: Any, whole: Any, beyond: Any) -> None:
    """``users._invert`` of the head's survival function, int32 [B]; and whether the target lies in the last bin."""
    bins, inner_size = head.edges.shape[0] - 1, head.last.shape[0] - 1
    wide = np.empty((1, head.first.shape[1]), np.float32)
    inner = np.empty((1, inner_size), np.float32)
    logits = np.empty((1, head.last.shape[1]), np.float32)
    for lane in range(fused.shape[0]):
        affine(fused[lane : lane + 1], 1, head.first, wide)
        for i in range(inner_size):
            inner[0, i] = wide[0, i] * sigmoid(wide[0, i])
        affine(inner, 1, head.last, logits)
        highest = logits[0, 0]
        for b in range(1, bins):
            highest = max(highest, logits[0, b])
        mass = _F(0.0)
        for b in range(bins):
            logits[0, b] = exp(logits[0, b] - highest)
            mass += logits[0, b]
        before, after, below = _F(1.0), _F(1.0), _F(0.0)
        place = bins - 1
        beyond[lane] = True
        for b in range(bins):
            below += logits[0, b] / mass
            before, after = after, max(_F(1.0) - below, _F(0.0))
            if after <= target[lane]:
                place = b
                beyond[lane] = b == bins - 1
                break
        fraction = (before - target[lane]) / max(before - after, _F(1e-9))
        fraction = min(max(fraction, _F(0.0)), _F(1.0 - 1e-6))
        low, high = head.edges[place], head.edges[place + 1]
        whole[lane] = np.int32(low + np.floor(fraction * (high - low)))


@kernel
def answer(
    weights: Any,
    query: Any,
    items: Any,
    own_counts: Any,
    own_days: Any,
    pace: Any,
    gap_days: Any,
    logit: Any,
    stop: Any,
    cdf: Any,
    lift: Any,
    examined: Any,
    want: Any,
    quantity_luck: Any,
    rating_luck: Any,
    most: int,
    probability: Any,
    consumed: Any,
    quantity: Any,
    rating: Any,
) -> None:
    """``appraise``, then ``respond``."""
    appraise(weights, query, items, own_counts, own_days, pace, gap_days, logit, stop, cdf)
    respond(
        logit,
        stop,
        cdf,
        lift,
        examined,
        want,
        quantity_luck,
        rating_luck,
        most,
        probability,
        consumed,
        quantity,
        rating,
    )


@kernel
def move(
    sequence_weights: Any,
    state_weights: Any,
    active: Any,
    items: Any,
    examined: Any,
    consumed: Any,
    told: Any,
    cache: Any,
    position: Any,
    gap_level: Any,
    user: Any,
    pace: Any,
    gap_days: Any,
    step: Any,
    bought: Any,
    day: Any,
    sequence: Any,
    fused: Any,
    query: Any,
) -> None:
    """``PreferenceUsers.transition`` in place: ``advance``, then ``refresh``; ``told`` int32 [B, K] is the feedback."""
    feedback = np.empty(items.shape, np.int64)
    ignored = np.empty(items.shape, np.bool_)
    for lane in range(items.shape[0]):
        for slot in range(items.shape[1]):
            feedback[lane, slot] = min(max(told[lane, slot], 0), MAX_FEEDBACK)
            ignored[lane, slot] = examined[lane, slot] and not consumed[lane, slot]
    advance(sequence_weights, active, cache, position, items, feedback, consumed, ignored, gap_level, sequence)
    for lane in range(items.shape[0]):
        position[lane] += 1
        gap_level[lane] = 0
    refresh(state_weights, user, sequence, gap_days, step, bought, day, pace, fused, query)
