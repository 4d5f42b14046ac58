"""Numbers on the command lines of benchmarks, refused before anything is read."""

from __future__ import annotations

import argparse
from collections.abc import Callable


def at_least(low: int) -> Callable[[str], int]:
    """A ``type`` for argparse: whole numbers from ``low`` on."""

    def whole(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = low - 1
        if value < low:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {low} on")
        return value

    return whole


def share(text: str) -> float:
    """A ``type`` for argparse: numbers above 0, up to one half."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 0.5:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0, up to 0.5")
    return value
