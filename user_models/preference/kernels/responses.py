"""What users answer: the response heads and the draws that decide."""

from __future__ import annotations

from typing import Any

import numpy as np

from recgym.compiled.arithmetic import exp, kernel, log, log1p, prefetch_row, sigmoid, summing_kernel
from recgym.compiled.products import BLOCK, affine

_F = np.float32
_FEW = 32  # items whose rows fit into the nearest caches while they are waited for


@summing_kernel
def _asked(table: Any, pace: Any, gap: np.float32, user: Any, out: Any) -> None:
    """The user's part of the repeat term's first layer, float32 [r]: that of the query, and ``pace_features``."""
    trips, size = log1p(pace[0]) * _F(0.2), pace[1] * _F(0.5)
    mean_gap, since = pace[2] * _F(0.5), log1p(gap) * _F(0.5)
    for i in range(out.shape[0]):
        by_trips, by_gap = trips * table[1, i] + size * table[2, i], mean_gap * table[3, i] + since * table[4, i]
        out[i] = user[i] + table[0, i] + by_trips + by_gap


@summing_kernel
def _first_layer(
    told: Any,
    asked: Any,
    item: Any,
    interval: np.float32,
    count: np.float32,
    days: np.float32,
    trips: np.float32,
    rate: np.float32,
    out: Any,
) -> None:
    """The repeat term's first layer, float32 [r], of an item bought ``count`` times before, by ``pair_features``.

    ``asked`` and ``item`` are the parts of user and item; ``rate`` is e to the power of minus the mean log gap.
    """
    since, frequency = days * rate, count / max(trips, _F(1.0))
    a, b, c = log1p(count), np.sqrt(min(frequency, _F(1.0))), log1p(days) * _F(0.5)
    d, e, f = log1p(days / interval), log1p(since), log1p(since * frequency)
    for i in range(out.shape[0]):
        inside = asked[i] + item[i]
        inside += a * told[0, i] + b * told[1, i] + c * told[2, i] + d * told[3, i] + e * told[4, i] + f * told[5, i]
        out[i] = inside * sigmoid(inside)


@summing_kernel
def _add_repeats(
    first: Any, rows: int, weights: Any, second: Any, last: Any, lane: int, slots: Any, logit: Any
) -> None:
    """Adds the repeat terms of ``rows`` items, of which ``first`` [BLOCK, r] holds the first layer, to their logits."""
    affine(first, rows, weights, second)
    for row in range(rows):
        term = _F(0.0)
        for i in range(last.shape[0]):
            term += second[row, i] * sigmoid(second[row, i]) * last[i]
        logit[lane, slots[row]] += term


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
    asked, first = np.empty(width, np.float32), np.empty((BLOCK, width), np.float32)
    second = np.empty((BLOCK, weights.repeat_inner.shape[1]), np.float32)
    slots = np.empty(BLOCK, np.int64)
    quantities, ratings = stop.size > 0, cdf.size > 0
    lanes = items.shape[0]
    for lane in range(lanes):
        if lane + 1 < lanes and items.shape[1] <= _FEW:
            for slot in range(items.shape[1]):
                prefetch_row(weights.item_table[items[lane + 1, slot]])
        for slot in range(items.shape[1]):
            table = weights.item_table[items[lane, slot]]
            value = table[hidden + dim + width]
            for i in range(hidden):
                inside = query[lane, i] + table[i]
                wide[i] = inside * sigmoid(inside)
            for i in range(hidden):
                value += wide[i] * weights.purchase[i]
            for i in range(dim):
                value += query[lane, hidden + i] * table[hidden + i]
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
        _asked(weights.repeat_pace, pace[lane], _F(gap_days[lane]), query[lane, hidden + dim :], asked)
        rows, rate = 0, exp(-pace[lane, 2])
        for slot in range(items.shape[1]):
            count, days, item = own_counts[lane, slot], own_days[lane, slot], items[lane, slot]
            if count > _F(0.0):
                part, interval = weights.item_table[item, hidden + dim :], weights.item_interval[item]
                _first_layer(weights.repeat_pair, asked, part, interval, count, days, pace[lane, 0], rate, first[rows])
                slots[rows] = slot
                rows += 1
            if rows == BLOCK or (rows > 0 and slot == items.shape[1] - 1):
                _add_repeats(first, rows, weights.repeat_inner, second, weights.repeat_out, lane, slots, logit)
                rows = 0


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
def answer(appraisal: Any, slate: Any) -> None:
    """``appraise``, then ``respond`` to what it wrote (its last three arguments) with the rest of its arguments."""
    appraise(*appraisal)
    respond(*appraisal[-3:], *slate)
