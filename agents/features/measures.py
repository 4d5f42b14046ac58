"""How well scores tell the good from the rest: AUC, NDCG@10, RMSE and MAE, as fractions or rating points."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor


def auc(scores: Tensor, good: Tensor) -> float:
    """The chance that a good one of all pairs scores above another one, ties counting half; NaN where all are alike.

    Args:
        scores: [n].
        good: bool [n].
    """
    good = good.bool()
    positives = int(good.sum())
    negatives = len(good) - positives
    if not positives or not negatives:
        return math.nan
    _, place, counts = torch.unique(scores, return_inverse=True, return_counts=True)
    ranks = counts.cumsum(0).double() - (counts - 1) / 2  # the mean rank of equal scores
    return float((ranks[place][good].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def ndcg(scores: Tensor, good: Tensor, k: int = 10) -> float:
    """The mean NDCG@k (Jarvelin and Kekalainen, 2002) of rows with something good; NaN where no row has.

    Args:
        scores: [B, M]; ties keep their order.
        good: bool [B, M].
        k: depth of the ranking.
    """
    rows = good.bool().any(1)
    if not bool(rows.any()):
        return math.nan
    scores, gains = scores[rows], good[rows].double()
    k = min(k, scores.shape[1])
    discounts = 1 / torch.arange(2, k + 2).double().log2()
    ranked = gains.gather(1, scores.argsort(dim=1, descending=True, stable=True)[:, :k])
    ideal = gains.sort(dim=1, descending=True).values[:, :k]
    return float(((ranked * discounts).sum(1) / (ideal * discounts).sum(1)).mean())


def errors(predicted: Tensor, real: Tensor) -> dict[str, float]:
    """RMSE and MAE of predictions [n], in rating points; NaN where there are none."""
    gap = (predicted.double() - real.double()).numpy()
    if not len(gap):
        return {"rmse": math.nan, "mae": math.nan}
    return {"rmse": float(np.sqrt(np.mean(gap**2))), "mae": float(np.mean(np.abs(gap)))}
