"""LinUCB: optimism about a linear reward (Li, Chu, Langford and Schapire, WWW 2010).

Departures from the paper: one parameter vector for all items, over the features of a candidate (the paper's shared part
without one vector an article: new items need no start of their own); the K best bounds make the slate; all lanes of a
step act on the same estimate, and are learned from together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from recgym.agents.blocks import by_block
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


class LinUCBConfig(RidgeConfig):
    """Settings of ``LinUCBAgent``."""

    alpha: Annotated[float, Search(0.01, 3.0, log=True)] = Field(
        0.3, ge=0, description="width of the bound in standard deviations, while learning"
    )


class LinUCBAgent(RidgeAgent):
    """Shows the K candidates with the largest x^T theta + alpha sqrt(x^T A^-1 x), theta = A^-1 b the ridge solution.

    Where it is not learning there is nothing to explore for, and it ranks by x^T theta alone. What this trip has shown
    already comes last.
    """

    id = "linucb"
    Config = LinUCBConfig

    def act(
        self, observations: Observations, context: ActContext, *, env: RecVectorEnv | None = None
    ) -> NDArray[np.int64]:
        """See ``Agent.act``."""
        alpha = self.config.alpha if context.learning else 0.0

        def bound(x: Tensor) -> Tensor:
            return self.ridge.mean(x) + alpha * self.ridge.deviation(x)

        scores = by_block(bound, contexts(observations))
        return top_slate(context.slate_size, not_shown(self.world, observations), scores)
