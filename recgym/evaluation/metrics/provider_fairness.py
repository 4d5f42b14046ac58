"""Fairness to providers: who is shown, next to what they are worth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from recgym.errors import RecGymError
from recgym.evaluation.metrics.arrays import Floats, aligned, discounts, distributions, item_rows, numbers


@dataclass(frozen=True)
class GroupRates:
    """A rate of each group of items and how far apart the rates are.

    Attributes:
        rates: group -> rate, in the order of the labels.
    """

    rates: dict[str, float]

    def ratio(self, first: str, second: str) -> float:
        """Rate of ``first`` over that of ``second``: 1 is fair, above 1 favours ``first``."""
        for name in (first, second):
            if name not in self.rates:
                raise RecGymError(f"unknown group {name!r}; groups: {', '.join(self.rates)}")
        return _over(self.rates[first], self.rates[second])

    @property
    def parity(self) -> float:
        """Smallest rate over the largest, in [0, 1]: 1 is fair."""
        return float(parity(list(self.rates.values())))


def parity(rates: npt.ArrayLike) -> Floats:
    """Smallest rate over the largest, along the last axis: 1 is fair (1 too where all are 0)."""
    found = np.asarray(rates, np.float64)
    low, high = found.min(-1), found.max(-1)
    ratio: Floats = np.divide(low, high, out=np.ones(np.shape(low)), where=high > 0)
    return ratio


def exposure(slates: npt.ArrayLike, num_items: int, attention: npt.ArrayLike | None = None) -> Floats:
    """[N] attention that each item received, summed over the slates.

    Args:
        slates: [S, K] item rows, best first.
        num_items: N.
        attention: [K] chance that a position is looked at; None: 1 / log2(rank + 1), as Singh and Joachims take.

    Raises:
        RecGymError: an item row out of range, or another number of positions.
    """
    shown = item_rows("slates", slates, num_items)
    weights = discounts(shown.shape[1]) if attention is None else numbers("attention", attention, low=0)
    aligned(position=shown[0], attention=weights)
    total: Floats = np.bincount(shown.reshape(-1), np.tile(weights, len(shown)), num_items).astype(np.float64)
    return total


def demographic_parity(exposures: npt.ArrayLike, groups: npt.ArrayLike) -> GroupRates:
    """Exposure of each group an item (Singh and Joachims, KDD 2018), whatever the items are worth.

    Args:
        exposures: [N] of each item, at least 0; see ``exposure``.
        groups: [N] label of each item (its manufacturer, private label or national brand).

    Raises:
        RecGymError: lengths that differ, fewer than two groups, or an exposure that is negative or not finite.
    """
    shown = numbers("exposures", exposures, low=0)
    return _rates(shown, np.ones_like(shown), groups)


def exposed_utility(exposures: npt.ArrayLike, utilities: npt.ArrayLike, groups: npt.ArrayLike) -> GroupRates:
    """Exposure of each group over its utility (disparate treatment; Singh and Joachims, KDD 2018).

    Args:
        exposures: [N] of each item, at least 0.
        utilities: [N] of each item (its mean relevance over users), at least 0, with a positive sum in every group.
        groups: [N] label of each item.

    Raises:
        RecGymError: lengths that differ, fewer than two groups, a group without utility, or a number out of range.
    """
    return _rates(numbers("exposures", exposures, low=0), numbers("utilities", utilities, low=0), groups)


def realised_utility(gains: npt.ArrayLike, utilities: npt.ArrayLike, groups: npt.ArrayLike) -> GroupRates:
    """What each group gained (clicks, purchases, revenue) over its utility (disparate impact; ibidem).

    Args:
        gains: [N] of each item, at least 0.
        utilities: [N] of each item, at least 0, with a positive sum in every group.
        groups: [N] label of each item.

    Raises:
        RecGymError: as ``exposed_utility``.
    """
    return _rates(numbers("gains", gains, low=0), numbers("utilities", utilities, low=0), groups)


@dataclass(frozen=True)
class ExpectedExposure:
    """Expected exposure of one query or user (Diaz et al., CIKM 2020); ``loss = disparity - relevance + |e*|^2``.

    Attributes:
        loss: EEL, ``|e - e*|^2``; 0: every item of equal relevance is as exposed as an ideal policy would.
        disparity: EED, ``|e|^2``; low: attention is spread.
        relevance: EER, ``2 e . e*``; high: attention goes to relevant items.
    """

    loss: float
    disparity: float
    relevance: float


def target_exposure(relevance: npt.ArrayLike, attention: npt.ArrayLike) -> Floats:
    """e*: expected exposure under rankings by relevance that shuffle items of equal relevance (Diaz et al., 2020).

    Args:
        relevance: [N] of each item, at least 0; or [S, N], of each query or user.
        attention: [K] of each position, K at most N; positions below get none.

    Returns:
        as ``relevance``.

    Raises:
        RecGymError: more positions than items, or a number that is negative or not finite.
    """
    dims = max(1, np.ndim(relevance))
    worth, weights = numbers("relevance", relevance, dims, low=0), numbers("attention", attention, low=0)
    rows = np.atleast_2d(worth)
    if len(weights) > rows.shape[1]:
        raise RecGymError(f"attention has {len(weights)} positions for {rows.shape[1]} items")
    order = np.argsort(-rows, axis=1, kind="stable")
    ranked = np.take_along_axis(rows, order, axis=1)
    received = np.zeros(rows.shape)
    received[:, : len(weights)] = weights  # of the items from the most relevant
    starts = np.diff(ranked, axis=1, prepend=np.inf) != 0  # of runs of equal relevance, none across two rows
    run = np.cumsum(starts.reshape(-1)) - 1
    shares = (np.bincount(run, received.reshape(-1)) / np.bincount(run))[run].reshape(rows.shape)
    found = np.empty(rows.shape)
    np.put_along_axis(found, order, shares, axis=1)
    return found.reshape(worth.shape)


def expected_exposure(exposures: npt.ArrayLike, target: npt.ArrayLike) -> ExpectedExposure:
    """Loss, disparity and relevance of expected exposure.

    Args:
        exposures: [N] mean attention of each item over the slates shown for one query or user.
        target: [N] of ``target_exposure``. Groups in place of items (sums over each) give the group version.

    Raises:
        RecGymError: lengths that differ, or a number that is negative or not finite.
    """
    system, ideal = numbers("exposures", exposures, low=0), numbers("target", target, low=0)
    aligned(exposures=system, target=ideal)
    gap = system - ideal
    return ExpectedExposure(float(gap @ gap), float(system @ system), float(2 * system @ ideal))


def unequal_attention(attention: npt.ArrayLike, relevance: npt.ArrayLike) -> float:
    """Equity of attention (Biega et al., SIGIR 2018): ``sum_i |A_i - R_i|`` of accumulated attention and relevance.

    Both are scaled to sum to 1, as in the paper, so that attention in proportion to relevance gives 0.

    Args:
        attention: [N] that each item (or provider) received over all slates, at least 0.
        relevance: [N] summed over the same users, at least 0.

    Returns:
        in [0, 2]: 0 is fair.

    Raises:
        RecGymError: lengths that differ, a sum of 0, or a number that is negative or not finite.
    """
    received, due = distributions("attention", attention), distributions("relevance", relevance)
    aligned(attention=received, relevance=due)
    return float(np.abs(received - due).sum())


def awrf(exposures: npt.ArrayLike, groups: npt.ArrayLike, target: dict[str, float]) -> float:
    """Attention-weighted rank fairness: distance of the groups' shares of attention from a target distribution.

    Sapiezynski et al., 2019, with the total variation distance; Raj and Ekstrand, SIGIR 2022.

    Args:
        exposures: [N] attention of each item, with a positive sum.
        groups: [N] label of each item.
        target: group -> its fair share, at least 0; scaled to sum to 1. Shares of the catalogue, or of its purchases.

    Returns:
        in [0, 1]: 0 where attention is shared as the target says.

    Raises:
        RecGymError: lengths that differ, a group without a target, or a number out of range.
    """
    received, labels = distributions("exposures", exposures), np.asarray(groups).astype(str)
    aligned(exposures=received, groups=labels)
    missing = sorted(set(labels) - set(target))
    if missing:
        raise RecGymError(f"group {missing[0]!r} has no target; targets: {', '.join(target)}")
    names = list(target)
    fair = distributions("target", list(target.values()))
    shares = pd.Series(received).groupby(labels).sum().reindex(names, fill_value=0.0).to_numpy()
    return float(np.abs(shares - fair).sum() / 2)


def _rates(tops: Floats, bottoms: Floats, groups: npt.ArrayLike) -> GroupRates:
    labels = np.asarray(groups).astype(str)
    aligned(amounts=tops, denominators=bottoms, groups=labels)
    sums = pd.DataFrame({"top": tops, "bottom": bottoms}).groupby(labels).sum()
    if len(sums) < 2:
        raise RecGymError(f"fairness needs at least two groups of items, got {list(sums.index)}")
    if (sums["bottom"] <= 0).any():
        raise RecGymError(f"group {sums.index[sums['bottom'] <= 0][0]!r} has no utility: its rate is undefined")
    return GroupRates({str(name): float(rate) for name, rate in (sums["top"] / sums["bottom"]).items()})


def _over(top: float, bottom: float) -> float:
    if bottom > 0:
        return top / bottom
    return 1.0 if top == 0 else float("inf")
