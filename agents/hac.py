"""HAC, the hyper-actor critic (Liu et al., WWW 2023): slates as points of a latent space.

The paper is "Exploration and regularization of the latent action space in recommendation".

The actor gives a hyper-action Z, a point of a latent space in which items have places e(i); the effect-action is the
slate of the K items of largest e(i) . Z. The inverse of a slate is the mean of its items' places. Four losses: the
critic's temporal difference at the inverse of what was shown; the actor's, -Q(s, Z); their alignment, the squared
distance of Z to the inverse of its own slate; and supervision, the cross entropy of sigmoid(e(i) . Z) with what was
consumed of the slate.

Departures from the paper: the state is the observation's features instead of an encoded history, and items' places
are a network of the candidate's features, which know this user; the supervised loss trains the places, too; slates are
chosen by the top K of the perturbed hyper-action, without sampling.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from recgym.agents.learning import LearnerConfig, ReplayAgent, Trainer, descend, follow
from recgym.agents.networks import Standardise, StateNetwork
from recgym.agents.replay import Replay
from recgym.agents.search import Search


class HACConfig(LearnerConfig):
    """Settings of ``HACAgent``."""

    size: int = Field(16, ge=1, description="dimensions of the latent space")
    noise: Annotated[float, Search(0.03, 3.0, log=True)] = Field(
        0.3, ge=0, description="standard deviation of the noise on each dimension of Z"
    )
    exploration: Annotated[float, Search(0.01, 0.5, log=True)] = Field(
        0.1, ge=0, le=1, description="chance that a lane shows a random slate"
    )
    actor_weight: float = Field(0.1, ge=0, description="of the loss -Q(s, Z)")
    alignment_weight: float = Field(0.1, ge=0, description="of the distance of Z to the inverse of its slate")
    supervision_weight: float = Field(1.0, ge=0, description="of the cross entropy with what was consumed")
    target_rate: float = Field(0.05, gt=0, le=1, description="share by which targets follow at each gradient step")


class HACNetwork(nn.Module):
    """Places of items, and the actor."""

    def __init__(self, num_user: int, num_candidate: int, hidden: int, size: int) -> None:
        """For ``num_user`` and ``num_candidate`` features; ``size`` latent dimensions."""
        super().__init__()
        self.user_norm, self.candidate_norm = Standardise(num_user), Standardise(num_candidate)
        self.kernel = nn.Sequential(nn.Linear(num_candidate, hidden), nn.ReLU(), nn.Linear(hidden, size))
        self.direct = nn.Linear(num_candidate, size, bias=False)
        self.actor = StateNetwork(num_user, num_candidate, hidden, outputs=size + 1)

    def forward(self, user: Tensor, candidates: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Places [B, M, size] of the candidates, the hyper-action [B, size], and the logits' intercept [B]."""
        u, c = self.user_norm(user), self.candidate_norm(candidates)
        z = self.actor(u, c)
        return self.kernel(c) + self.direct(c), z[:, :-1], z[:, -1]


class HACAgent(ReplayAgent):
    """Shows the candidates of largest e(i) . Z."""

    id = "hac"
    Config = HACConfig

    def build(self, num_user: int, num_candidate: int) -> nn.Module:
        """See ``NetworkAgent.build``."""
        return HACNetwork(num_user, num_candidate, self.config.hidden, self.config.size)

    def scores(self, user: Tensor, candidates: Tensor) -> Tensor:
        """See ``NetworkAgent.scores``."""
        places, z, _ = self.network(user, candidates)
        return affinity(places, z)

    def trainer(self, slate_size: int) -> Trainer:
        """See ``ReplayAgent.trainer``."""
        return _Trainer(self, slate_size)


def affinity(places: Tensor, z: Tensor) -> Tensor:
    """e(i) . Z [B, M] of places [B, M, size] and hyper-actions [B, size]."""
    return (places * z[:, None, :]).sum(-1)


def inverse(places: Tensor, slate: Tensor) -> Tensor:
    """The hyper-action [B, size] that a slate [B, K] stands for: the mean of its items' places [B, M, size]."""
    return places.gather(1, slate[:, :, None].expand(-1, -1, places.shape[2])).mean(1)


class _Trainer:
    """See ``recgym.agents.learning.Trainer``."""

    def __init__(self, agent: HACAgent, slate_size: int) -> None:
        self.agent, self.config, self.slate_size = agent, agent.config, slate_size
        self.network, self.target = agent.network, copy.deepcopy(agent.network)
        num_user, num_candidate = len(self.network.user_norm.mean), len(self.network.candidate_norm.mean)
        self.critic = StateNetwork(num_user, num_candidate, self.config.hidden, extra=self.config.size)
        self.critic_target = copy.deepcopy(self.critic)
        self.modules: Mapping[str, nn.Module] = {
            "network": self.network,
            "target": self.target,
            "critic": self.critic,
            "critic_target": self.critic_target,
        }
        rate = self.config.learning_rate
        self.optimizers: Mapping[str, torch.optim.Optimizer] = {
            "network": torch.optim.Adam(self.network.parameters(), rate),
            "critic": torch.optim.Adam(self.critic.parameters(), rate),
        }
        self.replay = Replay(self.config.replay_size)

    def explore(self, user: Tensor, candidates: Tensor, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        places, z, _ = self.network(user, candidates)
        perturbed = z + self.config.noise * torch.randn(z.shape, generator=generator)
        scores = self.agent.shown_last(affinity(places, perturbed), candidates)
        random = torch.rand(scores.shape, generator=generator)
        explore = torch.rand(len(scores), 1, generator=generator) < self.config.exploration
        slates = torch.where(explore, random, scores).topk(self.slate_size).indices
        return slates, {"slate": slates}

    def update(self, generator: torch.Generator) -> dict[str, float]:
        config = self.config
        batch = self.replay.sample(config.batch_size, generator)
        slate, consumed = batch.more["slate"], batch.more["consumed"].float()

        def state(user: Tensor, candidates: Tensor) -> tuple[Tensor, Tensor]:
            return self.network.user_norm(user), self.network.candidate_norm(candidates)

        now, then = state(batch.user, batch.candidates), state(batch.next_user, batch.next_candidates)
        places, z, intercept = self.network(batch.user, batch.candidates)
        with torch.no_grad():
            next_places, next_z, _ = self.target(batch.next_user, batch.next_candidates)
            ranked = self.agent.shown_last(affinity(next_places, next_z), batch.next_candidates)
            effect = inverse(next_places, ranked.topk(self.slate_size).indices)
            follows = self.critic_target(*then, effect).squeeze(1)
            target = batch.more["reward"] + config.gamma * (1.0 - batch.terminated) * follows
        value = self.critic(*now, inverse(places, slate).detach()).squeeze(1)
        critic_loss = (value - target).square().mean()
        descend(self.optimizers["critic"], critic_loss, config.max_grad_norm)

        scores = affinity(places, z)
        supervision = binary_cross_entropy_with_logits(scores.gather(1, slate) + intercept[:, None], consumed)
        own_slate = self.agent.shown_last(scores.detach(), batch.candidates).topk(self.slate_size).indices
        alignment = (z - inverse(places, own_slate).detach()).square().mean()
        actor_loss = -self.critic(*now, z).mean()
        loss = config.supervision_weight * supervision + config.alignment_weight * alignment
        descend(self.optimizers["network"], loss + config.actor_weight * actor_loss, config.max_grad_norm)
        follow(self.target, self.network, config.target_rate)
        follow(self.critic_target, self.critic, config.target_rate)
        return {
            "critic_loss": critic_loss.item(),
            "supervision": supervision.item(),
            "alignment": alignment.item(),
            "value": -actor_loss.item(),
        }
