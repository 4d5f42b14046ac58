"""Exploration slot by slot, with the exact chances of what it shows."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recgym.agents.protocol import ActContext, Agent, Observations, as_tensor
from recgym.errors import AgentError
from recgym.random import Purpose, fold, integers, uniform


def lane_keys(seed: int, context: ActContext) -> Tensor:
    """The keys int64 [B] of an agent's draws for a step: of its own seed, the lane's seed and the lane's step."""
    lanes, steps = torch.as_tensor(context.lane_seeds), torch.as_tensor(context.step).to(torch.int64)
    return fold(torch.full_like(lanes, seed), int(Purpose.AGENT), lanes, steps)


def explore(ranking: NDArray[np.int64], slate_size: int, epsilon: float, keys: Tensor) -> NDArray[np.int64]:
    """Slates [B, K]: each slot in turn shows the best candidate left or, with chance ``epsilon``, any of those left.

    Args:
        ranking: int64 [B, M], all candidates, best first.
        slate_size: K.
        epsilon: in [0, 1].
        keys: int64 [B], of the draws.
    """
    ranked = torch.from_numpy(np.ascontiguousarray(ranking))
    lanes, size = ranked.shape
    left = torch.ones(lanes, size, dtype=torch.bool)  # by rank
    chosen = torch.empty(lanes, slate_size, dtype=torch.int64)
    for slot in range(slate_size):
        explores = uniform(fold(keys, slot, 0)) < epsilon
        nth = torch.where(explores, integers(fold(keys, slot, 1), size - slot), 0)  # of those left, by rank
        chosen[:, slot] = (left.cumsum(1) <= nth[:, None]).sum(1)
        left.scatter_(1, chosen[:, slot : slot + 1], False)
    return ranked.gather(1, chosen).numpy()


def slot_propensities(ranking: NDArray[np.int64], slates: NDArray[np.int64], epsilon: float) -> NDArray[np.float64]:
    """The chance [B, K] with which ``explore`` shows each item of ``slates`` [B, K], given those above it.

    p = epsilon / (M - k) + (1 - epsilon) [the item is the best one left]; 0 for an item that stands above already.
    """
    lanes, size = ranking.shape
    place = np.empty_like(ranking)
    np.put_along_axis(place, ranking, np.arange(size)[None, :], axis=1)
    ranks = np.take_along_axis(place, slates, axis=1)  # [B, K] of the items shown
    left = np.ones((lanes, size), bool)
    chances = np.empty(slates.shape)
    rows = np.arange(lanes)
    for slot in range(slates.shape[1]):
        best = left.argmax(axis=1)
        available = left[rows, ranks[:, slot]]
        chances[:, slot] = (epsilon / (size - slot) + (1.0 - epsilon) * (ranks[:, slot] == best)) * available
        left[rows, ranks[:, slot]] = False
    return chances


@dataclass(frozen=True)
class Behaviour:
    """A logging policy: an agent's ranking, explored slot by slot, with the exact chances of what it shows."""

    agent: Agent
    epsilon: float = 0.0  # 1: uniformly random slates, whatever the agent

    def __post_init__(self) -> None:
        """Refuses what leaves the chances unknown."""
        if not 0.0 <= self.epsilon <= 1.0:
            raise AgentError(f"exploration is a chance between 0 and 1, got {self.epsilon!r}")
        if self.agent.stochastic and 0.0 < self.epsilon < 1.0:
            raise AgentError(
                f"agent {self.agent.id!r} draws its slates itself, so the chances of exploring around them are not "
                "known; give another agent, or exploration 0 or 1"
            )

    def act(self, observations: Observations, context: ActContext) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Slates int64 [B, K] and the chance float64 [B, K] of each position given those above it.

        Raises:
            AgentError: the agent does not know the chances of its own slates.
        """
        if self.epsilon == 0.0:
            slates = self.agent.act(observations, context)
            chances = self.agent.propensities(observations, context, slates)
            if chances is None:
                raise AgentError(f"agent {self.agent.id!r} does not know the chances of its slates")
            return slates, chances
        num_candidates = as_tensor(observations[self._candidates]).shape[1]
        ranking = self.agent.act(observations, replace(context, slate_size=num_candidates))
        slates = explore(ranking, context.slate_size, self.epsilon, lane_keys(self.agent.seed, context))
        return slates, slot_propensities(ranking, slates, self.epsilon)

    @property
    def _candidates(self) -> str:
        found = next((key for key in self.agent.observes if key.startswith("candidate")), None)
        if found is None:
            raise AgentError(f"agent {self.agent.id!r} does not observe the candidates, so it cannot be explored")
        return found
