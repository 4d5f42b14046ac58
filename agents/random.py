"""Random: a uniformly drawn slate, the floor of every comparison."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from recgym.agents.protocol import ActContext, Agent, Observations, as_tensor, top_slate
from recgym.random import Purpose, fold, uniform

if TYPE_CHECKING:
    from recgym.envs.vector import RecVectorEnv


class RandomAgent(Agent):
    """Each slate is a uniform draw without replacement, keyed by (agent seed, lane seed, step)."""

    id = "random"
    observes = ("candidate_items",)
    stochastic = True

    def act(
        self, observations: Observations, context: ActContext, *, env: RecVectorEnv | None = None
    ) -> NDArray[np.int64]:
        """See ``Agent.act``."""
        num_candidates = as_tensor(observations["candidate_items"]).shape[1]
        lanes = torch.as_tensor(context.lane_seeds)[:, None]  # [B, 1]
        steps = torch.as_tensor(context.step)[:, None]  # [B, 1]
        key = fold(torch.full_like(lanes, self.seed), int(Purpose.AGENT), lanes, steps, torch.arange(num_candidates))
        return top_slate(context.slate_size, uniform(key), key)  # the full key settles ties of the 23-bit uniforms

    def propensities(
        self, observations: Observations, context: ActContext, slates: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """See ``Agent.propensities``: position k shows any of the M - k candidates left alike."""
        num_candidates = as_tensor(observations["candidate_items"]).shape[1]
        return np.broadcast_to(1.0 / (num_candidates - np.arange(slates.shape[1])), slates.shape).copy()
