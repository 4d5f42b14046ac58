"""Epsilon-greedy: ridge regression of rewards, with uniformly random items in some slots while learning.

Sutton and Barto, Reinforcement Learning, 2nd ed., section 2.2, with a linear value (their section 9.4) over the
features of a candidate; exploration is slot by slot.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from recgym.agents.blocks import by_block
from recgym.agents.exploration import explore, lane_keys, slot_propensities
from recgym.agents.protocol import (
    ActContext,
    Observations,
    not_shown,
    top_slate,
)
from recgym.agents.ridge import RidgeAgent, RidgeConfig, contexts
from recgym.agents.search import Search

if TYPE_CHECKING:
    from recgym.envs.vector import RecVectorEnv


class EpsilonGreedyConfig(RidgeConfig):
    """Settings of ``EpsilonGreedyAgent``."""

    epsilon: Annotated[float, Search(0.01, 0.5, log=True)] = Field(
        0.1, ge=0, le=1, description="chance that a slot shows a uniformly drawn candidate, while learning"
    )


class EpsilonGreedyAgent(RidgeAgent):
    """Ranks by the ridge estimate x^T theta; while learning, some slots show any of the candidates left.

    What this trip has shown already comes last.
    """

    id = "epsilon_greedy"
    stochastic = True
    Config = EpsilonGreedyConfig

    def act(
        self, observations: Observations, context: ActContext, *, env: RecVectorEnv | None = None
    ) -> NDArray[np.int64]:
        """See ``Agent.act``."""
        ranking = self._ranking(observations)
        return explore(ranking, context.slate_size, self._epsilon(context), lane_keys(self.seed, context))

    def propensities(
        self, observations: Observations, context: ActContext, slates: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """See ``Agent.propensities``."""
        return slot_propensities(self._ranking(observations), slates, self._epsilon(context))

    def _epsilon(self, context: ActContext) -> float:
        return self.config.epsilon if context.learning else 0.0

    def _ranking(self, observations: Observations) -> NDArray[np.int64]:
        scores = by_block(self.ridge.mean, contexts(observations))
        return top_slate(scores.shape[1], not_shown(self.world, observations), scores)
