"""Ridge regression kept up to date batch by batch: what the linear bandits share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from recgym.agents.online import OnlineConfig, Transitions
from recgym.agents.protocol import Agent, AgentConfig, Observations, as_tensor, observation_layout
from recgym.agents.search import Search

if TYPE_CHECKING:
    from recgym.worlds.world import World


def contexts(observations: Observations) -> Tensor:
    """The context vectors float64 [B, M, d]: the features of each candidate, and a 1."""
    features = as_tensor(observations["candidates"]).double()
    return torch.cat([features, torch.ones_like(features[..., :1])], dim=-1)


def examples(transitions: Transitions) -> tuple[Tensor, Tensor]:
    """Contexts [m, d] and rewards [m], float64, of the items shown: those examined, where the platform tells."""
    slates = torch.from_numpy(transitions.slates)
    every = contexts(transitions.observations)
    shown = every.gather(1, slates[..., None].expand(-1, -1, every.shape[-1]))  # [n, K, d]
    rewards = torch.from_numpy(transitions.credits()).double()  # [n, K]
    if transitions.examined is None:
        return shown.flatten(0, 1), rewards.flatten()
    examined = torch.from_numpy(np.ascontiguousarray(transitions.examined))
    return shown[examined], rewards[examined]


class Ridge:
    """The exact ridge solution theta = A^-1 b with A = l2 I + sum x x^T and b = sum r x, in float64."""

    def __init__(self, size: int, l2: float) -> None:
        """No example seen yet, of contexts of ``size`` features."""
        self.gram = l2 * torch.eye(size, dtype=torch.float64)  # A [d, d]
        self.moment = torch.zeros(size, dtype=torch.float64)  # b [d]
        self._solve()

    def update(self, x: Tensor, rewards: Tensor) -> None:
        """Adds examples x [m, d] with rewards [m]."""
        self.gram = self.gram + x.T @ x
        self.moment = self.moment + x.T @ rewards
        self._solve()

    def _solve(self) -> None:
        factor = torch.linalg.cholesky(self.gram)  # A = L L^T
        self.theta = torch.cholesky_solve(self.moment[:, None], factor)[:, 0]  # [d]
        identity = torch.eye(len(factor), dtype=torch.float64)
        self.whitener = torch.linalg.solve_triangular(factor, identity, upper=False)  # L^-1: x^T A^-1 x = |L^-1 x|^2

    def mean(self, x: Tensor) -> Tensor:
        """x^T theta [B, M] of contexts [B, M, d]."""
        return (x * self.theta).sum(-1)

    def deviation(self, x: Tensor) -> Tensor:
        """sqrt(x^T A^-1 x) [B, M] of contexts [B, M, d]."""
        return (x @ self.whitener.T).square().sum(-1).sqrt()

    def tensors(self) -> dict[str, Tensor]:
        """A and b."""
        return {"gram": self.gram, "moment": self.moment}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Takes back what ``tensors`` gave."""
        self.gram, self.moment = tensors["gram"], tensors["moment"]
        self._solve()


class RidgeConfig(OnlineConfig):
    """Settings of agents with a ridge estimate."""

    l2: Annotated[float, Search(0.1, 100.0, log=True)] = Field(1.0, gt=0, description="of the ridge regression")


class RidgeAgent(Agent):
    """Learns a ridge estimate of rewards over the features of candidates, online; a subclass acts on it."""

    observes = ("candidates",)
    learns = "environment"
    learns_online = True
    Config = RidgeConfig

    def __init__(self, world: World, config: AgentConfig | None = None, seed: int = 0) -> None:
        """See ``Agent``; knows nothing until ``update``."""
        super().__init__(world, config, seed)
        self.ridge = Ridge(len(observation_layout(world, self.observes)["candidates"]) + 1, self.config.l2)

    def update(self, transitions: Transitions) -> None:
        """See ``Agent.update``: the exact ridge solution over everything seen."""
        self.ridge.update(*examples(transitions))

    def tensors(self) -> dict[str, Tensor]:
        """A and b."""
        return self.ridge.tensors()

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Takes back A and b."""
        self.ridge.restore(tensors)
