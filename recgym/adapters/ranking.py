"""An SB3 policy for actions that rank the candidates: normal scores, or normal weights of their features."""

from __future__ import annotations

from typing import Any

import torch
from stable_baselines3.common.distributions import DiagGaussianDistribution, Distribution
from stable_baselines3.common.policies import ActorCriticPolicy
from torch import Tensor, nn

from recgym.adapters.plackett_luce import PassThrough
from recgym.agents.networks import RankNetwork, StateNetwork

_REACH = 0.6  # of the means: SB3 clips actions to the box, where ties would be decided by position
_LOG_DEVIATION = -1.5  # to begin with


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
        mean = _REACH * torch.tanh(raw)
        return DiagGaussianDistribution(mean.shape[1]).proba_distribution(mean, self.log_std.expand_as(mean))

    def predict_values(self, obs: Any) -> Tensor:
        """Values [B, 1]."""
        return self.critic(*self.scorer.standardised(obs["user"].float(), obs["candidates"].float()))

    def _predict(self, observation: Any, deterministic: bool = False) -> Tensor:
        return self.get_distribution(observation).get_actions(deterministic=deterministic)
