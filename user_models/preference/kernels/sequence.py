"""The sequence Transformer: one more token for lanes of a simulation, or all tokens of a history."""

from __future__ import annotations

from typing import Any

import numpy as np

from recgym.compiled.arithmetic import exp, kernel, log1p, prefetch, summing_kernel
from recgym.compiled.products import BLOCK, affine

_F = np.float32


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


@kernel
def _join(keys: Any, values: Any, position: int, qkv: Any) -> None:
    """Puts a token's key and value into the ring [W, d] of its lane."""
    slot, dim = position % keys.shape[0], keys.shape[1]
    for i in range(dim):
        keys[slot, i] = qkv[dim + i]
        values[slot, i] = qkv[2 * dim + i]


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
    _join(keys, values, position, qkv)
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
    """The sequence state of ``lanes`` (int64 [n]) after a slate, of [B, d]; ``cache`` [B, L, 2, W, d] in place."""
    _, layers, _, window, dim = cache.shape
    x = np.empty((BLOCK, dim), np.float32)
    normed = np.empty((BLOCK, dim), np.float32)
    attended = np.empty((BLOCK, dim), np.float32)
    qkv = np.empty((BLOCK, weights.qkv.shape[2]), np.float32)
    wide = np.empty((BLOCK, weights.expand.shape[2]), np.float32)
    inner = np.empty((BLOCK, weights.contract.shape[1] - 1), np.float32)
    added = np.empty((BLOCK, weights.out.shape[2]), np.float32)
    scores = np.empty(window, np.float32)
    for start in range(0, lanes.shape[0], BLOCK):
        rows = min(BLOCK, lanes.shape[0] - start)
        for r in range(rows):
            lane = lanes[start + r]
            _token(weights, items[lane], feedback[lane], consumed[lane], ignored[lane], level[lane], normed[r], x[r])
            _normalise(x[r], weights.norms[0], 0, normed[r])
        for layer in range(layers):
            affine(normed, rows, weights.qkv[layer], qkv)
            for r in range(rows):
                lane = lanes[start + r]
                ring, bias = cache[lane, layer], weights.slot_bias[layer]
                if r + 1 < rows:
                    ahead = cache[lanes[start + r + 1], layer]
                elif layer + 1 < layers:
                    ahead = cache[lanes[start], layer + 1]
                else:
                    ahead = cache[lanes[min(start + BLOCK, lanes.shape[0] - 1)], 0]
                _attend(ring[0], ring[1], position[lane], qkv[r], bias, scores, attended[r], ahead)
            affine(attended, rows, weights.out[layer], added)
            _residual(x, added, weights.norms[layer], 2, rows, normed)
            affine(normed, rows, weights.expand[layer], wide)
            _activate(wide, rows, inner)
            affine(inner, rows, weights.contract[layer], added)
            following = weights.norms[layer + 1] if layer + 1 < layers else weights.norm_out
            _residual(x, added, following, 0, rows, normed)
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
    """Starting caches [U, L, 2, W, d] and states [U, d] of ``users`` after their histories, layer by layer.

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
        known = 0  # tokens before have no say: x and normed hold what is asked of this layer from here on
        for layer in range(layers):
            ring, bias = caches[user, layer], weights.slot_bias[layer]
            # The last token of the last layer is wanted, so of each layer before W - 1 more.
            wanted = max(tokens - 1 - (layers - 1 - layer) * (window - 1), known)
            count = tokens - known
            affine(normed, count, weights.qkv[layer], qkv)
            for t in range(known, tokens):
                if t < wanted:
                    _join(ring[0], ring[1], t, qkv[t - known])
                else:
                    _attend(ring[0], ring[1], t, qkv[t - known], bias, scores, attended[t - wanted], ring)
            count = tokens - wanted
            for t in range(count):
                x[t] = x[wanted - known + t]
            affine(attended, count, weights.out[layer], added)
            _residual(x, added, weights.norms[layer], 2, count, normed)
            affine(normed, count, weights.expand[layer], wide)
            _activate(wide, count, inner)
            affine(inner, count, weights.contract[layer], added)
            following = weights.norms[layer + 1] if layer + 1 < layers else weights.norm_out
            _residual(x, added, following, 0, count, normed)
            known = wanted
        states[user] = normed[0] if tokens > 0 else blank
