"""Calibration on held-out trips: how much weight each part of the logit deserves where it was not trained."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from recgym.user_models.preference.network import PreferenceNetwork
from recgym.user_models.preference.scoring import Components
from recgym.user_models.preference.trips import Trips

NEWTON_STEPS = 25


@torch.no_grad()
def calibrate(network: PreferenceNetwork, parts: Components, trips: Trips, targets: np.ndarray) -> list[float]:
    """Fits a weight for each part of the logit and an intercept on trips ``targets``, and folds them into the network.

    The wide parts remember their training trips and are too sure of themselves elsewhere; the repeat term, with a few
    features, is not. One weight each (a temperature is the case of equal weights) minimises the log loss over the whole
    catalogue, a convex problem in five numbers that Newton's method solves.

    Returns:
        The weights of the bilinear term, the hidden layer, the repeat term and the item bias, and the intercept.
    """
    labels = torch.zeros_like(parts.match)
    for row, trip in enumerate(targets):
        labels[row, torch.from_numpy(trips.item[trips.events[trip] : trips.events[trip + 1]])] = 1.0
    columns = (parts.match, parts.hidden, parts.repeat, parts.bias.expand_as(parts.match), torch.ones_like(labels))
    weights = torch.tensor([1.0, 1.0, 1.0, 1.0, 0.0], dtype=torch.float64)
    for _ in range(NEWTON_STEPS):
        gradient, hessian = _derivatives(columns, labels, weights)
        move = torch.linalg.solve(hessian + 1e-6 * torch.eye(len(weights), dtype=torch.float64), gradient)
        weights = weights - move.clamp(-1, 1)
        if float(move.abs().max()) < 1e-6:
            break
    match, hidden, repeat, bias, intercept = weights.tolist()
    for parameter in (network.match.weight, network.match.bias):
        parameter.mul_(match)
    network.head_purchase.mul_(hidden)
    network.repeat_out.mul_(repeat)
    network.item_bias.weight.mul_(bias)
    network.item_bias.bias.mul_(bias).add_(intercept)
    return weights.tolist()


def _derivatives(columns: tuple[Tensor, ...], labels: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Gradient [C] and Hessian [C, C] of the summed log loss, in blocks of rows to bound the memory."""
    gradient = torch.zeros(len(columns), dtype=torch.float64)
    hessian = torch.zeros(len(columns), len(columns), dtype=torch.float64)
    for start in range(0, len(labels), 64):
        block = torch.stack([column[start : start + 64].flatten() for column in columns]).double()  # [C, n]
        chance = torch.sigmoid(weights @ block)
        gradient += block @ (chance - labels[start : start + 64].flatten())
        hessian += (block * (chance * (1 - chance))) @ block.T
    return gradient, hessian
