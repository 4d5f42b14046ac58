"""How a user model that only appraises items answers a slate."""

from __future__ import annotations

import torch
from torch import Tensor

from recgym.simulation.kernels import sigmoid
from recgym.types import Appraisal, Noise, Response, Slate


def answer(view: Appraisal, slate: Slate, noise: Noise) -> tuple[Response, Tensor]:
    """What ``UserModel.respond`` returns for users who take one unit of what they want, and rate it where they rate.

    An examined item is taken where its draw lies below ``sigmoid(logit + lift)``.
    """
    probability = sigmoid(view.logit + slate.lift)
    consumed = slate.examined & (noise.want < probability)
    quantity = consumed.to(torch.int32)
    if view.rating_cdf is None:
        return Response(consumed, quantity, torch.zeros_like(quantity)), probability
    rating = quantity * (1 + (noise.rating[..., None] > view.rating_cdf).sum(-1, dtype=torch.int32))
    return Response(consumed, quantity, rating), probability
