"""Implicit alternating least squares (Hu, Koren and Volinsky, ICDM 2008), by the library ``implicit``."""

from __future__ import annotations

import torch
from pydantic import Field
from threadpoolctl import threadpool_limits

from recgym.agents.collaborative import CollaborativeAgent, CollaborativeConfig
from recgym.agents.features.factors import Factors
from recgym.agents.features.pairs import Pairs


class ALSConfig(CollaborativeConfig):
    """Settings of ``ALSAgent``."""

    factors: int = Field(64, ge=1, description="width of the vectors")
    regularization: float = Field(1.0, gt=0)
    alpha: float = Field(4.0, gt=0, description="confidence in a purchase, times log(1 + trips with the item)")
    iterations: int = Field(10, ge=1, description="alternations")


class ALSAgent(CollaborativeAgent):
    """Ranks by the product of factors that reconstruct who bought what, a purchase weighing more than its absence.

    Departure from the paper: the confidence in a purchase is alpha log(1 + trips), as for the library's other models.
    """

    id = "als"
    Config = ALSConfig
    Model = Factors

    def learn(self, pairs: Pairs) -> Factors:
        """See ``CollaborativeAgent``."""
        return factorise(pairs, self.config, self.seed)


def factorise(pairs: Pairs, config: ALSConfig, seed: int) -> Factors:
    """The factors of a log; the same on every run with one seed."""
    from implicit.cpu.als import AlternatingLeastSquares

    with threadpool_limits(1, "blas"):  # the library asks for it, and sums then round alike on any machine
        model = AlternatingLeastSquares(
            factors=config.factors,
            regularization=config.regularization,
            alpha=config.alpha,
            iterations=config.iterations,
            num_threads=1,
            random_state=seed,
        )
        model.fit(pairs.matrix(), show_progress=False)
    users, items = torch.from_numpy(model.user_factors.copy()), torch.from_numpy(model.item_factors.copy())
    ridge = items.T @ items + config.regularization * torch.eye(config.factors)
    bought_once = config.alpha * torch.tensor(2.0).log()
    return Factors(users, items, torch.zeros(len(items)), ridge, bought_once)
