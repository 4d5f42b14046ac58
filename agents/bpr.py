"""Bayesian personalised ranking of factors (Rendle et al., UAI 2009), by the library ``implicit``."""

from __future__ import annotations

import torch
from pydantic import Field

from recgym.agents.collaborative import CollaborativeAgent, CollaborativeConfig
from recgym.agents.features.factors import Factors
from recgym.agents.features.pairs import Pairs


class BPRConfig(CollaborativeConfig):
    """Settings of ``BPRAgent``."""

    factors: int = Field(64, ge=1, description="width of the vectors")
    learning_rate: float = Field(0.05, gt=0)
    regularization: float = Field(0.01, ge=0)
    iterations: int = Field(30, ge=1, description="passes over the purchases")


class BPRAgent(CollaborativeAgent):
    """Ranks by factors that put what a user bought above what the user did not, for pairs drawn at random."""

    id = "bpr"
    Config = BPRConfig
    Model = Factors

    def learn(self, pairs: Pairs) -> Factors:
        """See ``CollaborativeAgent``."""
        if not len(pairs):
            return Factors.blank(pairs.num_users, pairs.num_items)
        from implicit.cpu.bpr import BayesianPersonalizedRanking

        config = self.config
        model = BayesianPersonalizedRanking(
            factors=config.factors,
            learning_rate=config.learning_rate,
            regularization=config.regularization,
            iterations=config.iterations,
            num_threads=1,
            random_state=self.seed,
        )
        model.fit(pairs.matrix(), show_progress=False)
        users, items = torch.from_numpy(model.user_factors.copy()), torch.from_numpy(model.item_factors.copy())
        # The last coordinate is 1 for users and the bias for items.
        items, bias = items[:, :-1].contiguous(), items[:, -1].contiguous()
        # The library compares with items that somebody bought: the others still have what they were drawn with.
        never = torch.bincount(pairs.items, minlength=pairs.num_items) == 0
        items[never], bias[never] = 0.0, bias[~never].min()
        return Factors(users[:, :-1].contiguous(), items, bias, torch.eye(items.shape[1]), torch.ones(()))
