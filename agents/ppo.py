"""PPO re-ranker: proximal policy optimisation (Schulman et al., 2017) of a Plackett-Luce slate policy, by SB3.

With ``actions`` it learns normal scores or feature weights (see ``RankNetwork.bounded``) instead; what a trip has shown
then comes last. Departures from the paper: a slate's positions are credited and clipped one by one (see
``SlateRolloutBuffer``); features are standardised once, from a few random steps before learning begins.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import torch
from pydantic import Field
from stable_baselines3 import PPO
from stable_baselines3.common.base_class import BaseAlgorithm
from torch import Tensor, nn

from recgym.adapters.credit import SlateRolloutBuffer
from recgym.adapters.plackett_luce import PlackettLucePolicy
from recgym.adapters.ranking import RankedVecEnv, RankPolicy
from recgym.adapters.sb3 import SB3VecEnv
from recgym.agents.networks import RankNetwork, SlateScorer
from recgym.agents.protocol import AgentConfig
from recgym.agents.sb3 import SB3Agent, on_policy_settings
from recgym.agents.search import Search

if TYPE_CHECKING:
    from recgym.envs.vector import RecVectorEnv
    from recgym.worlds.world import World


class PPOConfig(AgentConfig):
    """Settings of ``PPOAgent``; the defaults are those of the demo, about three minutes on one core."""

    num_envs: int = Field(256, ge=1, description="lanes trained on at once")
    num_steps: int = Field(8, ge=1, description="slates per lane and rollout")
    total_steps: int = Field(500_000, ge=1, description="slates shown in all, the default budget")
    actions: Literal["slate", "scores", "weights"] = Field("slate", description="the action mode")
    credit: Literal["position", "slate"] = Field(
        "position",
        description="slates: an item is judged by its share of the slate's reward, which is split evenly over what was "
        "consumed (exactly what each earned where only purchases count), or by the slate's",
    )
    batch_size: int = Field(1024, ge=2, description="slates per gradient step")
    num_epochs: int = Field(3, ge=1, description="passes over each rollout")
    learning_rate: Annotated[float, Search(1e-3, 3e-2, log=True)] = Field(
        1e-2, gt=0, description="Adam's, falling linearly to a tenth"
    )
    gamma: float | None = Field(
        None,
        ge=0,
        le=1,
        description="discount per slate; null: 0 where an episode is one trip, whose slates hardly shape later ones, "
        "and 1 over a horizon of days, where a discount by slates would hide that visits come sooner or later",
    )
    gae_lambda: Annotated[float, Search(0.0, 1.0)] = Field(
        0.5, ge=0, le=1, description="of generalised advantage estimation; higher, the luck of more visits is noise"
    )
    clip_range: float = Field(
        0.2, gt=0, description="of the probability ratio of an item (or of a slate, a product of K)"
    )
    target_kl: float | None = Field(
        0.1, gt=0, description="stops a rollout's updates beyond 1.5 times this, in nats an item (or a slate)"
    )
    entropy_coef: Annotated[float, Search(1e-5, 1e-2, log=True)] = Field(
        1e-3, ge=0, description="per nat; a uniform slate of 10 from 100 has about 46"
    )
    value_coef: float = Field(0.5, ge=0)
    max_grad_norm: float = Field(0.5, gt=0)
    hidden: int = Field(32, ge=1, description="width of the scorer and the critic")
    calibration_steps: int = Field(8, ge=1, description="random slates per lane that the feature scaling is set from")
    checkpoint_rollouts: int = Field(32, ge=1, description="rollouts between checkpoints; lanes start afresh at each")


class PPOAgent(SB3Agent):
    """Orders the candidates by the scores of the learned policy: the mode of its slate distribution.

    The action mode is the config's ``actions``.
    """

    id = "ppo"
    Config = PPOConfig
    algorithm = PPO

    def __init__(self, world: World, config: AgentConfig | None = None, seed: int = 0) -> None:
        """See ``Agent``; slates learn by themselves what becomes of items that the trip has shown."""
        super().__init__(world, config, seed)
        self.repeats = self.config.actions == "slate"  # type: ignore[misc]

    def build(self, num_user: int, num_candidate: int) -> nn.Module:
        """See ``NetworkAgent.build``."""
        if self.config.actions == "slate":
            return SlateScorer(num_user, num_candidate, self.config.hidden)
        return RankNetwork(num_user, num_candidate, self.config.hidden, self.config.actions)

    def scores(self, user: Tensor, candidates: Tensor) -> Tensor:
        """See ``NetworkAgent.scores``."""
        if self.config.actions == "slate":
            return self.network(user, candidates)
        (raw,) = self.network(user, candidates)
        return self.network.candidate_scores(self.network.bounded(raw), candidates)

    def make(self, venv: SB3VecEnv) -> BaseAlgorithm:
        """See ``SB3Agent.make``."""
        config = self.config
        of_slates = config.actions == "slate"
        by_position = of_slates and config.credit == "position"
        settings = {"by_position": by_position} if of_slates else {"actions": config.actions}
        return PPO(
            PlackettLucePolicy if of_slates else RankPolicy,
            venv,
            **on_policy_settings(config, venv, self._discount(venv)),
            policy_kwargs={"hidden": config.hidden, **settings},
            rollout_buffer_class=SlateRolloutBuffer if by_position else None,
            device=str(self.device),
        )

    def wrap(self, env: RecVectorEnv) -> SB3VecEnv:
        """See ``SB3Agent.wrap``."""
        return (
            super().wrap(env) if self.repeats else RankedVecEnv(env, self.view(env), self._shown, self.config.actions)
        )

    def _discount(self, venv: SB3VecEnv) -> float:
        if self.config.gamma is not None:
            return self.config.gamma
        return 0.0 if venv.env.scenario.episode.kind == "session" else 1.0

    def reward_scale(self, rewards: Tensor, gamma: float) -> float:
        """Brings discounted returns to about unit deviation, as is usual (Engstrom et al., ICLR 2020).

        Gradients of policy and critic are clipped together, so a critic of returns in the hundreds would leave the
        policy next to nothing.
        """
        returns = torch.zeros(rewards.shape[1], dtype=rewards.dtype)
        for earned in rewards.flip(0):
            returns = earned + gamma * returns
        return 1.0 / max(float(returns.std()), 1e-3)

    def prepare(self, model: BaseAlgorithm, venv: SB3VecEnv) -> None:
        """See ``SB3Agent.prepare``."""
        assert isinstance(model, PPO)
        if isinstance(model.rollout_buffer, SlateRolloutBuffer):
            model.rollout_buffer.watch(venv.credits)
