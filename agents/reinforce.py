"""REINFORCE with top-K off-policy correction (Chen et al., WSDM 2019).

The paper is "Top-K off-policy correction for a REINFORCE recommender system".

An item i that was shown by an earlier policy beta, and returned R, moves the softmax policy pi by

    min(pi(i) / beta(i), cap) * alpha_K(i) * R * grad log pi(i),    alpha_K(i) = K (1 - pi(i)) ** (K - 1)

Departures from the paper: pi is a softmax over the step's candidates, scored from their features, instead of a
recurrent network over the whole catalogue; beta is recorded when a slate is drawn, so it needs no model; slates are
drawn without replacement (the paper samples with, and drops repeats); R is the item's own reward and, discounted, what
later slates of the episode earned, as far as they are remembered.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from recgym.agents.learning import LearnerConfig, ReplayAgent, Trainer, descend
from recgym.agents.networks import SlateScorer
from recgym.agents.replay import Replay
from recgym.agents.search import Search

_FAR = 20.0  # nats between what the trip has shown and the rest


class ReinforceConfig(LearnerConfig):
    """Settings of ``ReinforceAgent``."""

    weight_cap: float = Field(10.0, gt=0, description="largest importance weight pi / beta")
    entropy_coef: Annotated[float, Search(1e-5, 1e-1, log=True)] = Field(
        1e-3, ge=0, description="of the policy's entropy, per nat"
    )
    replay_size: int = Field(8192, ge=2, description="slates remembered: those of few, recent policies")


class ReinforceAgent(ReplayAgent):
    """Shows the candidates of largest probability."""

    id = "reinforce"
    Config = ReinforceConfig

    def build(self, num_user: int, num_candidate: int) -> nn.Module:
        """See ``NetworkAgent.build``."""
        return SlateScorer(num_user, num_candidate, self.config.hidden)

    def trainer(self, slate_size: int) -> Trainer:
        """See ``ReplayAgent.trainer``."""
        return _Trainer(self, slate_size)


def top_k_factor(probability: Tensor, slate_size: int) -> Tensor:
    """alpha_K = K (1 - pi) ** (K - 1): how much more a gradient counts for appearing on a slate of K than for being it.

    It is d P(on the slate) / d pi for P = 1 - (1 - pi) ** K: about K for unlikely items, 0 for those that are certain
    to be shown.
    """
    return slate_size * (1.0 - probability) ** (slate_size - 1)


class _Trainer:
    """See ``recgym.agents.learning.Trainer``."""

    def __init__(self, agent: ReinforceAgent, slate_size: int) -> None:
        self.config, self.slate_size = agent.config, slate_size
        self.agent, self.network = agent, agent.network
        self.modules: Mapping[str, nn.Module] = {"network": self.network}
        self.optimizers: Mapping[str, torch.optim.Optimizer] = {
            "network": torch.optim.Adam(self.network.parameters(), self.config.learning_rate)
        }
        self.replay = Replay(self.config.replay_size)

    def _log_policy(self, user: Tensor, candidates: Tensor) -> Tensor:
        """Log pi [B, M]; what the trip has shown comes last, as in ``act``."""
        return self.agent.shown_last(self.network(user, candidates), candidates, margin=_FAR).log_softmax(1)

    def explore(self, user: Tensor, candidates: Tensor, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        log_p = self._log_policy(user, candidates)
        gumbel = -torch.empty_like(log_p).exponential_(generator=generator).log()
        slates = (log_p + gumbel).topk(self.slate_size).indices
        return slates, {"slate": slates, "log_beta": log_p.gather(1, slates)}

    def update(self, generator: torch.Generator) -> dict[str, float]:
        batch = self.replay.sample(self.config.batch_size, generator)
        slate, log_beta = batch.more["slate"], batch.more["log_beta"]
        later = self.replay.later(self.config.gamma)[batch.place]
        returned = batch.more["own"] + self.config.gamma * later[:, None]
        log_p = self._log_policy(batch.user, batch.candidates)
        chosen = log_p.gather(1, slate)
        with torch.no_grad():
            weight = (chosen - log_beta).exp().clamp(max=self.config.weight_cap)
            weight = weight * top_k_factor(chosen.exp(), self.slate_size)
        entropy = -(log_p.exp() * log_p).sum(1).mean()
        loss = -(weight * returned * chosen).sum(1).mean() - self.config.entropy_coef * entropy
        descend(self.optimizers["network"], loss, self.config.max_grad_norm)
        return {"loss": loss.item(), "entropy": entropy.item(), "weight": weight.mean().item()}
