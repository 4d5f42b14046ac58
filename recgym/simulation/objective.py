"""The reward: a weighted sum of terms, each computed from the response to one slate."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recgym.compiled import session as kernels
from recgym.errors import ScenarioError, nearest
from recgym.scenario import Scenario
from recgym.types import Appraisal, Response
from recgym.worlds.world import World

Array = np.ndarray
LIKED = 4  # the lowest rating that counts as liked

# A term [B], given the response to a slate, the prices [N] and the items [B, K] of the slate.
_TERMS: dict[str, Callable[[Response, Tensor, Tensor], Tensor]] = {  # in the order of the kernel's
    "purchase": lambda response, price, items: response.consumed.sum(dim=1, dtype=torch.float32),
    "revenue": lambda response, price, items: (price[items] * response.quantity).sum(dim=1),
    "liked": lambda response, price, items: (response.rating >= LIKED).sum(dim=1, dtype=torch.float32),
}


class Objective:
    """Computes reward and terms; the weights are the scenario's or, where it has none, the world's own reward."""

    def __init__(self, world: World, scenario: Scenario, device: torch.device) -> None:
        """Checks that the world gives the responses that the terms need.

        Raises:
            ScenarioError: a term needs a response that the world does not have.
        """
        given = scenario.objective.terms if scenario.objective is not None else {world.spec.reward: 1.0}
        self.weights: dict[str, float] = {str(name): float(weight) for name, weight in given.items()}
        possible = ["purchase", *(["revenue"] if "quantity" in world.spec.responses else [])]
        possible += ["liked"] if "rating" in world.spec.responses else []
        for name in self.weights:
            if name not in possible:
                guess = nearest(name, possible)
                raise ScenarioError(
                    f"objective term {name!r} of scenario {scenario.name!r} does not apply to world {world.name!r}, "
                    f"whose responses are {', '.join(world.spec.responses)}. Valid: {', '.join(possible)}."
                    + (f" Did you mean {guess!r}?" if guess else "")
                )
        price = torch.zeros(world.num_items)
        if "price" in world.items:
            columns = world.items.reindex(columns=["price", "discount"]).fillna(0.0)
            price = torch.tensor((columns["price"] * (1.0 - columns["discount"])).to_numpy("float32"))
        self._price = price.to(device)  # [N] currency units, discount taken off

    def evaluate(self, items: Tensor, response: Response) -> tuple[Tensor, dict[str, Tensor]]:
        """Reward float32 [B] and the unweighted terms, each float32 [B], of a slate's response."""
        terms = {name: _TERMS[name](response, self._price, items) for name in self.weights}
        reward = self._weigh(terms)
        return reward.clone(), terms

    def evaluate_arrays(self, items: Array, consumed: Array, quantity: Array, rating: Array) -> dict[str, Array]:
        """``evaluate`` by a compiled kernel: the terms by name, and the reward as ``reward``."""
        values = np.empty((len(_TERMS), len(items)), np.float32)
        kernels.evaluate(self._price.numpy(), LIKED, items, consumed, quantity, rating, values)
        by_name = dict(zip(_TERMS, values, strict=True))
        terms = {name: by_name[name] for name in self.weights}
        return {**terms, "reward": np.array(self._weigh(terms))}

    def _weigh(self, terms: dict[str, Any]) -> Any:
        """The sum by weight, in order; a weight of 1 costs nothing."""
        weighted = (terms[name] if weight == 1.0 else terms[name] * weight for name, weight in self.weights.items())
        return functools.reduce(operator.add, weighted)

    def expected(self, items: Tensor, probability: Tensor, appraisal: Appraisal) -> Tensor:
        """Expected reward float32 [B, C] of examined items [B, C] with purchase ``probability`` [B, C]."""
        value = torch.zeros_like(probability)
        for name, weight in self.weights.items():
            if name == "revenue":
                each = self._price[items]
                if appraisal.quantity_stop is not None:
                    each = each / appraisal.quantity_stop
            elif name == "liked":
                assert appraisal.rating_cdf is not None  # noqa: S101 - guaranteed by the responses checked above
                each = 1.0 - appraisal.rating_cdf[..., LIKED - 2]
            else:
                each = torch.ones_like(probability)
            value = value + weight * each
        return value * probability
