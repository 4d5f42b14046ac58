"""PPO with masked actions (Huang and Ontanon, "A closer look at invalid action masking", FLAIRS 2022), by sb3-contrib.

The policy shows one of the candidates that this trip has not shown yet (``item`` mode). Departures from the paper: all
candidates are scored by one network, and features are standardised once. In evaluation the K of largest probability are
shown, what the trip has shown already last.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from sb3_contrib import MaskablePPO
from sb3_contrib.common.maskable.distributions import MaskableCategoricalDistribution, MaskableDistribution
from sb3_contrib.common.maskable.policies import MaskableActorCriticPolicy
from stable_baselines3.common.base_class import BaseAlgorithm
from torch import Tensor, nn

from recgym.adapters.plackett_luce import PassThrough
from recgym.adapters.sb3 import SB3VecEnv
from recgym.agents.networks import SlateScorer, StateNetwork
from recgym.agents.protocol import AgentConfig, not_shown
from recgym.agents.sb3 import SB3Agent, on_policy_settings
from recgym.agents.search import Search

if TYPE_CHECKING:
    from recgym.envs.vector import RecVectorEnv


class MaskablePPOConfig(AgentConfig):
    """Settings of ``MaskablePPOAgent``."""

    num_envs: int = Field(256, ge=1, description="lanes trained on at once")
    num_steps: int = Field(16, ge=1, description="slates (of one item) per lane and rollout")
    total_steps: int = Field(500_000, ge=1, description="slates shown in all, the default budget")
    batch_size: int = Field(1024, ge=2, description="slates per gradient step")
    num_epochs: int = Field(3, ge=1, description="passes over each rollout")
    learning_rate: Annotated[float, Search(1e-3, 3e-2, log=True)] = Field(
        1e-2, gt=0, description="Adam's, falling linearly to a tenth"
    )
    gamma: Annotated[float, Search(0.0, 0.9)] = Field(0.0, ge=0, le=1, description="discount per slate")
    gae_lambda: float = Field(0.9, ge=0, le=1, description="of generalised advantage estimation")
    clip_range: float = Field(0.2, gt=0, description="of the probability ratio")
    target_kl: float | None = Field(0.1, gt=0, description="stops a rollout's updates beyond 1.5 times this, in nats")
    entropy_coef: Annotated[float, Search(1e-4, 1e-1, log=True)] = Field(
        1e-2, ge=0, description="per nat; a uniform choice among 100 has 4.6"
    )
    value_coef: float = Field(0.5, ge=0)
    max_grad_norm: float = Field(0.5, gt=0)
    hidden: int = Field(32, ge=1, description="width of the scorer and the critic")
    calibration_steps: int = Field(8, ge=1, description="random slates per lane that the feature scaling is set from")
    checkpoint_rollouts: int = Field(8, ge=1, description="rollouts between checkpoints; lanes start afresh at each")


class MaskedVecEnv(SB3VecEnv):
    """``SB3VecEnv`` that tells which candidates the trip of each lane has not shown yet."""

    def action_masks(self) -> NDArray[np.bool_]:
        """Bool [B, M]: whether a candidate may be shown; all of them where all have been."""
        fresh = not_shown(self.env.world, self.last_seen).bool()
        return (fresh | ~fresh.any(1, keepdim=True)).numpy()

    def has_attr(self, attr_name: str) -> bool:
        """Whether the lanes have an attribute; they have masks."""
        return attr_name == "action_masks" or super().has_attr(attr_name)

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        """See ``SB3VecEnv``; masks are told lane by lane."""
        if method_name == "action_masks":
            return list(self.action_masks()[np.asarray(list(self._get_indices(indices)))])
        return super().env_method(method_name, *args, indices=indices, **kwargs)


class MaskedItemPolicy(MaskableActorCriticPolicy):
    """sb3-contrib's policy with one scorer for all candidates; ``hidden`` is its width and the critic's."""

    def __init__(self, *args: Any, hidden: int, **kwargs: Any) -> None:
        """See ``MaskableActorCriticPolicy``."""
        self.hidden = hidden
        super().__init__(*args, **{"features_extractor_class": PassThrough, **kwargs})

    def _build(self, lr_schedule: Any) -> None:
        space: Any = self.observation_space
        sizes = space["user"].shape[0], space["candidates"].shape[1], self.hidden
        self.scorer, self.critic = SlateScorer(*sizes), StateNetwork(*sizes)
        optimizer: Any = self.optimizer_class
        self.optimizer = optimizer(self.parameters(), lr=lr_schedule(1), **self.optimizer_kwargs)

    def forward(self, obs: Any, deterministic: bool = False, action_masks: Any = None) -> tuple[Tensor, Tensor, Tensor]:
        """Items [B], values [B, 1] and log-probabilities [B]."""
        distribution = self.get_distribution(obs, action_masks)
        actions = distribution.get_actions(deterministic=deterministic)
        return actions, self.predict_values(obs), distribution.log_prob(actions)

    def evaluate_actions(
        self, obs: Any, actions: Tensor, action_masks: Any = None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Values [B, 1], log-probabilities [B] and entropies [B]."""
        distribution = self.get_distribution(obs, action_masks)
        return self.predict_values(obs), distribution.log_prob(actions), distribution.entropy()

    def get_distribution(self, obs: Any, action_masks: Any = None) -> MaskableDistribution:
        """The distribution over the candidates, without those that are masked."""
        scores = self.scorer(obs["user"].float(), obs["candidates"].float())
        distribution = MaskableCategoricalDistribution(scores.shape[1]).proba_distribution(scores)
        if action_masks is not None:
            distribution.apply_masking(action_masks)
        return distribution

    def predict_values(self, obs: Any) -> Tensor:
        """Values [B, 1]."""
        return self.critic(*self.scorer.standardised(obs["user"].float(), obs["candidates"].float()))

    def _predict(self, observation: Any, deterministic: bool = False, action_masks: Any = None) -> Tensor:
        return self.get_distribution(observation, action_masks).get_actions(deterministic=deterministic)


class MaskablePPOAgent(SB3Agent):
    """Shows the candidates of largest probability, what the trip has shown already last."""

    id = "maskable_ppo"
    action_mode = "item"
    Config = MaskablePPOConfig
    algorithm = MaskablePPO

    def build(self, num_user: int, num_candidate: int) -> nn.Module:
        """See ``NetworkAgent.build``."""
        return SlateScorer(num_user, num_candidate, self.config.hidden)

    def wrap(self, env: RecVectorEnv) -> SB3VecEnv:
        """See ``SB3Agent.wrap``."""
        return MaskedVecEnv(env, self.view(env))

    def make(self, venv: SB3VecEnv) -> BaseAlgorithm:
        """See ``SB3Agent.make``."""
        config = self.config
        return MaskablePPO(
            MaskedItemPolicy,
            venv,
            **on_policy_settings(config, venv, config.gamma),
            policy_kwargs={"hidden": config.hidden},
            device=str(self.device),
        )
