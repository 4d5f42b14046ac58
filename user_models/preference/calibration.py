"""Calibration on held-out trips: how much weight each part of the logit deserves where it was not trained."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Self, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recgym.user_models.preference.losses import geometric_loss, ordinal_loss, rating_cdf
from recgym.user_models.preference.network import PreferenceNetwork, thresholds
from recgym.user_models.preference.scoring import Components, PairOutput
from recgym.user_models.preference.trips import Trips

NEWTON_STEPS, FITTING_STEPS = 50, 30
PSEUDO = 0.5  # trips added to each bin: no bin becomes impossible
PRIOR = 10.0  # precision of the prior that a part deserves weight 1: decides where the trips cannot tell parts apart


@torch.no_grad()
def calibrate(network: PreferenceNetwork, parts: Components, trips: Trips, targets: np.ndarray) -> list[float]:
    """Fits a weight for each part of the logit and an intercept on trips ``targets``, and folds them into the network.

    The wide parts remember their training trips and are too sure of themselves elsewhere; the repeat term, with a few
    features, is not. One weight each (a temperature is the case of equal weights) minimises the log loss over the whole
    catalogue, a convex problem in five numbers that Newton's method with a line search solves.

    Returns:
        The weights of the bilinear term, the hidden layer, the repeat term and the item bias, and the intercept.
    """
    labels = torch.zeros_like(parts.match)
    for row, trip in enumerate(targets):
        labels[row, torch.from_numpy(trips.item[trips.events[trip] : trips.events[trip + 1]])] = 1.0
    counted = torch.ones_like(labels)
    if trips.exposures is not None:
        at, item, _ = trips.exposures.of(targets)
        counted[torch.from_numpy(at), torch.from_numpy(item)] = 0.0
    columns = (parts.match, parts.hidden, parts.repeat, parts.bias.expand_as(parts.match), torch.ones_like(labels))
    weights = torch.tensor([1.0, 1.0, 1.0, 1.0, 0.0], dtype=torch.float64)
    loss, gradient, hessian = _derivatives(columns, labels, counted, weights)
    for _ in range(NEWTON_STEPS):
        move = torch.linalg.solve(hessian, gradient)
        slope, stride = float(gradient @ move), 1.0
        if slope < 1e-8:
            break
        while stride > 1e-6:  # a whole step may overshoot where chances are near 0 or 1
            trial = _derivatives(columns, labels, counted, weights - stride * move)
            if trial[0] <= loss - 1e-4 * stride * slope:
                break
            stride /= 2
        else:
            break
        weights = weights - stride * move
        loss, gradient, hessian = trial
    match, hidden, repeat, bias, intercept = weights.tolist()
    for parameter in (network.match.weight, network.match.bias):
        parameter.mul_(match)
    network.head_purchase.mul_(hidden)
    network.repeat_out.mul_(repeat)
    network.item_bias.weight.mul_(bias)
    network.item_bias.bias.mul_(bias).add_(intercept)
    return weights.tolist()


@torch.no_grad()
def calibrate_bins(head: nn.Sequential, fused: Tensor, bins: Tensor) -> None:
    """Shifts the biases of a head until, summed over moments, it expects what was seen in every bin.

    A trip is trained on only if two more followed before the log ended, and long gaps leave no room for those: what a
    head learns is short of what comes next, above all for users who come seldom. The likelihood of ``bins``, concave
    in the biases, is climbed by iterative proportional fitting.

    Args:
        head: whose last layer gives the logits of bins.
        fused: x of P held-out moments, [P, d].
        bins: the bin that was seen after each, int64 [P].
    """
    last = cast(nn.Linear, head[-1])
    seen = torch.bincount(bins, minlength=last.out_features) + PSEUDO
    scale = seen.sum() / len(bins)
    for _ in range(FITTING_STEPS):
        last.bias.add_((seen / (scale * head(fused).softmax(1).sum(0)).clamp(min=1e-6)).log())


def calibrate_answers(network: PreferenceNetwork, output: PairOutput, answers: Tensor, ratings: bool) -> None:
    """Fits the scale and the level of what is answered, quantities or ratings, to held-out answers [Q].

    Quantities get a slope and an intercept on the logit of the geometric parameter, ratings a slope on the location
    and new cut points; the log likelihood is climbed by L-BFGS and the result folded into the network. ``PRIOR`` keeps
    the slope near 1 where answers are few.
    """
    if len(answers) == 0:
        return
    slope = torch.ones((), requires_grad=True)
    shift = torch.zeros((), requires_grad=True)
    cuts = network.rating_cuts.detach().clone().requires_grad_()
    fitted = [slope, cuts] if ratings else [slope, shift]

    def loss() -> Tensor:
        if ratings:
            value = ordinal_loss(rating_cdf(thresholds(cuts), slope * output.rating), answers)
        else:
            value = geometric_loss(slope * output.stop + shift, answers)
        return value + PRIOR / (2 * len(answers)) * (slope - 1) ** 2

    if not _descend(fitted, loss):
        return
    with torch.no_grad():
        if ratings:
            network.head_rating.mul_(slope)
            network.rating_cuts.copy_(cuts)
        else:
            network.head_quantity.mul_(slope)
            network.quantity_bias.mul_(slope).add_(shift)


class OrdinalCalibration(NamedTuple):
    """A slope on the logits of P(rating <= k), and a shift for each k."""

    slope: float
    shifts: Tensor  # [4]

    @classmethod
    def fit(cls, cdf: Tensor, rating: Tensor) -> Self:
        """The most likely one given held-out ratings [Q] that were given P(rating <= 1..4) [Q, 4].

        ``PRIOR`` keeps slope and shifts small where ratings are few; what is not finite is not applied.
        """
        logits = _logits(cdf.double())
        nothing = torch.tensor([1.0, 0.0, 0.0, 0.0, 0.0], dtype=torch.float64)
        fitted = nothing.clone().requires_grad_()

        def loss() -> Tensor:
            value = ordinal_loss(torch.sigmoid(fitted[0] * logits + fitted[1:]), rating)
            return value + PRIOR / (2 * len(rating)) * (fitted - nothing).square().sum()

        good = _descend([fitted], loss) and fitted[0] > 0
        found = fitted.detach()
        return cls(float(found[0]), found[1:]) if good else cls(1.0, nothing[1:])

    def __call__(self, cdf: Tensor) -> Tensor:
        """Calibrated P(rating <= 1..4), [Q, 4], in order as chances of ever more ratings have to be."""
        return torch.sigmoid(self.slope * _logits(cdf) + self.shifts.to(cdf)).cummax(dim=-1).values


def _descend(fitted: list[Tensor], loss: Callable[[], Tensor]) -> bool:
    """Minimises ``loss`` over ``fitted``, in place, by L-BFGS; whether the outcome is finite."""
    optimizer = torch.optim.LBFGS(fitted, max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = loss()
        value.backward()
        return value

    optimizer.step(closure)
    return all(bool(torch.isfinite(part).all()) for part in fitted)


def _logits(chances: Tensor) -> Tensor:
    return torch.logit(chances, eps=1e-6)


def _derivatives(
    columns: tuple[Tensor, ...], labels: Tensor, counted: Tensor, weights: Tensor
) -> tuple[float, Tensor, Tensor]:
    """The summed log loss with the prior, its gradient [C] and Hessian [C, C], of the ``counted`` pairs; by blocks."""
    prior = torch.full((len(columns),), PRIOR, dtype=torch.float64)
    prior[-1] = 1e-6  # the intercept is free
    away = weights - torch.tensor([1.0] * (len(columns) - 1) + [0.0], dtype=torch.float64)
    loss = float((prior * away**2).sum()) / 2
    gradient, hessian = prior * away, torch.diag(prior)
    for start in range(0, len(labels), 64):
        block = torch.stack([column[start : start + 64].flatten() for column in columns]).double()  # [C, n]
        told, weight = (table[start : start + 64].flatten() for table in (labels, counted))
        logit = weights @ block
        chance = torch.sigmoid(logit)
        loss += float((weight * (F.softplus(logit) - logit * told)).sum())
        gradient += block @ (weight * (chance - told))
        hessian += (block * (weight * chance * (1 - chance))) @ block.T
    return loss, gradient, hessian
