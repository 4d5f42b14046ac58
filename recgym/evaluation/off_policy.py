"""Off-policy estimates: the value of a policy from the log of another, with intervals clustered by user.

All are pure functions of arrays, one row a logged slate or choice. Valid are IPS and its kin only where the logging
policy gives every action of the target policy a positive probability, which no function of the log can check.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from recgym.errors import RecGymError
from recgym.evaluation import aggregate, statistics
from recgym.evaluation.metrics.arrays import Floats, aligned, numbers
from recgym.evaluation.statistics import DRAWS, Estimate


@dataclass(frozen=True)
class Logged:
    """What a policy showed and earned, and how likely two policies were to show it; R rows.

    Attributes:
        rewards: [R] of each logged action or slate; or [R, K], of every position of a slate.
        target: probability of it under the target policy, in [0, 1]: [R], or [R, K] of each position.
        logging: the same under the policy that acted, in (0, 1].
        users: [R] the user of each row.
    """

    rewards: npt.ArrayLike
    target: npt.ArrayLike
    logging: npt.ArrayLike
    users: npt.ArrayLike

    def weighted(self, *, clip: float = np.inf, dims: tuple[int, int] = (1, 1)) -> tuple[Floats, Floats]:
        """Rewards and ``importance_weights``, checked.

        Args:
            clip: see ``importance_weights``.
            dims: dimensions that rewards and probabilities must have.

        Raises:
            RecGymError: see ``importance_weights``; other dimensions, lengths that differ, or a reward that is not
                finite.
        """
        gains = numbers("rewards", self.rewards, dims[0])
        numbers("target", self.target, dims[1])
        weights = importance_weights(self.target, self.logging, clip=clip)
        aligned(rewards=gains, weights=weights if dims[0] == dims[1] else weights[:, 0])
        return gains, weights


def importance_weights(target: npt.ArrayLike, logging: npt.ArrayLike, *, clip: float = np.inf) -> Floats:
    """``target / logging``: how much oftener the target policy takes the logged action.

    Args:
        target: [R] or [R, K] probability that the target policy takes the logged action, in [0, 1].
        logging: the same of the policy that acted, in (0, 1].
        clip: largest weight kept; less variance for a bias towards 0 (Ionides, 2008).

    Raises:
        RecGymError: shapes that differ, a probability out of range, a logged action with probability 0 (it cannot have
            happened), or a clip that is not positive.
    """
    dims = max(1, np.ndim(target))
    wanted, acted = numbers("target", target, dims, low=0, high=1), numbers("logging", logging, dims, low=0, high=1)
    aligned(target=wanted, logging=acted)
    if (acted == 0).any():
        at = [int(index[0]) for index in np.nonzero(acted == 0)]
        raise RecGymError(f"logging{at} is 0, but the action was taken: its probability must be positive")
    if not clip > 0:
        raise RecGymError(f"clip must be positive, got {clip}")
    weights: Floats = np.minimum(wanted / acted, clip)
    return weights


def effective_sample_size(weights: npt.ArrayLike) -> float:
    """``(sum w)^2 / sum w^2``: how many unweighted rows carry as much evidence (Kish, 1965); 0 where all weights are 0.

    Args:
        weights: [R] of ``importance_weights``.
    """
    found = numbers("weights", weights, low=0)
    squares = float((found**2).sum())
    return float(found.sum() ** 2 / squares) if squares else 0.0


def ips(
    log: Logged,
    rng: np.random.Generator,
    *,
    clip: float = np.inf,
    draws: int = DRAWS,
) -> Estimate:
    """Inverse propensity scoring, ``mean(w r)`` (Horvitz and Thompson, 1952): unbiased, of high variance.

    Args:
        log: what was logged.
        rng: source of the resamples.
        clip: see ``importance_weights``.
        draws: resamples.

    Raises:
        RecGymError: see ``importance_weights``; lengths that differ, or a reward that is not finite.
    """
    gains, weights = log.weighted(clip=clip)
    return statistics.mean(weights * gains, log.users, rng, draws=draws)


def snips(
    log: Logged,
    rng: np.random.Generator,
    *,
    clip: float = np.inf,
    draws: int = DRAWS,
) -> Estimate:
    """Self-normalised IPS, ``sum(w r) / sum(w)`` (Swaminathan and Joachims, 2015).

    Biased by O(1 / R), but it stays within the range of the rewards and shifts with them, and mostly varies less.
    Arguments and errors as ``ips``.

    Raises:
        RecGymError: also where every weight is 0: the log says nothing of the target policy.
    """
    gains, weights = log.weighted(clip=clip)
    if not weights.any():
        raise RecGymError("the target policy takes none of the logged actions: there is nothing to estimate from")

    def normalised(counts: Floats) -> Floats:
        top, bottom = counts @ (weights * gains), counts @ weights
        return np.divide(top, bottom, out=np.full(len(top), np.nan), where=bottom > 0)[:, None]

    return aggregate.bootstrap(normalised, log.users, rng, draws=draws)[0]


def direct_method(
    policy: npt.ArrayLike, q_hat: npt.ArrayLike, users: npt.ArrayLike, rng: np.random.Generator, *, draws: int = DRAWS
) -> Estimate:
    """DM, ``mean(sum_a policy(a) q_hat(a))``: no variance from weights, and all the bias of the model.

    The interval is over contexts; it does not know how wrong ``q_hat`` is.

    Args:
        policy: [R, A] probabilities of the target policy, each row summing to 1.
        q_hat: [R, A] modelled reward of every action.
        users: [R] the user of each row.
        rng: source of the resamples.
        draws: resamples.

    Raises:
        RecGymError: shapes that differ, rows of ``policy`` that do not sum to 1, or a number that is not finite.
    """
    return statistics.mean(_expected(policy, q_hat), users, rng, draws=draws)


def doubly_robust(
    log: Logged,
    actions: npt.ArrayLike,
    policy: npt.ArrayLike,
    q_hat: npt.ArrayLike,
    rng: np.random.Generator,
    *,
    clip: float = np.inf,
    draws: int = DRAWS,
) -> Estimate:
    """DR, ``mean(sum_a policy(a) q_hat(a) + w (r - q_hat(a_logged)))`` (Dudik et al., ICML 2011).

    Unbiased if either the propensities or ``q_hat`` are right, provided that ``q_hat`` was fitted on other rows.

    Args:
        log: what was logged.
        actions: [R] the logged action, 0 .. A - 1.
        policy: [R, A] probabilities of the target policy, each row summing to 1.
        q_hat: [R, A] modelled reward of every action.
        rng: source of the resamples.
        clip: see ``importance_weights``.
        draws: resamples.

    Raises:
        RecGymError: as ``ips`` and ``direct_method``, or an action out of range.
    """
    expected = _expected(policy, q_hat)
    model = np.asarray(q_hat, np.float64)
    taken = numbers("actions", actions, low=0, high=model.shape[1] - 1).astype(np.int64)
    gains, weights = log.weighted(clip=clip)
    aligned(rewards=gains, actions=taken, policy=expected)
    residuals = gains - model[np.arange(len(taken)), taken]
    return statistics.mean(expected + weights * residuals, log.users, rng, draws=draws)


def item_position(
    log: Logged,
    rng: np.random.Generator,
    *,
    clip: float = np.inf,
    draws: int = DRAWS,
) -> Estimate:
    """IIPS of slates, ``mean(sum_k w_k r_k)`` with one weight an item and position (Li et al., KDD 2018).

    Unbiased where what an item earns depends on its own position alone, not on its neighbours.

    Args:
        log: what was logged.
        rng: source of the resamples.
        clip: see ``importance_weights``; clips each position.
        draws: resamples.

    Raises:
        RecGymError: see ``importance_weights``; shapes that differ, or a reward that is not finite.
    """
    gains, weights = log.weighted(clip=clip, dims=(2, 2))
    return statistics.mean((weights * gains).sum(1), log.users, rng, draws=draws)


def reward_interaction(
    log: Logged,
    rng: np.random.Generator,
    *,
    clip: float = np.inf,
    draws: int = DRAWS,
) -> Estimate:
    """RIPS of slates, ``mean(sum_k r_k prod_{j <= k} w_j)`` (McInerney et al., KDD 2020).

    Unbiased where what an item earns depends on the items above it, not on those below, as under a cascade; without the
    paper's normalisation and look-back, hence of higher variance. The conditional probabilities are exact for
    Plackett-Luce policies, which draw an item after another. With the steps of an episode in place of positions this is
    per-decision importance sampling (Precup et al., 2000).

    Args:
        log: what was logged.
        rng: source of the resamples.
        clip: largest product kept; see ``importance_weights``.
        draws: resamples.

    Raises:
        RecGymError: as ``item_position``.
    """
    gains, weights = log.weighted(dims=(2, 2))
    products = np.minimum(np.cumprod(weights, axis=1), clip)
    return statistics.mean((products * gains).sum(1), log.users, rng, draws=draws)


def pseudo_inverse(
    log: Logged,
    rng: np.random.Generator,
    *,
    draws: int = DRAWS,
) -> Estimate:
    """PI of slates whose reward is seen as a whole, ``mean(r (1 - K + sum_k w_k))`` (Swaminathan et al., NeurIPS 2017).

    Unbiased where the slate's reward is a sum over positions that nobody sees the terms of. This is the closed form
    for a logging policy that fills the positions independently; one that never repeats an item does not (the estimate
    is then biased), unless every position has candidates of its own.

    Args:
        log: what was logged.
        rng: source of the resamples.
        draws: resamples.

    Raises:
        RecGymError: as ``item_position``.
    """
    gains, weights = log.weighted(dims=(1, 2))
    return statistics.mean(gains * (1 - weights.shape[1] + weights.sum(1)), log.users, rng, draws=draws)


def _expected(policy: npt.ArrayLike, q_hat: npt.ArrayLike) -> Floats:
    """[R] modelled value of the target policy in each context."""
    chances, model = numbers("policy", policy, 2, low=0, high=1), numbers("q_hat", q_hat, 2)
    aligned(policy=chances, q_hat=model)
    off = np.flatnonzero(np.abs(chances.sum(1) - 1) > 1e-4)
    if len(off):
        raise RecGymError(f"policy[{off[0]}] sums to {chances[off[0]].sum():g}; probabilities must sum to 1")
    expected: Floats = (chances * model).sum(1)
    return expected
