"""The default observation, lane by lane: as ``recgym.simulation.observation`` describes it."""

from __future__ import annotations

from typing import Any

import numpy as np

from recgym.compiled.arithmetic import exp, kernel, log, log1p, prefetch_row
from recgym.compiled.choice import filled, find

_F = np.float32
_MARKS = 4096  # different endings of item rows
_OWN, _SHOWN = np.uint8(1), np.uint8(2)


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
    num_items: Any,
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
        num_items: items in the record, int32 [B].
        day: int32 [B].
        step: slates answered on the trip, int32 [B].
        shown: item rows shown on the trip, K a slate, int32 [B, S].
        out: where to write.
    """
    lanes, size = candidates.shape
    static = features.shape[1] - 3
    highest = count_levels.shape[0] - 1
    mark = np.zeros(_MARKS, np.uint8)
    maybe, wanted, found = np.empty((3, size + 1), np.int32)
    recency = np.empty(size + 1, np.float32)
    for lane in range(lanes):
        if lane + 1 < lanes:
            prefetch_row(items[lane + 1, : num_items[lane + 1]])
            prefetch_row(counts[lane + 1, : num_items[lane + 1]])
            prefetch_row(last_days[lane + 1, : num_items[lane + 1]])
        # Few candidates are in the record or were shown: only those are looked up that end in the same digits.
        used = min(step[lane] * slate_size, shown.shape[1])
        for i in range(num_items[lane]):
            mark[items[lane, i] & (_MARKS - 1)] = _OWN
        for i in range(used):
            mark[shown[lane, i] & (_MARKS - 1)] |= _SHOWN
        some = 0
        for place in range(size):
            item = candidates[lane, place]
            for column in range(static):
                out[lane, place, column] = features[item, column]
            for column in range(static, static + 3):
                out[lane, place, column] = _F(0.0)
            maybe[some] = place
            wanted[some] = item
            some += 1 if mark[item & (_MARKS - 1)] > 0 else 0
        find(items[lane, : filled(num_items[lane])], wanted[:some], found[:some])
        for i in range(some):
            recency[i] = _F(last_days[lane, max(found[i], 0)] - day[lane]) * recency_rate
        for i in range(some):
            recency[i] = min(exp(recency[i]), _F(1.0))
        for i in range(some):
            own = out[lane, maybe[i], static:]
            count = counts[lane, found[i]] if found[i] >= 0 else 0
            if count > 0:
                own[0] = count_levels[min(count, highest)]
                own[1] = recency[i]
            if mark[wanted[i] & (_MARKS - 1)] & _SHOWN:
                before = False
                for entry in range(used):
                    before |= shown[lane, entry] == wanted[i]
                own[2] = _F(1.0) if before else _F(0.0)
        mark[:] = 0


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
