"""What a reset is asked for, checked: seeds, and options."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any

import numpy as np

from recgym.envs.arrays import array_of, short
from recgym.errors import StateError


def whole_seed(seed: Any) -> int:
    """``seed`` as the identity of a lane.

    Raises:
        StateError: it is no whole number of 64 bits.
    """
    try:
        number = None if isinstance(seed, bool) else operator.index(seed)  # NumPy's and torch's whole numbers have one
    except TypeError:
        number = None
    if number is None:
        raise StateError(f"a seed is a whole number or None, got {short(seed)}")
    if not -(2**63) <= number < 2**63:
        raise StateError(f"seed {number} does not fit into 64 bits")
    return number


def lane_seeds(seed: Any, num_lanes: int) -> list[int | None]:
    """The identities of lanes: those that a list names, None among them, or ``seed`` and the numbers that follow it.

    Raises:
        StateError: a list of another length, or what is no seed.
    """
    try:
        seeds = list(seed)
    except TypeError:  # one for all
        first = whole_seed(seed)
        return [whole_seed(first + lane) for lane in range(num_lanes)]
    if len(seeds) != num_lanes:
        raise StateError(f"a list of seeds has one entry a lane: {num_lanes} expected, got {len(seeds)}")
    return [None if one is None else whole_seed(one) for one in seeds]


def generator_seed(seed: int | None) -> int | None:
    """The seed of the environment's own generator, which Gymnasium wants to be no less than 0."""
    return None if seed is None else seed % 2**63


def named_options(options: Any, *valid: str) -> list[Any]:
    """The options called ``valid``, None where one is not given.

    Raises:
        StateError: no dict, or it holds others.
    """
    if options is not None and not isinstance(options, Mapping):
        raise StateError(f"reset options are a dict, got {short(options)}")
    given = dict(options or {})
    if unknown := sorted(str(name) for name in given.keys() - set(valid)):
        raise StateError(f"unknown reset options {unknown}. Valid: {', '.join(valid)}.")
    return [given.get(name) for name in valid]


def per_lane(name: str, values: Any, num_lanes: int) -> np.ndarray:
    """The option ``name`` as int64 [B].

    Raises:
        StateError: another shape, or no whole numbers.
    """
    array = array_of(values, f"options[{name!r}]", StateError)
    if array.shape != (num_lanes,) or array.dtype.kind not in "iu":
        raise StateError(
            f"options[{name!r}] holds {num_lanes} whole numbers, one a lane, got {array.dtype} {array.shape}"
        )
    return array.astype(np.int64)


def masked_lanes(mask: Any, num_lanes: int) -> np.ndarray | None:
    """The lanes of the option ``reset_mask`` as int64 [n], ascending; None where there is no mask.

    Raises:
        StateError: another shape or type, or not a single lane.
    """
    if mask is None:
        return None
    array = array_of(mask, "options['reset_mask']", StateError)
    if array.shape != (num_lanes,) or array.dtype != np.bool_ or not array.any():
        raise StateError(
            f"options['reset_mask'] is a bool array of shape ({num_lanes},) with at least one True, "
            f"got {array.dtype} {array.shape}"
        )
    return np.flatnonzero(array)
