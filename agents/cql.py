"""Discrete CQL: conservative Q-learning (Kumar, Zhou, Tucker and Levine, NeurIPS 2020), its CQL(H) variant.

Departures: an action is one item of a slate, with the reward that the item earned itself and the worth of a slot of the
next slate as its future (with slates of one, the paper's rule); plain Q-learning instead of quantiles.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from recgym.agents.offline import Batch, OfflineAgent, OfflineConfig, slot_value
from recgym.agents.protocol import (
    ActContext,
    Observations,
    as_tensor,
    not_shown,
    top_slate,
)
from recgym.agents.search import Search

if TYPE_CHECKING:
    from recgym.envs.vector import RecVectorEnv


class CQLConfig(OfflineConfig):
    """Settings of ``CQLAgent``."""

    alpha: Annotated[float, Search(0.001, 1.0, log=True)] = Field(
        0.002,
        ge=0,
        description="weight of the penalty: what it adds to Q where the log shows an item often has to be small beside "
        "what items differ by, a few hundredths; with less data more of it is better",
    )


class CQLAgent(OfflineAgent):
    """Ranks the candidates by a Q that is kept low where the log shows little; what was shown comes last."""

    id = "cql"
    Config = CQLConfig

    def act(
        self, observations: Observations, context: ActContext, *, env: RecVectorEnv | None = None
    ) -> NDArray[np.int64]:
        """See ``Agent.act``."""
        device = self.q.out.device
        user, candidates = (as_tensor(observations[key]).to(device) for key in self.observes)
        fresh = not_shown(self.world, observations).to(device)
        return top_slate(context.slate_size, fresh, self.q.scores_by_block(user, candidates))

    def loss(self, batch: Batch) -> Tensor:
        """The weighted penalty, and half the squared difference of Q from its target."""
        config = self.config
        with torch.no_grad():
            values = self.target(batch.next_user, batch.next_candidates)
            future = slot_value(values, values, batch.next_fresh, batch.slate.shape[1])
            target = batch.credit + config.gamma * (batch.goes_on * future)[:, None]
        q = self.q(batch.user, batch.candidates)
        error = q.gather(1, batch.slate) - target
        return config.alpha * conservatism(q, batch.slate) + 0.5 * error.square().mean()


def conservatism(q: Tensor, slate: Tensor) -> Tensor:
    """CQL(H)'s penalty: the mean of log sum_a exp Q(s, a) - Q(s, a shown); q [b, M], slate [b, K] positions."""
    return (q.logsumexp(1) - q.gather(1, slate).mean(1)).mean()
