"""Discrete CQL: conservative Q-learning (Kumar, Zhou, Tucker and Levine, NeurIPS 2020), its CQL(H) variant.

Departures: an action is one item of a slate, with the reward that the item earned itself and the worth of a slot of the
next slate as its future (with slates of one, the paper's rule); plain Q-learning instead of quantiles.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn

from recgym.agents.networks import SlateScorer
from recgym.agents.offline import Batch, OfflineConfig, learn_offline, logged, slot_value
from recgym.agents.protocol import (
    ActContext,
    Agent,
    AgentConfig,
    Observations,
    as_tensor,
    not_shown,
    observation_layout,
    top_slate,
)
from recgym.agents.search import Search

if TYPE_CHECKING:
    from recgym.envs.vector import RecVectorEnv
    from recgym.worlds.world import World


class CQLConfig(OfflineConfig):
    """Settings of ``CQLAgent``."""

    alpha: Annotated[float, Search(0.001, 1.0, log=True)] = Field(
        0.02, ge=0, description="weight of the penalty; rewards of an item are at most about 1"
    )


class CQLAgent(Agent):
    """Ranks the candidates by a Q that is kept low where the log shows little; what was shown comes last."""

    id = "cql"
    observes = ("user", "candidates")
    learns = "environment"
    Config = CQLConfig

    def __init__(self, world: World, config: AgentConfig | None = None, seed: int = 0) -> None:
        """See ``Agent``; untrained until ``train`` or ``load``."""
        super().__init__(world, config, seed)
        layout = observation_layout(world, self.observes)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed & 0x7FFFFFFF)
            self.q = SlateScorer(len(layout["user"]), len(layout["candidates"]), self.config.hidden)
        self.target = copy.deepcopy(self.q).requires_grad_(False)
        self.network = nn.ModuleDict({"q": self.q, "target": self.target})

    def act(
        self, observations: Observations, context: ActContext, *, env: RecVectorEnv | None = None
    ) -> NDArray[np.int64]:
        """See ``Agent.act``."""
        device = self.q.out.device
        user, candidates = (as_tensor(observations[key]).to(device) for key in self.observes)
        fresh = not_shown(self.world, observations).to(device)
        return top_slate(context.slate_size, fresh, self.q.scores_by_block(user, candidates))

    def train(
        self,
        env: RecVectorEnv,
        steps: int,
        *,
        directory: Path | None = None,
        progress: Callable[[int], None] | None = None,
        resume: bool = False,
    ) -> None:
        """See ``Agent.train``: collects (or reads) logs, then learns from them alone."""
        rollouts = logged(self, env, steps)
        learn_offline(
            self, self.network, rollouts, self.loss, steps, directory=directory, progress=progress, resume=resume
        )

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

    def tensors(self) -> dict[str, Tensor]:
        """The networks."""
        return self.network.state_dict()

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Takes back what ``tensors`` gave."""
        self.network.load_state_dict(tensors)


def conservatism(q: Tensor, slate: Tensor) -> Tensor:
    """CQL(H)'s penalty: the mean of log sum_a exp Q(s, a) - Q(s, a shown); q [b, M], slate [b, K] positions."""
    return (q.logsumexp(1) - q.gather(1, slate).mean(1)).mean()
