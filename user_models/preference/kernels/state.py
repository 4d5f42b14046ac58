"""The fused user state, what moves it, and the whole numbers drawn from it."""

from __future__ import annotations

from typing import Any

import numpy as np

from recgym.compiled.arithmetic import exp, kernel, log1p, prefetch_row, sigmoid, summing_kernel
from recgym.compiled.products import BLOCK, affine
from recgym.user_models.preference.kernels.sequence import advance
from recgym.user_models.preference.network import MAX_FEEDBACK

_F = np.float32
_SOURCES = 4  # of the user state: sequence, graph, attributes, time


@summing_kernel
def refresh(
    weights: Any,
    lanes: Any,
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
    """``PreferenceUsers._refresh`` of ``lanes`` (int64 [n]): fused state [B, d] and query [B, q]."""
    dim = sequence.shape[1]
    source = np.empty((BLOCK, weights.fuse.shape[0] - 1), np.float32)
    told = np.empty((BLOCK, weights.fuse.shape[1]), np.float32)
    state = np.empty((BLOCK, dim), np.float32)
    asked = np.empty((BLOCK, weights.query.shape[1]), np.float32)
    for start in range(0, lanes.shape[0], BLOCK):
        rows = min(BLOCK, lanes.shape[0] - start)
        for r in range(rows):
            lane = lanes[start + r]
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
            lane = lanes[start + r]
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
            lane = lanes[start + r]
            for i in range(query.shape[1]):
                query[lane, i] = asked[r, i]


@kernel
def sample(head: Any, lanes: Any, fused: Any, target: Any, whole: Any, beyond: Any) -> None:
    """``users._invert`` of the head's survival function for ``lanes`` (int64 [n]) of ``fused`` [B, d].

    Writes int32 [n], the whole numbers at which survival falls to ``target`` [n]; and whether that is in the last bin.
    """
    bins, inner_size = head.edges.shape[0] - 1, head.last.shape[0] - 1
    wide = np.empty((1, head.first.shape[1]), np.float32)
    inner = np.empty((1, inner_size), np.float32)
    logits = np.empty((1, head.last.shape[1]), np.float32)
    for n in range(lanes.shape[0]):
        affine(fused[lanes[n] : lanes[n] + 1], 1, head.first, wide)
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
        beyond[n] = True
        for b in range(bins):
            below += logits[0, b] / mass
            before, after = after, max(_F(1.0) - below, _F(0.0))
            if after <= target[n]:
                place = b
                beyond[n] = b == bins - 1
                break
        fraction = (before - target[n]) / max(before - after, _F(1e-9))
        fraction = min(max(fraction, _F(0.0)), _F(1.0 - 1e-6))
        low, high = head.edges[place], head.edges[place + 1]
        whole[n] = np.int32(low + np.floor(fraction * (high - low)))


@kernel
def init(weights: Any, starts: Any, lanes: Any, hand: Any) -> None:
    """``PreferenceUsers.init`` of ``lanes`` (int64 [n]), in place; ``hand`` as ``Hand``, ``starts`` as ``Starts``."""
    for lane in lanes:
        user = hand.owner[lane]
        hand.user[lane] = user
        hand.cache[lane].reshape(-1)[:] = starts.caches[user].reshape(-1)  # flat: one copy
        hand.sequence[lane] = starts.states[user]
        hand.position[lane] = starts.lengths[user]
    _settle(weights, starts, lanes, hand)


@kernel
def away(head: Any, lanes: Any, hand: Any, luck: Any, hazard: Any, gap: Any, gone: Any) -> None:
    """``PreferenceUsers.away`` of ``lanes`` (int64 [n]): writes ``gap`` int32 [n] and ``gone`` bool [n]."""
    target = np.empty(lanes.shape[0], np.float32)
    for n in range(lanes.shape[0]):
        target[n] = exp(log1p(-luck[n]) / hazard[n])
    sample(head, lanes, hand.fused, target, gap, gone)


@kernel
def arrive(weights: Any, starts: Any, head: Any, lanes: Any, hand: Any, luck: Any) -> None:
    """``PreferenceUsers.arrive``, then ``intend``, of ``lanes`` (int64 [n]), in place."""
    _settle(weights, starts, lanes, hand)
    target, sizes = np.empty(lanes.shape[0], np.float32), np.empty(lanes.shape[0], np.int32)
    beyond = np.empty(lanes.shape[0], np.bool_)
    for n in range(lanes.shape[0]):
        target[n] = _F(1.0) - luck[n]
    sample(head, lanes, hand.fused, target, sizes, beyond)
    for n in range(lanes.shape[0]):
        hand.intended[lanes[n]] = sizes[n]


@kernel
def _settle(weights: Any, starts: Any, lanes: Any, hand: Any) -> None:
    """What depends on record and gap, at the start of a trip."""
    longest = starts.gap_levels.shape[0] - 1
    for lane in lanes:
        hand.pace[lane, 0] = _F(hand.num_trips[lane])
        hand.pace[lane, 1] = hand.mean_log_size[lane]
        hand.pace[lane, 2] = hand.mean_log_gap[lane]
        hand.gap_level[lane] = starts.gap_levels[min(hand.gap_days[lane], longest)]
    _refresh(weights, lanes, hand)


@kernel
def _refresh(weights: Any, lanes: Any, hand: Any) -> None:
    visit = hand.gap_days, hand.step, hand.bought, hand.day
    refresh(weights, lanes, hand.user, hand.sequence, *visit, hand.pace, hand.fused, hand.query)


@kernel
def move(
    sequence_weights: Any,
    state_weights: Any,
    lanes: Any,
    items: Any,
    examined: Any,
    consumed: Any,
    told: Any,
    hand: Any,
) -> None:
    """``PreferenceUsers.transition`` of ``lanes`` (int64 [n]) in place; ``told`` int32 [B, K] is the feedback."""
    feedback = np.empty(items.shape, np.int64)
    ignored = np.empty(items.shape, np.bool_)
    for lane in lanes:
        for slot in range(items.shape[1]):
            feedback[lane, slot] = min(max(told[lane, slot], 0), MAX_FEEDBACK)
            ignored[lane, slot] = examined[lane, slot] and not consumed[lane, slot]
    slate = items, feedback, consumed, ignored
    advance(sequence_weights, lanes, hand.cache, hand.position, *slate, hand.gap_level, hand.sequence)
    for lane in lanes:
        hand.position[lane] += 1
        hand.gap_level[lane] = 0
    _refresh(state_weights, lanes, hand)
