"""The default observation, lane by lane: as ``recgym.simulation.observation`` describes it."""

from __future__ import annotations

from typing import Any

import numpy as np

from recgym.compiled.arithmetic import exp, kernel, log, log1p, prefetch_row
from recgym.compiled.choice import find

_F = np.float32


@kernel
def candidates(
    features: Any,
    count_levels: Any,
    recency_rate: np.float32,
    slate_size: int,
    candidates: Any,
    items: Any,
    counts: Any,
    last_days: Any,
    day: Any,
    step: Any,
    shown: Any,
    out: Any,
) -> None:
    """Features of the candidates, float32 [B, M, F]: static ones of ``features`` [N, F], then the user's own.

    Args:
        features: float32 [N, F], the last three columns unused.
        count_levels: float32, the feature of each count; the last one of all counts beyond.
        recency_rate: the feature of recency is exp(-days * rate).
        slate_size: K.
        candidates: int32 [B, M].
        items: the record, int32 [B, R]; also counts and last_days.
        counts: int16 [B, R].
        last_days: int16 [B, R].
        day: int32 [B].
        step: slates answered on the trip, int32 [B].
        shown: item rows shown on the trip, K a slate, int32 [B, S].
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
        used = min(step[lane] * slate_size, shown.shape[1])
        for place in range(size):
            item, entry = candidates[lane, place], places[place]
            for column in range(static):
                out[lane, place, column] = features[item, column]
            count, recency = _F(0.0), _F(0.0)
            if entry >= 0 and counts[lane, entry] > 0:
                count = count_levels[min(counts[lane, entry], highest)]
                recency = min(exp(_F(last_days[lane, entry] - day[lane]) * recency_rate), _F(1.0))
            before = False
            for i in range(used):
                before |= shown[lane, i] == item
            out[lane, place, static] = count
            out[lane, place, static + 1] = recency
            out[lane, place, static + 2] = _F(1.0) if before else _F(0.0)


@kernel
def _log_share(value: np.float32, largest: np.float32) -> np.float32:
    return min(log1p(value) / log1p(largest), _F(1.0))


@kernel
def users(
    attributes: Any,
    record_size: int,
    days: np.float32,
    max_slates: np.float32,
    user: Any,
    num_trips: Any,
    num_items: Any,
    gap_days: Any,
    mean_log_gap: Any,
    mean_log_size: Any,
    day: Any,
    start_day: Any,
    step: Any,
    bought: Any,
    last_hits: Any,
    shown_text: Any,
    shown_count: Any,
    consumed_text: Any,
    out: Any,
) -> None:
    """Features of the users, float32 [B, Du]: attributes [U, A] of user [B], counts, the trip so far, pooled text."""
    first, width = attributes.shape[1], shown_text.shape[1]
    for lane in range(out.shape[0]):
        for i in range(first):
            out[lane, i] = attributes[user[lane], i]
        out[lane, first] = _log_share(_F(num_trips[lane]), _F(1000.0))
        out[lane, first + 1] = _log_share(_F(num_items[lane]), _F(record_size))
        out[lane, first + 2] = _log_share(_F(gap_days[lane]), _F(365.0))
        out[lane, first + 3] = min(max(mean_log_gap[lane] / log1p(_F(365.0)), _F(0.0)), _F(1.0))
        out[lane, first + 4] = min(max(mean_log_size[lane] / log(_F(100.0)), _F(0.0)), _F(1.0))
        out[lane, first + 5] = min(max(_F(day[lane] - start_day[lane]) / days, _F(0.0)), _F(1.0))
        out[lane, first + 6] = min(_F(step[lane]) / max_slates, _F(1.0))
        out[lane, first + 7] = _log_share(_F(bought[lane]), _F(100.0))
        out[lane, first + 8] = last_hits[lane]
        seen, had = _F(max(shown_count[lane], 1)), _F(max(bought[lane], 1))
        for i in range(width):
            out[lane, first + 9 + i] = min(max(shown_text[lane, i] / seen, _F(-1.0)), _F(1.0))
            out[lane, first + 9 + width + i] = min(max(consumed_text[lane, i] / had, _F(-1.0)), _F(1.0))
