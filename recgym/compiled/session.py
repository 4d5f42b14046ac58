"""What a slate leaves behind, lane by lane: as ``recgym.simulation.choice`` and ``session`` describe it."""

from __future__ import annotations

from typing import Any

import numpy as np

from recgym.compiled.arithmetic import kernel

_F = np.float32


@kernel
def conclude(
    shown: Any,
    refusals: Any,
    refused: Any,
    floor: Any,
    bought_before: Any,
    seen_refusals: Any,
    seen_refused: Any,
    seen_floor: Any,
    seen_bought: Any,
    duplicate: Any,
    examined: Any,
    consumed: Any,
    probability: Any,
    slate: Any,
    step: Any,
    bought: Any,
    intended: Any,
    steps: Any,
    satisfaction: Any,
    last_hits: Any,
    shown_text: Any,
    shown_count: Any,
    consumed_text: Any,
    luck: Any,
    text: Any,
    rate: np.float32,
    patience: np.float32,
    max_slates: int,
    left: Any,
    limit: Any,
) -> None:
    """``remember`` and ``Session.settle``, in place; writes who leaves, bool [B]: left and limit."""
    size, width = slate.shape[1], text.shape[1]
    for lane in range(slate.shape[0]):
        first = step[lane] % max_slates * size
        count = 0
        for slot in range(size):
            item, entry = slate[lane, slot], first + slot
            hit = consumed[lane, slot]
            declined = examined[lane, slot] and not hit
            known = seen_refused[lane, slot]
            shown[lane, entry] = -1 if duplicate[lane, slot] else np.int32(item)
            refusals[lane, entry] = seen_refusals[lane, slot] + np.int16(declined)
            refused[lane, entry] = max(known, probability[lane, slot]) if declined else known
            floor[lane, entry] = seen_floor[lane, slot]
            bought_before[lane, entry] = seen_bought[lane, slot] or hit
            for i in range(width):
                shown_text[lane, i] += text[item, i]
            if hit:
                count += 1
                for i in range(width):
                    consumed_text[lane, i] += text[item, i]
        met = bought[lane] + count >= intended[lane]
        left[lane] = met or (count == 0 and luck[lane] < patience)
        limit[lane] = step[lane] + 1 >= max_slates
        pleased = _F(1.0) if count > 0 else _F(0.0)
        satisfaction[lane] += rate * (pleased - satisfaction[lane])
        last_hits[lane] = _F(count) / _F(size)
        step[lane] += 1
        bought[lane] += count
        steps[lane] += 1
        shown_count[lane] += size


@kernel
def evaluate(price: Any, liked: int, items: Any, consumed: Any, quantity: Any, rating: Any, out: Any) -> None:
    """The terms of ``Objective``, float32 [3, B]: purchase, revenue, and how many ratings are at least ``liked``."""
    for lane in range(items.shape[0]):
        purchases, revenue, pleasures = _F(0.0), _F(0.0), _F(0.0)
        for slot in range(items.shape[1]):
            purchases += _F(consumed[lane, slot])
            revenue += price[items[lane, slot]] * _F(quantity[lane, slot])
            pleasures += _F(rating[lane, slot] >= liked)
        out[0, lane], out[1, lane], out[2, lane] = purchases, revenue, pleasures
