"""The classifier two-sample test: can a classifier, on users it has not met, tell simulated from real?

Lopez-Paz and Oquab, "Revisiting classifier two-sample tests", ICLR 2017, with the area under the ROC curve in place of
accuracy: 0.5 where both samples come from one distribution, 1 where every sequence gives itself away.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from recgym.errors import RecGymError
from recgym.evaluation.statistics import DRAWS, LEVEL, Estimate

Floats = npt.NDArray[np.float64]
Users = npt.NDArray[np.int64]
FOLDS = 5
FEWEST = 2 * FOLDS  # users on each side
MOST_EPOCHS, PATIENCE, NETWORKS = 300, 30, 3
RIDGE = 1.0


@dataclass(frozen=True)
class TwoSample:
    """Out-of-fold areas under the ROC curve, with 95% intervals over users."""

    logistic: Estimate  # logistic regression: differences of location
    network: Estimate  # a neural network with two hidden layers: differences of any shape

    @property
    def highest(self) -> Estimate:
        """The area of the classifier that finds out more."""
        return max(self.logistic, self.network, key=lambda estimate: estimate.value)


def two_sample_test(
    left: npt.ArrayLike, right: npt.ArrayLike, left_users: npt.ArrayLike, right_users: npt.ArrayLike, seed: int = 0
) -> TwoSample:
    """Trains classifiers to tell ``right`` from ``left`` and scores them on users held out of their training.

    All rows of a user are in one fold, on whichever side. Features become normal scores by the ranks of the
    training folds, so their scale and outliers do not matter.

    Args:
        left: [n, F] features, finite.
        right: [m, F] features of the same meaning.
        left_users: [n] the user of each row.
        right_users: [m]; a user may have rows on both sides.
        seed: of the folds, the networks' initial weights and the bootstrap.

    Raises:
        RecGymError: shapes that do not fit, values that are not finite, or fewer than 10 users on a side.
    """
    features = [_matrix(name, sample) for name, sample in (("left", left), ("right", right))]
    owners = [np.asarray(users) for users in (left_users, right_users)]
    if features[0].shape[1] != features[1].shape[1]:
        raise RecGymError(
            f"both samples need the same features, got {features[0].shape[1]} and {features[1].shape[1]} columns"
        )
    for name, sample, users in zip(("left", "right"), features, owners, strict=True):
        if users.shape != sample.shape[:1]:
            raise RecGymError(f"the {name} sample has {len(sample)} rows and {users.shape} users; one user a row")
        if len(np.unique(users)) < FEWEST:
            raise RecGymError(
                f"the {name} sample has {len(np.unique(users))} users; the test needs {FEWEST} on each side"
            )
    users = np.unique(np.concatenate(owners), return_inverse=True)[1]
    labels = np.repeat([0.0, 1.0], [len(features[0]), len(features[1])])
    stacked = np.concatenate(features)
    rng = np.random.default_rng([seed, 29])
    fold = _folds(users, labels, rng)[users]
    estimates = {}
    for name, classifier in (("logistic", _logistic), ("network", _network)):
        scores = np.empty(len(labels))
        for number in range(FOLDS):
            kept, out = fold != number, fold == number
            x, unseen = _normal_scores(stacked[kept], stacked[out])
            scores[out] = classifier(x, labels[kept], users[kept], seed * FOLDS + number)(unseen)
        estimates[name] = area_under_curve(scores, labels, users, np.random.default_rng([seed, 31]))
    return TwoSample(**estimates)


def area_under_curve(
    scores: npt.ArrayLike, labels: npt.ArrayLike, users: npt.ArrayLike, rng: np.random.Generator, draws: int = DRAWS
) -> Estimate:
    """The chance that a row labelled 1 scores above a row labelled 0, ties counting half.

    The interval is a percentile bootstrap that resamples users, who bring all their rows.

    Args:
        scores: [R].
        labels: [R] 0 or 1, both present.
        users: [R].
        rng: source of the resamples.
        draws: number of resamples.

    Raises:
        RecGymError: lengths that differ, scores that are not finite, or labels other than 0 and 1.
    """
    s, y, owner = np.asarray(scores, np.float64), np.asarray(labels), np.asarray(users)
    if s.ndim != 1 or s.shape != y.shape or s.shape != owner.shape:
        raise RecGymError(
            f"scores, labels and users must be vectors of one length, got {s.shape}, {y.shape} and {owner.shape}"
        )
    if not np.isfinite(s).all() or set(np.unique(y)) != {0, 1}:
        raise RecGymError("scores must be finite, and labels 0 or 1 with both present")
    order = np.argsort(s, kind="stable")
    _, owner = np.unique(owner, return_inverse=True)
    owner, y = owner[order], y[order].astype(np.float64)
    starts = np.flatnonzero(np.diff(s[order], prepend=np.nan) != 0)
    num_users = int(owner.max()) + 1

    def area(weights: Floats) -> Floats:  # [d, C] -> [d]
        rows = weights[:, owner]
        ones = np.add.reduceat(rows * y, starts, axis=1)
        zeros = np.add.reduceat(rows * (1 - y), starts, axis=1)
        above = zeros.cumsum(1) - zeros / 2
        with np.errstate(invalid="ignore"):
            areas: Floats = (ones * above).sum(1) / (ones.sum(1) * zeros.sum(1))
        return areas

    point = float(area(np.ones((1, num_users)))[0])
    chances = np.full(num_users, 1 / num_users)
    block = max(1, 2_000_000 // len(s))
    counts = [min(block, draws - start) for start in range(0, draws, block)]
    areas = np.concatenate([area(rng.multinomial(num_users, chances, size=n).astype(np.float64)) for n in counts])
    areas = areas[np.isfinite(areas)]  # with a handful of users a resample may lack a label
    if num_users < 2 or not len(areas):
        return Estimate(point, np.nan, np.nan, num_users, len(s))
    low, high = np.quantile(areas, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(point, float(low), float(high), num_users, len(s))


def _matrix(name: str, sample: npt.ArrayLike) -> Floats:
    values = np.asarray(sample, dtype=np.float64)
    if values.ndim != 2 or not values.size:
        raise RecGymError(f"the {name} sample must be a matrix [rows, features], got shape {values.shape}")
    if not np.isfinite(values).all():
        row, column = np.argwhere(~np.isfinite(values))[0]
        raise RecGymError(f"the {name} sample holds {values[row, column]} in row {row}, column {column}")
    return values


def _folds(users: Users, labels: Floats, rng: np.random.Generator) -> Users:
    """The fold of each user: users of the left side, and those of the right alone, are spread evenly.

    Folds with unlike shares of the labels would push the pooled area below 0.5 where there is nothing to find.
    """
    fold = np.empty(users.max() + 1, np.int64)
    left = np.unique(users[labels == 0])
    for group in (left, np.setdiff1d(users, left)):
        fold[rng.permutation(group)] = np.arange(len(group)) % FOLDS
    return fold


def _normal_scores(train: Floats, test: Floats) -> tuple[Floats, Floats]:
    """Each column as normal scores of its ranks in ``train``."""
    normal = torch.distributions.Normal(0.0, 1.0)
    out = [np.empty_like(train), np.empty_like(test)]
    for column in range(train.shape[1]):
        known = np.sort(train[:, column])
        for table, values in zip(out, (train[:, column], test[:, column]), strict=True):
            rank = np.searchsorted(known, values, side="left") + np.searchsorted(known, values, side="right")
            table[:, column] = (rank / 2 + 0.5) / (len(known) + 1)
    scores = [normal.icdf(torch.from_numpy(table)).numpy() for table in out]
    centre, spread = scores[0].mean(0), scores[0].std(0).clip(min=1e-6)
    return (scores[0] - centre) / spread, (scores[1] - centre) / spread


def _logistic(x: Floats, y: Floats, users: Users, seed: int) -> Callable[[Floats], Floats]:
    """Logistic regression with a ridge penalty, by Newton's method."""
    design = np.column_stack((x, np.ones(len(x))))
    penalty = np.full(design.shape[1], RIDGE)
    penalty[-1] = 1e-6  # the intercept is free
    weights = np.zeros(design.shape[1])
    for _ in range(50):
        chance = 1 / (1 + np.exp(-(design @ weights).clip(-30, 30)))
        gradient = design.T @ (chance - y) + penalty * weights
        hessian = (design.T * (chance * (1 - chance) + 1e-9)) @ design + np.diag(penalty)
        move = np.linalg.solve(hessian, gradient)
        weights = weights - move
        if np.abs(move).max() < 1e-8:
            break
    return lambda new: new @ weights[:-1] + weights[-1]


def _network(x: Floats, y: Floats, users: Users, seed: int) -> Callable[[Floats], Floats]:
    """The mean logit of a few networks, each stopped early on a fifth of the training users."""
    unique = np.unique(users)
    scorers = []
    for number in range(NETWORKS):
        rng = np.random.default_rng([seed, number])
        inner = np.isin(users, rng.choice(unique, max(1, len(unique) // FOLDS), replace=False))
        scorers.append(_fit_network(x, y, inner, int(rng.integers(2**31))))
    return lambda new: np.mean([scorer(new) for scorer in scorers], axis=0)


def _fit_network(x: Floats, y: Floats, inner: npt.NDArray[np.bool_], seed: int) -> Callable[[Floats], Floats]:
    inputs, labels = torch.from_numpy(x).float(), torch.from_numpy(y).float()
    fit, check = torch.from_numpy(~inner), torch.from_numpy(inner)
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(seed)
        layers = (nn.Linear(x.shape[1], 32), nn.SiLU(), nn.Dropout(0.2), nn.Linear(32, 16), nn.SiLU(), nn.Linear(16, 1))
        network = nn.Sequential(*layers)
        optimizer = torch.optim.AdamW(network.parameters(), lr=0.01, weight_decay=0.1)
        criterion = nn.BCEWithLogitsLoss()
        best, best_epoch, kept = float("inf"), 0, {k: v.clone() for k, v in network.state_dict().items()}
        for epoch in range(MOST_EPOCHS):
            network.train()
            optimizer.zero_grad()
            criterion(network(inputs[fit])[:, 0], labels[fit]).backward()
            optimizer.step()
            network.eval()
            with torch.no_grad():
                loss = float(criterion(network(inputs[check])[:, 0], labels[check]))
            if loss < best:
                best, best_epoch, kept = loss, epoch, {k: v.clone() for k, v in network.state_dict().items()}
            elif epoch - best_epoch >= PATIENCE:
                break
        network.load_state_dict(kept)

    def score(new: Floats) -> Floats:
        with torch.no_grad():
            return network(torch.from_numpy(new).float())[:, 0].double().numpy()

    return score
