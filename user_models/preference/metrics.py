"""Held-out metrics: ranking over the full catalogue, and the calibration of expected ratings."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from recgym.user_models.preference.trips import Trips


def relevance(scores: Tensor, trips: Trips, targets: np.ndarray, k: int = 10) -> tuple[Tensor, Tensor]:
    """Whether each of the top k items is in the basket, float32 [P, k], and basket sizes [P]; ties by item row."""
    top = torch.sort(scores, dim=1, descending=True, stable=True).indices[:, :k]
    keys = np.sort(trips.trip * trips.num_items + trips.item)
    wanted = targets[:, None] * trips.num_items + top.numpy()
    place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return torch.from_numpy((keys[place] == wanted).astype(np.float32)), torch.from_numpy(trips.size[targets])


def ndcg_and_recall(scores: Tensor, trips: Trips, targets: np.ndarray, k: int = 10) -> tuple[Tensor, Tensor]:
    """NDCG@k (binary gains) and Recall@k of each target trip, [P] each."""
    k = min(k, scores.shape[1])
    hits, sizes = relevance(scores, trips, targets, k)
    discount = 1 / torch.log2(torch.arange(k) + 2.0)
    ideal = torch.cumsum(discount, 0)[sizes.clamp(max=k) - 1]
    return (hits * discount).sum(1) / ideal, hits.sum(1) / sizes


def ranking_metrics(logits: Tensor, trips: Trips, targets: np.ndarray) -> dict[str, float]:
    """NDCG@10, Recall@10 and log loss per trip of calibrated logits [P, N]."""
    ndcg, recall = ndcg_and_recall(logits, trips, targets)
    lengths = trips.size[targets]
    rows = torch.from_numpy(np.repeat(np.arange(len(targets)), lengths))
    events = np.concatenate([np.arange(trips.events[t], trips.events[t + 1]) for t in targets])
    bought = logits[rows, torch.from_numpy(trips.item[events])]
    loss = torch.nn.functional.softplus(logits).sum() - bought.sum()
    if trips.exposures is not None:  # shown pairs do not count
        at, item, _ = (torch.from_numpy(part) for part in trips.exposures.of(targets))
        loss = loss - torch.nn.functional.softplus(logits[at, item]).sum()
        loss = loss + bought[torch.from_numpy(trips.exposures.shown(targets[rows.numpy()], trips.item[events]))].sum()
    return {
        "ndcg@10": float(ndcg.mean()),
        "recall@10": float(recall.mean()),
        "log_loss": float(loss) / len(targets),
        "expected_size": float(torch.sigmoid(logits).sum(1).mean()),
        "size": float(lengths.mean()),
    }


class RatingCalibration(NamedTuple):
    """How far expected ratings are from the ratings given, in rating points."""

    error: float  # mean over bins of |mean expected - mean given|
    floor: float  # what the error of a model that knows every chance comes to, for the luck of the ratings alone


def rating_calibration(cdf: Tensor, real: Tensor, bins: int = 10) -> RatingCalibration:
    """Calibration of the expected rating in bins of equal mass.

    The floor is the mean over bins of ``sqrt(2 / pi) * sd``, the mean absolute value of a normal variable with the
    standard deviation that the model itself gives the mean rating of the bin.

    Args:
        cdf: P(rating <= 1..4), [Q, 4].
        real: the ratings given, [Q]; at least one a bin.
        bins: number of bins.
    """
    expected = 5.0 - cdf.sum(1)
    variance = 25.0 - cdf @ torch.tensor([3.0, 5.0, 7.0, 9.0], dtype=cdf.dtype) - expected**2  # E[r^2] - E[r]^2
    parts = expected.argsort(stable=True).tensor_split(bins)
    errors = torch.stack([(expected[rows] - real[rows]).mean().abs() for rows in parts])
    spreads = torch.stack([variance[rows].mean().sqrt() / math.sqrt(len(rows)) for rows in parts])
    return RatingCalibration(float(errors.mean()), math.sqrt(2 / math.pi) * float(spreads.mean()))
