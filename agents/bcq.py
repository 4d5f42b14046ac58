"""Discrete BCQ: batch-constrained deep Q-learning (Fujimoto, Meger and Precup, ICML 2019).

For discrete actions as in Fujimoto, Conti, Ghavamzadeh and Pineau, "Benchmarking Batch Deep Reinforcement Learning
Algorithms" (2019): Q-learning among the actions that the log's policy is likely enough to take.

Departures: an action is one item of a slate, with the reward that the item earned itself and the worth of a slot of the
next slate as its future (with slates of one, the paper's rule); Q and the behaviour G are networks of their own; since
K of M items are shown, G is the share of slots that the log gives an item, and the threshold is far lower than 0.3.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import smooth_l1_loss

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


class BCQConfig(OfflineConfig):
    """Settings of ``BCQAgent``."""

    # Frequency is personal: around it, G lets through little but what a user bought before.
    behaviour: str = Field("popularity", description="agent whose slates are logged, where it collects its own")
    threshold: Annotated[float, Search(0.003, 0.3, log=True)] = Field(
        0.02,
        ge=0,
        le=1,
        description="least share of an item in the log, relative to the most shown one's, to be allowed",
    )
    logit_penalty: float = Field(0.01, ge=0, description="on the squared logits of G, as in the paper")


class BCQAgent(Agent):
    """Ranks the candidates that the log's policy might have shown by Q; the others, and what was shown, come last."""

    id = "bcq"
    observes = ("user", "candidates")
    learns = "environment"
    Config = BCQConfig

    def __init__(self, world: World, config: AgentConfig | None = None, seed: int = 0) -> None:
        """See ``Agent``; untrained until ``train`` or ``load``."""
        super().__init__(world, config, seed)
        layout = observation_layout(world, self.observes)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed & 0x7FFFFFFF)
            sizes = len(layout["user"]), len(layout["candidates"]), self.config.hidden
            self.q, self.behaviour = SlateScorer(*sizes), SlateScorer(*sizes)
        self.target = copy.deepcopy(self.q).requires_grad_(False)
        self.network = nn.ModuleDict({"q": self.q, "target": self.target, "behaviour": self.behaviour})

    def act(
        self, observations: Observations, context: ActContext, *, env: RecVectorEnv | None = None
    ) -> NDArray[np.int64]:
        """See ``Agent.act``."""
        device = self.q.out.device
        user, candidates = (as_tensor(observations[key]).to(device) for key in self.observes)
        q, g = (scorer.scores_by_block(user, candidates) for scorer in (self.q, self.behaviour))
        fresh = not_shown(self.world, observations).to(device)
        return top_slate(context.slate_size, fresh, allowed(g, self.config.threshold).float(), q)

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
        """Huber loss of Q against its target, the log-loss of G on what was shown, and a penalty on G's logits."""
        config = self.config
        with torch.no_grad():
            after = batch.next_user, batch.next_candidates
            open_to = allowed(self.behaviour(*after), config.threshold) & batch.next_fresh
            future = slot_value(self.q(*after), self.target(*after), open_to, batch.slate.shape[1])
            target = batch.credit + config.gamma * (batch.goes_on * future)[:, None]
        q = self.q(batch.user, batch.candidates).gather(1, batch.slate)
        g = self.behaviour(batch.user, batch.candidates)
        imitation = -g.log_softmax(1).gather(1, batch.slate).mean()
        return smooth_l1_loss(q, target) + imitation + config.logit_penalty * g.square().mean()

    def tensors(self) -> dict[str, Tensor]:
        """The networks."""
        return self.network.state_dict()

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Takes back what ``tensors`` gave."""
        self.network.load_state_dict(tensors)


def allowed(logits: Tensor, threshold: float) -> Tensor:
    """BCQ's filter: candidates with G(a | s) / max_b G(b | s) > threshold, bool [b, M]; G is the softmax of ``logits``.

    At threshold 0 all pass, and the most likely one always does (at 1 by itself, where the paper's > would leave none).
    """
    if threshold == 0.0:
        return torch.ones_like(logits, dtype=torch.bool)
    top = logits.amax(1, keepdim=True)
    return (logits - top > math.log(threshold)) | (logits == top)
