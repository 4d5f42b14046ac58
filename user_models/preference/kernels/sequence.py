"""The sequence Transformer: one more token for lanes of a simulation, or all tokens of a history."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from recgym.compiled.arithmetic import PREFETCHED, exp, kernel, load, log1p, prefetch_lines, store, summing_kernel
from recgym.compiled.products import BLOCK, COLUMNS, VECTOR, affine_columns, row_sums

_F = np.float32
_LINE = 64  # bytes of a cache line


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


class Ahead(NamedTuple):
    """The rings to come: those that the cache has for the next lanes."""

    cache: Any  # [B, L, 2, W d]
    rings: Any  # int64 [BLOCK], numbers of rings, L a lane
    cursor: Any  # int64 [2]: how many rings have been asked for, and numbers of the next one
    pace: int  # cache lines asked for at a time


@kernel
def _ahead(weights: Any, cache: Any) -> Ahead:
    """Room for the rings of the next block, at a pace that asks for all of them while a block passes a layer."""
    columns = weights.qkv.shape[2] + weights.out.shape[2] + weights.expand.shape[2] + weights.contract.shape[2]
    times = columns // COLUMNS + 2 * BLOCK * weights.slot_bias.shape[2]
    lines = BLOCK * cache.shape[2] * cache.shape[3] * cache.itemsize // _LINE
    return Ahead(cache, np.empty(BLOCK, np.int64), np.zeros(2, np.int64), lines // times + 1)


@kernel
def _join(ring: Any, slot: int, qkv: Any) -> None:
    """Puts a token's key and value into ``slot`` of the ring [2, W d] of its lane."""
    dim = qkv.shape[0] // 3
    window = ring.shape[1] // dim
    for i in range(dim):
        store(ring[0], i * window + slot, qkv[dim + i])
        store(ring[1], slot * dim + i, qkv[2 * dim + i])


@kernel
def _ask(ahead: Any, lines: int) -> None:
    """Asks for the next ``lines`` cache lines, or a few more, of the rings to come.

    Most of the time would else be spent waiting for them. A few at a time, between other work: more than a core can
    have outstanding would hold it up.
    """
    size = ahead.cache.shape[2] * ahead.cache.shape[3]
    ring, place = ahead.cursor[0], ahead.cursor[1]
    for _ in range(0, lines, PREFETCHED):
        if ring == ahead.rings.shape[0]:
            break
        prefetch_lines(ahead.cache, ahead.rings[ring] * size + place)
        place += PREFETCHED * _LINE // ahead.cache.itemsize
        if place >= size:
            ring, place = ring + 1, 0
    ahead.cursor[0], ahead.cursor[1] = ring, place


@kernel
def _product(x: Any, rows: int, weights: Any, out: Any, ahead: Any) -> None:
    """``affine``, asking for rings meanwhile."""
    for column in range(0, weights.shape[1], COLUMNS):
        affine_columns(x, rows, weights, out, column)
        _ask(ahead, ahead.pace)


@summing_kernel
def _attend(ring: Any, position: int, qkv: Any, bias: Any, scores: Any, out: Any, ahead: Any) -> None:
    """One token's attention over the ring [2, W d] of its lane, which it joins; asks for other rings meanwhile.

    ``bias`` [2 W, heads, W'] and ``scores`` [W'] have room for a multiple of ``VECTOR`` places, of which the bias rules
    out those beyond W.
    """
    dim = qkv.shape[0] // 3
    heads, room = bias.shape[1], bias.shape[2]
    window, width = ring.shape[1] // dim, dim // heads
    scale = _F(1.0) / np.sqrt(_F(width))
    slot = position % window
    row = position if position < window else window + slot
    _join(ring, slot, qkv)
    for head in range(heads):
        first = head * width
        # Sums of places beyond W are of whatever lies behind; behind the last keys lie the values.
        row_sums(qkv, first, width, ring, first * window, window, scores, 0, room)
        _ask(ahead, ahead.pace)
        for place in range(room):
            scores[place] = scores[place] * scale + bias[row, head, place]
        highest = scores[0]
        for place in range(1, room):
            highest = max(highest, scores[place])
        mass = _F(0.0)
        for place in range(room):
            scores[place] = exp(scores[place] - highest)
            mass += scores[place]
        share = _F(1.0) / mass
        whole = width - width % VECTOR
        row_sums(scores, 0, window, ring, window * dim + first, dim, out, first, whole)
        for i in range(whole, width):
            out[first + i] = _F(0.0)
            for place in range(window):
                out[first + i] += scores[place] * load(ring[1], place * dim + first + i)
        for i in range(width):
            out[first + i] *= share
        _ask(ahead, ahead.pace)


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


class Work(NamedTuple):
    """Temporary values of ``rows`` tokens; widths as in ``SequenceWeights``."""

    x: Any  # [rows, d]
    normed: Any  # [rows, d]
    qkv: Any  # [rows, 3 d], padded
    attended: Any  # [rows, d]
    added: Any  # [rows, d], padded
    wide: Any  # [rows, f], padded
    inner: Any  # [rows, f]
    scores: Any  # [W']


@kernel
def _work(weights: Any, rows: int, dim: int) -> Work:
    return Work(
        np.empty((rows, dim), np.float32),
        np.empty((rows, dim), np.float32),
        np.empty((rows, weights.qkv.shape[2]), np.float32),
        np.empty((rows, dim), np.float32),
        np.empty((rows, weights.out.shape[2]), np.float32),
        np.empty((rows, weights.expand.shape[2]), np.float32),
        np.empty((rows, weights.contract.shape[1] - 1), np.float32),
        np.empty(weights.slot_bias.shape[3], np.float32),
    )


@kernel
def _after_attention(weights: Any, layer: int, rows: int, work: Any, ahead: Any) -> None:
    """The rest of a layer: attention joins the residual stream, then the feed-forward does; normed for the next."""
    _product(work.attended, rows, weights.out[layer], work.added, ahead)
    _residual(work.x, work.added, weights.norms[layer], 2, rows, work.normed)
    _product(work.normed, rows, weights.expand[layer], work.wide, ahead)
    _activate(work.wide, rows, work.inner)
    _product(work.inner, rows, weights.contract[layer], work.added, ahead)
    last = layer + 1 == weights.norms.shape[0]
    following = weights.norm_out if last else weights.norms[layer + 1]
    _residual(work.x, work.added, following, 0, rows, work.normed)


@summing_kernel
def advance(
    weights: Any,
    lanes: Any,
    cache: Any,
    position: Any,
    items: Any,
    feedback: Any,
    consumed: Any,
    ignored: Any,
    level: Any,
    sequence: Any,
) -> None:
    """The sequence state of ``lanes`` (int64 [n]) after a slate, of [B, d]; ``cache`` [B, L, 2, W d] in place."""
    layers, dim = cache.shape[1], sequence.shape[1]
    work, ahead = _work(weights, BLOCK, dim), _ahead(weights, cache)
    x, normed = work.x, work.normed
    for start in range(0, lanes.shape[0], BLOCK):
        rows = min(BLOCK, lanes.shape[0] - start)
        for r in range(rows):
            lane = lanes[start + r]
            _token(weights, items[lane], feedback[lane], consumed[lane], ignored[lane], level[lane], normed[r], x[r])
            _normalise(x[r], weights.norms[0], 0, normed[r])
        for layer in range(layers):
            following = start if layer + 1 < layers else start + BLOCK
            for r in range(BLOCK):
                lane = lanes[min(following + r, lanes.shape[0] - 1)]
                ahead.rings[r] = lane * layers + (layer + 1) % layers
            ahead.cursor[:] = 0
            _product(normed, rows, weights.qkv[layer], work.qkv, ahead)
            for r in range(rows):
                lane = lanes[start + r]
                ring, bias = cache[lane, layer], weights.slot_bias[layer]
                _attend(ring, position[lane], work.qkv[r, : 3 * dim], bias, work.scores, work.attended[r], ahead)
            _after_attention(weights, layer, rows, work, ahead)
        for r in range(rows):
            sequence[lanes[start + r]] = normed[r]


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
    """Starting caches [U, L, 2, W d] and states [U, d] of ``users`` after their histories, layer by layer.

    Token t of a user stands in row ``offsets[user] + t`` of items [T, G] (-1 pads), feedback [T, G] and level [T];
    ``blank`` [d] is the state of a user without history.
    """
    layers, dim = caches.shape[1], states.shape[1]
    window = caches.shape[3] // dim
    longest = 1
    for user in users:
        longest = max(longest, offsets[user + 1] - offsets[user])
    work, nothing_ahead = _work(weights, longest, dim), _ahead(weights, caches)
    nothing_ahead.cursor[0] = BLOCK
    x, normed, qkv = work.x, work.normed, work.qkv
    group = items.shape[1]
    consumed, nothing = np.empty(group, np.bool_), np.zeros(group, np.bool_)
    for user in users:
        first, tokens = offsets[user], offsets[user + 1] - offsets[user]
        caches[user] = 0
        for t in range(tokens):
            for slot in range(group):
                consumed[slot] = items[first + t, slot] >= 0
            _token(weights, items[first + t], feedback[first + t], consumed, nothing, level[first + t], normed[t], x[t])
            _normalise(x[t], weights.norms[0], 0, normed[t])
        known = 0  # tokens before have no say: x and normed hold what is asked of this layer from here on
        for layer in range(layers):
            ring, bias = caches[user, layer], weights.slot_bias[layer]
            # The last token of the last layer is wanted, so of each layer before W - 1 more.
            wanted = max(tokens - 1 - (layers - 1 - layer) * (window - 1), known)
            _product(normed, tokens - known, weights.qkv[layer], qkv, nothing_ahead)
            for t in range(known, tokens):
                told = qkv[t - known, : 3 * dim]
                if t < wanted:
                    _join(ring, t % window, told)
                else:
                    _attend(ring, t, told, bias, work.scores, work.attended[t - wanted], nothing_ahead)
            for t in range(tokens - wanted):
                x[t] = x[wanted - known + t]
            _after_attention(weights, layer, tokens - wanted, work, nothing_ahead)
            known = wanted
        states[user] = normed[0] if tokens > 0 else blank
