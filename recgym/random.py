"""Counter-based random numbers: a draw is a hash of its address, never the state of a generator."""

from __future__ import annotations

import enum

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recgym import compiled

_MASK64 = (1 << 64) - 1


def _signed(value: int) -> int:
    """The two's-complement int64 with the bits of an unsigned 64-bit ``value``."""
    value &= _MASK64
    return value - (1 << 64) if value >= 1 << 63 else value


_GOLDEN = _signed(0x9E3779B97F4A7C15)
_MUL_1 = _signed(0xBF58476D1CE4E5B9)
_MUL_2 = _signed(0x94D049BB133111EB)


class Purpose(enum.IntEnum):
    """What a draw decides. The number is part of every address: never renumber, only append."""

    USER = 1
    INTENDED_SIZE = 2
    GAP = 3
    WANT = 4
    EXAMINE = 5
    QUANTITY = 6
    RATING = 7
    LEAVE = 8
    CANDIDATES = 9
    CANDIDATES_ORDER = 10
    SCAN = 11
    BRANCH = 12
    AGENT = 13
    BASKET = 14
    NEW_ITEMS = 15
    SHIFT = 16
    DELAY = 17
    DELAY_TRIPS = 18


def mix(z: Tensor) -> Tensor:
    """The splitmix64 finaliser (Steele, Lea and Flood, 2014) on int64 tensors of any shape.

    Integer arithmetic only, so the result is the same on every device. On a CPU numpy computes it, which has unsigned
    shifts and a third of torch's overhead.
    """
    if compiled.runs_on(z):
        return torch.from_numpy(_mix(z.numpy().view(np.uint64).copy()).view(np.int64))
    z = (z ^ ((z >> 30) & 0x3FFFFFFFF)) * _MUL_1
    z = (z ^ ((z >> 27) & 0x1FFFFFFFFF)) * _MUL_2
    return z ^ ((z >> 31) & 0x1FFFFFFFF)


def _mix(z: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """``mix`` in place."""
    z ^= z >> np.uint64(30)
    z *= np.uint64(_MUL_1 & _MASK64)
    z ^= z >> np.uint64(27)
    z *= np.uint64(_MUL_2 & _MASK64)
    z ^= z >> np.uint64(31)
    return z


def fold(key: Tensor, *counters: Tensor | int) -> Tensor:
    """A new key from ``key`` and counters (int64, broadcast together), one round of mixing each.

    ``key`` has to be a mixed key already: two small numbers in a row would be interchangeable (see ``episode_key``).
    """
    if compiled.runs_on(key):
        bits = key.numpy().view(np.uint64)
        for counter in counters:
            if isinstance(counter, Tensor):
                mixed = bits ^ counter.to(torch.int64).numpy().view(np.uint64)
            else:
                mixed = bits ^ np.uint64(counter & _MASK64)
            mixed = np.asarray(mixed)
            mixed += np.uint64(_GOLDEN & _MASK64)
            bits = _mix(mixed)
        return torch.from_numpy(bits.view(np.int64))
    for counter in counters:
        key = mix((key ^ (counter if isinstance(counter, Tensor) else _signed(counter))) + _GOLDEN)
    return key


def episode_key(seeds: Tensor, episodes: Tensor | int) -> Tensor:
    """The key of all draws of an episode, from raw seeds and episode numbers (int64, broadcast together).

    Seeds are mixed before the episode is folded in, so that seed 1, episode 0 shares nothing with seed 0, episode 1.
    """
    return fold(mix(seeds + _GOLDEN), episodes)


def uniform(key: Tensor) -> Tensor:
    """Float32 in the open interval (0, 1) from int64 keys: the 23 top bits, centred in their cell."""
    if compiled.runs_on(key):
        cells = np.asarray(key.numpy().view(np.uint64) >> np.uint64(41)).astype(np.float32)
        cells += np.float32(0.5)
        cells *= np.float32(1.0 / (1 << 23))
        return torch.from_numpy(cells)
    bits = (key >> 41) & 0x7FFFFF
    return (bits.to(torch.float32) + 0.5) * (1.0 / (1 << 23))


def integers(key: Tensor, stop: int) -> Tensor:
    """Int64 in [0, ``stop``) from int64 keys, for ``stop`` below 2**31: the 32 top bits, scaled.

    Integer arithmetic only; the bias is below ``stop`` / 2**32.
    """
    return (((key >> 32) & 0xFFFFFFFF) * stop) >> 32


def derive_seeds(seed: int, numbers: Tensor) -> Tensor:
    """Lane seeds for an evaluation: a hash of (seed, user number), so that seeds never overlap.

    Args:
        seed: the evaluation seed.
        numbers: user numbers, int64, any shape.

    Returns:
        int64 seeds in [0, 2**62), same shape.
    """
    key = episode_key(torch.full_like(numbers, _signed(seed)), numbers)
    return key & ((1 << 62) - 1)
