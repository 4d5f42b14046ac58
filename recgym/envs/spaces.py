"""Gymnasium spaces of what the simulation lets agents see."""

from __future__ import annotations

from collections.abc import Iterable

import gymnasium
import numpy as np

from recgym.errors import unknown_name
from recgym.simulation.observation import OBSERVATION_KEYS, Observer


def observation_space(observer: Observer, keys: Iterable[str]) -> gymnasium.spaces.Dict:
    """The space of one lane's observation: a Dict of boxes with finite bounds, one a key.

    Raises:
        UnknownNameError: a key that is not observable; the message gives the nearest one.
    """
    boxes: dict[str, gymnasium.Space] = {}
    for key in keys:
        if key not in observer.entries:
            raise unknown_name("observation key", key, OBSERVATION_KEYS)
        entry = observer.entries[key]
        dtype = np.float32 if entry.dtype.is_floating_point else np.int64
        boxes[key] = gymnasium.spaces.Box(entry.low, entry.high, entry.shape, dtype)
    return gymnasium.spaces.Dict(boxes)
