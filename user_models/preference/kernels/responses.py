"""What users answer: the response heads and the draws that decide."""

from __future__ import annotations

from typing import Any

import numpy as np

from recgym.compiled.arithmetic import exp, kernel, log, log1p, prefetch_row, sigmoid, summing_kernel
from recgym.user_models.preference.network import NUM_REPEAT_FEATURES

_F = np.float32
_FEW = 32  # items whose rows fit into the nearest caches while they are waited for


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
def answer(appraisal: Any, slate: Any) -> None:
    """``appraise``, then ``respond`` to what it wrote (its last three arguments) with the rest of its arguments."""
    appraise(*appraisal)
    respond(*appraisal[-3:], *slate)
