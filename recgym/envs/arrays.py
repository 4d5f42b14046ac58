"""Arrays of what callers hand in."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from recgym.errors import RecGymError


def array_of(values: Any, what: str, error: type[RecGymError]) -> np.ndarray:
    """``values`` as an array; a tensor is copied from its device.

    Raises:
        RecGymError: as ``error``: they make no array, as rows of different lengths do not; names ``what`` it is.
    """
    try:
        return np.asarray(values.cpu() if isinstance(values, Tensor) else values)
    except (TypeError, ValueError) as problem:
        raise error(f"{what} holds numbers in rows of one length, got {short(values)}") from problem


def short(value: Any) -> str:
    """``value`` as it is written, cut to 60 characters."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
