"""Discrete BCQ: batch-constrained deep Q-learning (Fujimoto, Meger and Precup, ICML 2019).

For discrete actions as in Fujimoto, Conti, Ghavamzadeh and Pineau, "Benchmarking Batch Deep Reinforcement Learning
Algorithms" (2019): Q-learning among the actions that the log's policy is likely enough to take.

Departures: an action is one item of a slate, with the reward that the item earned itself and the worth of a slot of the
next slate as its future (with slates of one, the paper's rule); Q and the behaviour G are networks of their own; since
K of M items are shown, G is the share of slots that the log gives an item, and the threshold is far lower than 0.3.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor
from torch.nn.functional import smooth_l1_loss

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


class BCQConfig(OfflineConfig):
    """Settings of ``BCQAgent``."""

    threshold: Annotated[float, Search(0.001, 0.3, log=True)] = Field(
        0.003,
        ge=0,
        le=1,
        description="least share of an item in the log, relative to the most shown one's, to be allowed",
    )
    logit_penalty: float = Field(0.01, ge=0, description="on the squared logits of G, as in the paper")


class BCQAgent(OfflineAgent):
    """Ranks the candidates that the log's policy might have shown by Q; the others, and what was shown, come last."""

    id = "bcq"
    Config = BCQConfig
    names = ("q", "behaviour")

    def act(
        self, observations: Observations, context: ActContext, *, env: RecVectorEnv | None = None
    ) -> NDArray[np.int64]:
        """See ``Agent.act``."""
        device = self.q.out.device
        user, candidates = (as_tensor(observations[key]).to(device) for key in self.observes)
        q, g = (scorer.scores_by_block(user, candidates) for scorer in self.scorers.values())
        fresh = not_shown(self.world, observations).to(device)
        return top_slate(context.slate_size, fresh, allowed(g, self.config.threshold).float(), q)

    def loss(self, batch: Batch) -> Tensor:
        """Huber loss of Q against its target, the log-loss of G on what was shown, and a penalty on G's logits."""
        config = self.config
        with torch.no_grad():
            after = batch.next_user, batch.next_candidates
            open_to = allowed(self.scorers["behaviour"](*after), config.threshold) & batch.next_fresh
            future = slot_value(self.q(*after), self.target(*after), open_to, batch.slate.shape[1])
            target = batch.credit + config.gamma * (batch.goes_on * future)[:, None]
        q = self.q(batch.user, batch.candidates).gather(1, batch.slate)
        g = self.scorers["behaviour"](batch.user, batch.candidates)
        imitation = -g.log_softmax(1).gather(1, batch.slate).mean()
        return smooth_l1_loss(q, target) + imitation + config.logit_penalty * g.square().mean()


def allowed(logits: Tensor, threshold: float) -> Tensor:
    """BCQ's filter: candidates with G(a | s) / max_b G(b | s) > threshold, bool [b, M]; G is the softmax of ``logits``.

    At threshold 0 all pass, and the most likely one always does (at 1 by itself, where the paper's > would leave none).
    """
    if threshold == 0.0:
        return torch.ones_like(logits, dtype=torch.bool)
    top = logits.amax(1, keepdim=True)
    return (logits - top > math.log(threshold)) | (logits == top)
