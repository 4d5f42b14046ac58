"""How well a model of users agrees with the truth: rankings of policies, and of items for every user."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from recgym.errors import RecGymError
from recgym.evaluation.statistics import Estimate, Floats, compare


@dataclass(frozen=True)
class Concordance:
    """Kendall's tau over the pairs of policies that the truth tells apart.

    Attributes:
        tau: ``(concordant - discordant) / counted``; NaN where no pair is counted.
        counted: pairs that the truth tells apart; those that the model ties count here, and for neither side.
        left_out: pairs whose true values differ by less than their interval.
        discordant: pairs of policies in the order of the truth, better one first, that the model turns round.
    """

    tau: float
    counted: int
    left_out: int
    discordant: tuple[tuple[str, str], ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)


def kendall(differences: Mapping[tuple[str, str], Estimate], model: Mapping[str, float]) -> Concordance:
    """Kendall's tau (1938) between true and modelled values of policies, pairs that the truth cannot tell apart aside.

    A pair is left out where the interval of its true difference holds 0, so that luck decides neither way.

    Args:
        differences: (first, second) -> true value of first minus that of second, with its interval; each pair once.
        model: value of each policy under the model.

    Raises:
        RecGymError: a policy without a value under the model.
    """
    concordant, counted, discordant = 0, 0, []
    for (first, second), difference in differences.items():
        for policy in (first, second):
            if policy not in model:
                raise RecGymError(f"policy {policy!r} has no value under the model; those with one: {sorted(model)}")
        if not difference.excludes_zero:
            continue
        counted += 1
        agreement = np.sign(difference.value) * np.sign(model[first] - model[second])
        concordant += int(agreement > 0)
        if agreement < 0:
            discordant.append((first, second) if difference.value > 0 else (second, first))
    tau = (concordant - len(discordant)) / counted if counted else float("nan")
    return Concordance(tau, counted, len(differences) - counted, tuple(discordant))


def true_differences(
    rows: pd.DataFrame, rng: np.random.Generator, *, value: str = "reward"
) -> dict[tuple[str, str], Estimate]:
    """Paired differences of all pairs of agents in ``rows`` (one scenario; see ``evaluate``), for ``kendall``."""
    agents = list(dict.fromkeys(rows["agent"]))
    return {
        (first, second): compare(rows, first, second, rng, value=value)[0].difference
        for first, second in combinations(agents, 2)
    }


def regret(truth: Mapping[str, float], model: Mapping[str, float], k: int = 1) -> float:
    """Regret@k: the true value of the best policy minus that of the best among the model's first k.

    What whoever tries the model's k favourites in the real world gives away. Ties go to the policy named first.

    Raises:
        RecGymError: the two name different policies, or k is not between 1 and their number.
    """
    if set(truth) != set(model):
        raise RecGymError(f"different policies in truth and model: {sorted(set(truth) ^ set(model))}")
    if not 1 <= k <= len(truth):
        raise RecGymError(f"k must lie in 1..{len(truth)}, got {k}")
    favourites = sorted(truth, key=lambda policy: -model[policy])[:k]
    return max(truth.values()) - max(truth[policy] for policy in favourites)


def rank_correlation(left: npt.ArrayLike, right: npt.ArrayLike) -> Floats:
    """Spearman's rank correlation (1904) of each row of two [U, N] tables, ties at their mean rank; [U].

    NaN for a row that holds one value only.
    """
    ranks = [pd.DataFrame(np.asarray(table)).rank(axis=1).to_numpy(np.float64) for table in (left, right)]
    first, second = (table - table.mean(1, keepdims=True) for table in ranks)
    scale = np.sqrt((first**2).sum(1) * (second**2).sum(1))
    with np.errstate(invalid="ignore"):
        correlation: Floats = (first * second).sum(1) / scale
    return correlation


def expected_auc(scores: npt.ArrayLike, chances: npt.ArrayLike) -> float:
    """The AUC that ``scores`` reach in the long run on items that are bought with known ``chances``; one vector each.

    With independent responses, ``sum_{i != j} p_i (1 - p_j) [s_i > s_j] / sum_{i != j} p_i (1 - p_j)``, ties counting
    half: a ratio of expectations, so no draw enters. Scores that order as the chances do reach the Bayes optimum.

    Raises:
        RecGymError: different lengths, or chances that leave nothing to tell apart.
    """
    score, chance = np.asarray(scores, np.float64), np.asarray(chances, np.float64)
    if score.ndim != 1 or score.shape != chance.shape:
        raise RecGymError(f"scores and chances must be vectors of one length, got {score.shape} and {chance.shape}")
    levels, level = np.unique(score, return_inverse=True)
    bought = np.bincount(level, chance, minlength=len(levels))
    passed = np.bincount(level, 1 - chance, minlength=len(levels))
    itself = np.bincount(level, chance * (1 - chance), minlength=len(levels))  # an item is no pair with itself
    pairs = float(chance.sum() * (1 - chance).sum() - itself.sum())
    if pairs <= 0:
        raise RecGymError("chances leave nothing to tell apart: every item is surely bought or surely not")
    below = np.cumsum(passed) - passed
    return float((bought * below + 0.5 * (bought * passed - itself)).sum() / pairs)
