"""The reward: a weighted sum of terms; and the costs of terms that lie outside their bounds."""

from __future__ import annotations

import functools
import operator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recgym.compiled import session as kernels
from recgym.scenario import Scenario
from recgym.simulation.population import Population
from recgym.simulation.terms import LIKED, Shown, Terms
from recgym.types import Appraisal
from recgym.worlds.world import World

Array = np.ndarray
_COMPILED = ("purchase", "revenue", "liked")  # in the order of the kernel's


@dataclass(frozen=True)
class Earned:
    """What slates earned, [B] each."""

    reward: Tensor  # float32
    terms: dict[str, Tensor]  # float32, unweighted; those of the reward first
    costs: dict[str, Tensor]  # float32, by constrained term: how far it lies outside its bounds


class Objective:
    """Computes reward, terms and costs; the weights are the scenario's or, where it has none, the world's own."""

    def __init__(self, world: World, scenario: Scenario, population: Population, device: torch.device) -> None:
        """Tabulates what the terms need; that the world has it, ``check_fit`` has found out."""
        given = scenario.objective.terms if scenario.objective is not None else {world.spec.reward: 1.0}
        self.weights: dict[str, float] = {str(name): float(weight) for name, weight in given.items()}
        self._bounds = {str(one.term): (one.at_least, one.at_most) for one in scenario.constraints}
        for one in scenario.constraints:  # bounds of one term may be given apart
            low, high = self._bounds[one.term]
            self._bounds[one.term] = (one.at_least if low is None else low, one.at_most if high is None else high)
        self._terms = Terms(world, scenario, population, device)
        self._set_aside = scenario.behaviour.delay.share
        changed = self._set_aside > 0 or scenario.actions.promotions.slots > 0  # what is paid is not what was taken
        paid = ("revenue",) if changed and Terms.possible(world, scenario, population)["revenue"] is None else ()
        self._names = tuple(dict.fromkeys((*self.weights, *self._bounds, *paid)))
        self.compiled = set(self._names) <= set(_COMPILED) and not self._bounds and not changed

    @property
    def price(self) -> Tensor:
        """Of the items, discount taken off, [N] currency units."""
        return self._terms.price

    def evaluate(self, shown: Shown) -> Earned:
        """Reward, terms and costs of slates."""
        terms = {name: self._terms.by_name[name](shown) for name in self._names}
        costs = {name: _excess(terms[name], *bounds) for name, bounds in self._bounds.items()}
        return Earned(self._weigh(terms).clone(), terms, costs)

    def evaluate_arrays(self, items: Array, consumed: Array, quantity: Array, rating: Array) -> dict[str, Array]:
        """``evaluate`` by a compiled kernel, where ``compiled``: the terms by name, and the reward as ``reward``."""
        values = np.empty((len(_COMPILED), len(items)), np.float32)
        kernels.evaluate(self.price.numpy(), LIKED, items, consumed, quantity, rating, values)
        by_name = dict(zip(_COMPILED, values, strict=True))
        terms = {name: by_name[name] for name in self.weights}
        return {**terms, "reward": np.array(self._weigh(terms))}

    def _weigh(self, terms: dict[str, Any]) -> Any:
        """The sum by weight, in order; a weight of 1 costs nothing."""
        weighted = (terms[name] if weight == 1.0 else terms[name] * weight for name, weight in self.weights.items())
        return functools.reduce(operator.add, weighted)

    def expected(self, items: Tensor, probability: Tensor, appraisal: Appraisal, again: Tensor) -> Tensor:
        """Expected reward float32 [B, C] of examined items [B, C], each taken by itself.

        Terms of a slate as a whole (diversity, unfairness) and of what follows it (return visits, purchases put aside)
        are left out.

        Args:
            items: item rows.
            probability: of their being wanted, [B, C].
            appraisal: of the items.
            again: bool [B, C], shown on this trip already.
        """
        value = torch.zeros_like(probability)
        for name, weight in self.weights.items():
            value = value + weight * self._each(name, items, appraisal)
        value = value * probability
        size = len(self._terms.attention)
        for name, share in (("novelty", self._terms.surprise), ("harm", self._terms.harmful)):
            if weight := self.weights.get(name, 0.0):
                value = value + (weight if name == "harm" else weight / size) * share[items]
        if weight := self.weights.get("coverage", 0.0):
            value = value + weight / size * (~again)
        return value

    def _each(self, name: str, items: Tensor, appraisal: Appraisal) -> Tensor:
        """What an item that is wanted brings to a term."""
        one = torch.ones_like(appraisal.logit)
        if name == "purchase":
            return one if self._set_aside == 0 else one * (1.0 - self._set_aside)
        if name == "revenue":
            each = self.price[items]
            each = each if appraisal.quantity_stop is None else each / appraisal.quantity_stop
            return each if self._set_aside == 0 else each * (1.0 - self._set_aside)
        if name == "click":
            return one
        if name in ("liked", "rating"):
            assert appraisal.rating_cdf is not None  # noqa: S101 - guaranteed by what terms need
            above = 1.0 - appraisal.rating_cdf  # [B, C, 4]: more than 1 to 4
            return above[..., LIKED - 2] if name == "liked" else 1.0 + above.sum(dim=-1)
        return torch.zeros_like(one)


def _excess(values: Tensor, low: float | None, high: float | None) -> Tensor:
    """How far ``values`` lie outside their bounds: the cost of a constrained problem (Altman, 1999)."""
    cost = torch.zeros_like(values)
    if low is not None:
        cost = cost + (low - values).clamp(min=0.0)
    return cost if high is None else cost + (values - high).clamp(min=0.0)
