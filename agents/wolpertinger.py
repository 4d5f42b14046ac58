"""Wolpertinger (Dulac-Arnold et al., 2015): an ideal item is proposed, its nearest neighbours are ranked by value.

The paper is "Deep reinforcement learning in large discrete action spaces"; actor and critic learn by DDPG.

Departures from the paper: a slate of K is shown instead of one item, so Q(s, i) is item-wise and a slate's value the
sum over its items; an item is embedded by its observable features (action mode ``proto``), at which the same critic
judges the proposal; while learning, the K nearest of the proposal, with noise, are shown, and targets are those of the
refined policy.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from recgym.agents.learning import LearnerConfig, ReplayAgent, Trainer, descend, follow
from recgym.agents.networks import SlateScorer, StateNetwork
from recgym.agents.replay import Replay
from recgym.agents.search import Search
from recgym.envs.actions import squared_distances


class WolpertingerConfig(LearnerConfig):
    """Settings of ``WolpertingerAgent``."""

    neighbours: int = Field(60, ge=1, description="candidates nearest to the proposal that the critic ranks")
    noise: Annotated[float, Search(0.05, 2.0, log=True)] = Field(
        0.5, ge=0, description="standard deviation of the noise on each feature of the proposal"
    )
    exploration: Annotated[float, Search(0.01, 0.5, log=True)] = Field(
        0.3, ge=0, le=1, description="chance that a lane proposes at random"
    )
    target_rate: float = Field(0.05, gt=0, le=1, description="share by which targets follow at each gradient step")


class WolpertingerNetwork(nn.Module):
    """The proposing actor, and the item-wise critic."""

    def __init__(self, num_user: int, num_candidate: int, hidden: int) -> None:
        """For ``num_user`` and ``num_candidate`` features."""
        super().__init__()
        self.critic = SlateScorer(num_user, num_candidate, hidden)
        self.actor = StateNetwork(num_user, num_candidate, hidden, outputs=num_candidate)

    def propose(self, user: Tensor, candidates: Tensor) -> Tensor:
        """The features [B, F] of an ideal item, in [-1, 1]."""
        return torch.tanh(self.actor(*self.critic.standardised(user, candidates)))


class WolpertingerAgent(ReplayAgent):
    """Shows the candidates of highest value among the neighbours of the proposal; then the next nearest."""

    id = "wolpertinger"
    action_mode = "proto"
    Config = WolpertingerConfig

    def build(self, num_user: int, num_candidate: int) -> nn.Module:
        """See ``NetworkAgent.build``."""
        return WolpertingerNetwork(num_user, num_candidate, self.config.hidden)

    def scores(self, user: Tensor, candidates: Tensor) -> Tensor:
        """See ``NetworkAgent.scores``."""
        return self.refined_by(self.network, user, candidates)

    def refined_by(self, network: WolpertingerNetwork, user: Tensor, candidates: Tensor) -> Tensor:
        """What ``refined`` gives by ``network``; what the trip has shown is nobody's neighbour."""
        distances = -self.shown_last(-squared_distances(network.propose(user, candidates), candidates), candidates)
        return refined(network.critic(user, candidates), distances, self.config.neighbours)

    def trainer(self, slate_size: int) -> Trainer:
        """See ``ReplayAgent.trainer``."""
        return _Trainer(self, slate_size)


def nearest(proto: Tensor, candidates: Tensor, number: int) -> Tensor:
    """Positions [B, number] of the candidates [B, M, F] nearest to ``proto`` [B, F], as action mode ``proto`` ranks."""
    return squared_distances(proto, candidates).sort(dim=1, stable=True).indices[:, :number]


def refined(values: Tensor, distances: Tensor, neighbours: int) -> Tensor:
    """``values`` [B, M] of the nearest neighbours, by ``distances`` [B, M]; all others below, by how near they are."""
    near = distances.sort(dim=1, stable=True).indices[:, : min(neighbours, distances.shape[1])]
    below = values.amin(1, keepdim=True) - 1.0 - (distances - distances.amin(1, keepdim=True))
    return below.scatter(1, near, values.gather(1, near))


class _Trainer:
    """See ``recgym.agents.learning.Trainer``."""

    def __init__(self, agent: WolpertingerAgent, slate_size: int) -> None:
        self.agent, self.config, self.slate_size = agent, agent.config, slate_size
        self.network, self.target = agent.network, copy.deepcopy(agent.network)
        self.modules: Mapping[str, nn.Module] = {"network": self.network, "target": self.target}
        rate = self.config.learning_rate
        self.optimizers: Mapping[str, torch.optim.Optimizer] = {
            "actor": torch.optim.Adam(self.network.actor.parameters(), rate),
            "critic": torch.optim.Adam(self.network.critic.parameters(), rate),
        }
        self.replay = Replay(self.config.replay_size)

    def explore(self, user: Tensor, candidates: Tensor, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        proto = self.network.propose(user, candidates)
        proto = proto + self.config.noise * torch.randn(proto.shape, generator=generator)
        anything = 2.0 * torch.rand(proto.shape, generator=generator) - 1.0
        explore = torch.rand(len(proto), 1, generator=generator) < self.config.exploration
        proto = torch.where(explore, anything, proto).clamp(-1.0, 1.0)
        return proto, {"slate": nearest(proto, candidates, self.slate_size)}

    def update(self, generator: torch.Generator) -> dict[str, float]:
        batch = self.replay.sample(self.config.batch_size, generator)
        with torch.no_grad():
            best = self.agent.refined_by(self.target, batch.next_user, batch.next_candidates)
            follows = best.topk(self.slate_size).values.mean(1, keepdim=True)  # an item's share of what follows
            target = batch.more["own"] + self.config.gamma * (1.0 - batch.terminated)[:, None] * follows
        values = self.network.critic(batch.user, batch.candidates).gather(1, batch.more["slate"])
        # What the trip had shown is bought no more and not up for choice: its zeros are not the critic's to explain.
        fresh = (batch.candidates[:, :, self.agent._shown].gather(1, batch.more["slate"]) == 0).float()
        critic_loss = (fresh * (values - target).square()).sum() / fresh.sum().clamp(min=1.0)
        descend(self.optimizers["critic"], critic_loss, self.config.max_grad_norm)
        proto = self.network.propose(batch.user, batch.candidates)
        actor_loss = -self.network.critic(batch.user, proto[:, None, :]).mean()
        descend(self.optimizers["actor"], actor_loss, self.config.max_grad_norm)
        follow(self.target, self.network, self.config.target_rate)
        return {"critic_loss": critic_loss.item(), "proposal_value": -actor_loss.item()}
