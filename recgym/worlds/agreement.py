"""How far the networks of an ensemble agree on held-out trips."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recgym.user_models.preference.metrics import ndcg_and_recall
from recgym.user_models.preference.trips import Trips
from recgym.worlds import pointwise
from recgym.worlds.views import CutView, HeldOut
from recgym.worlds.world import World

LIKELIEST = 100  # items a user among which disagreement is told


def measure_members(
    view: Callable[[World], CutView], cut: World, held: HeldOut, trips: Trips, targets: np.ndarray
) -> dict[str, Any]:
    """How well each network of an ensemble and their mean predict trips ``targets``, and how far they disagree.

    Args:
        view: what a world cut before the trips predicts.
        cut: the world cut before the trips, with its members.
        held: what is known before them.
        trips: the log.
        targets: the held-out trips.

    Returns:
        JSON values: members and mean, each with NDCG@10 and log loss a trip; disagreement, by 100 items of highest q:
        the mean over pairs of the standard deviation of q between the members, and of that over q.
    """
    users = trips.trip_user[targets]
    logits = [view(replace(cut, weights=weights)).logits() for weights in (cut.weights, *cut.members)]
    mean = torch.stack([table.sigmoid() for table in logits]).mean(0).clamp(1e-7, 1 - 1e-7)

    def figures(table: Tensor) -> dict[str, Any]:
        ndcg, _ = ndcg_and_recall(table, trips, targets)
        predictors = pointwise.Predictors(table, held, trips.number[targets], 1.0)
        losses = pointwise.catalogue_losses(predictors)["model"]
        return pointwise.summaries({"ndcg@10": ndcg, "log_loss": losses}, users)

    top = mean.topk(min(LIKELIEST, mean.shape[1]), dim=1).indices
    chances = torch.stack([table.gather(1, top).sigmoid() for table in logits])
    spread = chances.std(dim=0, correction=0)
    return {
        "members": [figures(table) for table in logits],
        "mean": figures(torch.logit(mean)),
        "items_per_user": top.shape[1],
        "disagreement": round(float(spread.mean()), 5),
        "relative_disagreement": round(float((spread / chances.mean(0)).mean()), 4),
    }
