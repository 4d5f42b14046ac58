"""Actions that rank the candidates, for SB3: normal scores, or normal weights of their features."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3.common.distributions import DiagGaussianDistribution, Distribution
from stable_baselines3.common.policies import ActorCriticPolicy
from torch import Tensor, nn

from recgym.adapters.plackett_luce import PassThrough
from recgym.adapters.sb3 import SB3VecEnv, View
from recgym.agents.networks import RankNetwork, StateNetwork

if TYPE_CHECKING:
    from recgym.envs.vector import RecVectorEnv

_REACH = 0.6  # of the means: SB3 clips actions to the box, where ties would be decided by position
_LOG_DEVIATION = -1.5  # to begin with
_BELOW = 4.0  # further than scores in [-1, 1] are apart


class RankedVecEnv(SB3VecEnv):
    """``SB3VecEnv`` in which what a trip has shown already ranks last, as agents rank it in an evaluation.

    Left to the actions it would have to be learned slate by slate, against all that makes an item good otherwise.
    """

    def __init__(self, env: RecVectorEnv, view: View, shown: int, actions: str) -> None:
        """See ``SB3VecEnv``; ``shown`` is the candidate feature that tells, 0 or 1, ``actions`` the action mode."""
        super().__init__(env, view)
        self._shown, self._by_weights = shown, actions == "weights"

    def step_async(self, actions: NDArray[Any]) -> None:
        """See ``SB3VecEnv``; ``actions`` [B, A] are scores or weights."""
        actions = np.array(actions, np.float32)
        if self._by_weights:
            others = np.abs(np.delete(actions, self._shown, axis=1)).sum(axis=1)  # features lie in [-1, 1]
            actions[:, self._shown] = -(2.0 * others + 1.0)
        else:
            actions -= _BELOW * (self.last_seen["candidates"][:, :, self._shown] > 0)
        super().step_async(actions)


class RankPolicy(ActorCriticPolicy):
    """For ``Dict(user, candidates)`` observations and the action modes ``scores`` and ``weights``.

    Means come from a ``RankNetwork``, the deviation is one learned number.
    """

    def __init__(self, *args: Any, hidden: int, actions: str, **kwargs: Any) -> None:
        """See ``ActorCriticPolicy``.

        Args:
            *args: see ``ActorCriticPolicy``.
            hidden: width of both networks.
            actions: the action mode.
            **kwargs: see ``ActorCriticPolicy``.
        """
        self.hidden, self.actions = hidden, actions
        super().__init__(*args, **{"features_extractor_class": PassThrough, **kwargs})

    def _build(self, lr_schedule: Any) -> None:
        space: Any = self.observation_space
        sizes = space["user"].shape[0], space["candidates"].shape[1], self.hidden
        self.scorer, self.critic = RankNetwork(*sizes, self.actions), StateNetwork(*sizes)
        self.log_std = nn.Parameter(torch.tensor(_LOG_DEVIATION))
        optimizer: Any = self.optimizer_class
        self.optimizer = optimizer(self.parameters(), lr=lr_schedule(1), **self.optimizer_kwargs)

    def forward(self, obs: Any, deterministic: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        """Actions [B, A], values [B, 1] and log-densities [B]."""
        distribution = self.get_distribution(obs)
        actions = distribution.get_actions(deterministic=deterministic)
        return actions, self.predict_values(obs), distribution.log_prob(actions)

    def evaluate_actions(self, obs: Any, actions: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Values [B, 1], log-densities [B] and entropies [B] of actions drawn earlier."""
        distribution = self.get_distribution(obs)
        return self.predict_values(obs), distribution.log_prob(actions), distribution.entropy()

    def get_distribution(self, obs: Any) -> Distribution:
        """The distribution of actions."""
        (raw,) = self.scorer(obs["user"].float(), obs["candidates"].float())
        mean = _REACH * self.scorer.bounded(raw)
        deviation = (self.log_std + self.scorer.reach.log()).expand_as(mean)
        return DiagGaussianDistribution(mean.shape[1]).proba_distribution(mean, deviation)

    def predict_values(self, obs: Any) -> Tensor:
        """Values [B, 1]."""
        return self.critic(*self.scorer.standardised(obs["user"].float(), obs["candidates"].float()))

    def _predict(self, observation: Any, deterministic: bool = False) -> Tensor:
        return self.get_distribution(observation).get_actions(deterministic=deterministic)
