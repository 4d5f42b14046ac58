"""What a slate leaves behind, lane by lane: as ``recgym.simulation.session`` describes it."""

from __future__ import annotations

from typing import Any

import numpy as np

from recgym.compiled.arithmetic import kernel

_F = np.float32


@kernel
def settle(
    step: Any,
    bought: Any,
    intended: Any,
    steps: Any,
    satisfaction: Any,
    shown_text: Any,
    shown_count: Any,
    consumed_text: Any,
    slate: Any,
    consumed: Any,
    luck: Any,
    text: Any,
    rate: np.float32,
    patience: np.float32,
    max_slates: int,
    counters: Any,
    levels: Any,
    texts: Any,
    flags: Any,
) -> None:
    """``Session.settle``.

    Writes counters [4, B] (step, bought, steps, shown), levels [2, B] (satisfaction, share of hits), texts [2, B, 16]
    (shown, consumed) and flags [2, B] (left, limit).
    """
    size, width = slate.shape[1], text.shape[1]
    for lane in range(slate.shape[0]):
        for i in range(width):
            texts[0, lane, i] = shown_text[lane, i]
            texts[1, lane, i] = consumed_text[lane, i]
        count = np.int32(0)
        for slot in range(size):
            item = slate[lane, slot]
            for i in range(width):
                texts[0, lane, i] += text[item, i]
            if consumed[lane, slot]:
                count += np.int32(1)
                for i in range(width):
                    texts[1, lane, i] += text[item, i]
        counters[0, lane] = step[lane] + 1
        counters[1, lane] = bought[lane] + count
        counters[2, lane] = steps[lane] + 1
        counters[3, lane] = shown_count[lane] + size
        pleased = _F(1.0) if count > 0 else _F(0.0)
        levels[0, lane] = satisfaction[lane] + rate * (pleased - satisfaction[lane])
        levels[1, lane] = _F(count) / _F(size)
        met = bought[lane] + count >= intended[lane]
        flags[0, lane] = met or (count == 0 and luck[lane] < patience)
        flags[1, lane] = step[lane] + 1 >= max_slates
