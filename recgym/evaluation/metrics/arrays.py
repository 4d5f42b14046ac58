"""Checks that the metrics share: arrays of the right shape and range, or an error that names what is wrong."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from recgym.errors import RecGymError

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


def numbers(
    name: str, values: npt.ArrayLike, dims: int = 1, *, low: float = -np.inf, high: float = np.inf, empty: bool = False
) -> Floats:
    """``values`` as floats.

    Args:
        name: what the array is called in messages.
        values: anything array-like.
        dims: how many dimensions it must have.
        low: smallest value allowed.
        high: largest value allowed.
        empty: whether it may hold nothing.

    Raises:
        RecGymError: another number of dimensions, nothing in it, or a value that is not finite or out of range.
    """
    found = np.asarray(values, np.float64)
    if found.ndim != dims:
        raise RecGymError(f"{name} must have {dims} dimensions, got shape {found.shape}")
    if found.size == 0 and not empty:
        raise RecGymError(f"{name} is empty")
    bad = ~(np.isfinite(found) & (found >= low) & (found <= high))
    if bad.any():
        at = tuple(int(index[0]) for index in np.nonzero(bad))
        raise RecGymError(f"{name}{list(at)} is {found[at]}; valid is a finite number in [{low:g}, {high:g}]")
    return found


def item_rows(name: str, values: npt.ArrayLike, num_items: int, dims: int = 2) -> Ints:
    """``values`` as item rows in 0 .. num_items - 1; raises RecGymError where one is not."""
    found = numbers(name, values, dims, low=0, high=num_items - 1)
    rows: Ints = found.astype(np.int64)
    if (rows != found).any():
        raise RecGymError(f"{name} must hold whole item rows, got {found[rows != found][0]}")
    return rows


def row_sums(values: Floats, weights: Floats) -> Floats:
    """[S] the weighted sum of each row of ``values`` [S, K] with ``weights`` [K], the same bits in any batch.

    ``values @ weights`` rounds a row by where it stands among the others.
    """
    found: Floats = (values * weights).sum(axis=1)
    return found


def aligned(**arrays: npt.NDArray[Any]) -> None:
    """Raises RecGymError unless all arrays, given by name, have equal shapes."""
    shapes = {name: array.shape for name, array in arrays.items()}
    if len(set(shapes.values())) > 1:
        raise RecGymError(f"these must have one shape: {', '.join(f'{name} {shapes[name]}' for name in shapes)}")


def distributions(name: str, values: npt.ArrayLike, dims: int = 1) -> Floats:
    """``values`` as distributions along the last axis, scaled to sum to 1; raises RecGymError where a sum is 0."""
    found = numbers(name, values, dims, low=0)
    totals = found.sum(-1, keepdims=True)
    if (totals <= 0).any():
        raise RecGymError(f"{name} must have a positive sum along its last axis")
    scaled: Floats = found / totals
    return scaled


def discounts(length: int) -> Floats:
    """[length] weights 1 / log2(rank + 1) of ranks 1, 2, ... (Jarvelin and Kekalainen, 2002)."""
    weights: Floats = 1 / np.log2(np.arange(2, length + 2))
    return weights
