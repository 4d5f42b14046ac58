"""The default observation, lane by lane: as ``recgym.simulation.observation`` describes it."""

from __future__ import annotations

from typing import Any

import numpy as np

from recgym.compiled.arithmetic import exp, kernel, prefetch_row
from recgym.compiled.choice import find

_F = np.float32


@kernel
def candidates(
    features: Any,
    count_levels: Any,
    recency_rate: np.float32,
    candidates: Any,
    items: Any,
    counts: Any,
    last_days: Any,
    day: Any,
    shown: Any,
    used: Any,
    out: Any,
) -> None:
    """Features of the candidates, float32 [B, M, F]: static ones of ``features`` [N, F], then the user's own.

    Args:
        features: float32 [N, F], the last three columns unused.
        count_levels: float32, the feature of each count; the last one of all counts beyond.
        recency_rate: the feature of recency is exp(-days * rate).
        candidates: int32 [B, M].
        items: the record, int32 [B, R]; also counts and last_days.
        counts: int16 [B, R].
        last_days: int16 [B, R].
        day: int32 [B].
        shown: item rows shown on the trip, int32 [B, S].
        used: int64 [B], how many of them.
        out: where to write.
    """
    lanes, size = candidates.shape
    static = features.shape[1] - 3
    highest = count_levels.shape[0] - 1
    places = np.empty(size, np.int64)
    for lane in range(lanes):
        if lane + 1 < lanes:
            prefetch_row(items[lane + 1])
            prefetch_row(counts[lane + 1])
            prefetch_row(last_days[lane + 1])
        find(items[lane], candidates[lane], places)
        for place in range(size):
            item, entry = candidates[lane, place], places[place]
            for column in range(static):
                out[lane, place, column] = features[item, column]
            count, recency = _F(0.0), _F(0.0)
            if entry >= 0 and counts[lane, entry] > 0:
                count = count_levels[min(counts[lane, entry], highest)]
                recency = min(exp(_F(last_days[lane, entry] - day[lane]) * recency_rate), _F(1.0))
            before = False
            for i in range(used[lane]):
                before |= shown[lane, i] == item
            out[lane, place, static] = count
            out[lane, place, static + 1] = recency
            out[lane, place, static + 2] = _F(1.0) if before else _F(0.0)


@kernel
def pool_text(text: Any, slate: Any, consumed: Any, shown_text: Any, consumed_text: Any) -> None:
    """Adds the text vectors [N, T] of a slate [B, K] to the sums of those shown and consumed, [B, T]."""
    for lane in range(slate.shape[0]):
        for slot in range(slate.shape[1]):
            row = text[slate[lane, slot]]
            for i in range(row.shape[0]):
                shown_text[lane, i] += row[i]
            if consumed[lane, slot]:
                for i in range(row.shape[0]):
                    consumed_text[lane, i] += row[i]
