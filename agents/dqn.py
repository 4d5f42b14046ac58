"""DQN re-ranker (Mnih et al., "Human-level control through deep reinforcement learning", Nature 2015), by SB3.

Departures from the paper: Q(s, i) of all candidates comes from one scorer that is applied to each (``item`` mode: a
slate of one), many lanes explore at once, each by itself, and features are standardised once. In evaluation, where
slates hold K items, the K of highest value are shown.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field
from stable_baselines3 import DQN
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.utils import LinearSchedule
from stable_baselines3.dqn.policies import DQNPolicy
from torch import nn

from recgym.adapters.plackett_luce import PassThrough
from recgym.adapters.sb3 import SB3VecEnv
from recgym.agents.networks import SlateScorer
from recgym.agents.sb3 import EPISODES_AVERAGED, ItemValues, LaneByLane, OffPolicyConfig, SB3Agent, SharedReplayBuffer
from recgym.agents.search import Search


class DQNConfig(OffPolicyConfig):
    """Settings of ``DQNAgent``."""

    exploration_fraction: float = Field(0.3, gt=0, le=1, description="share of training in which exploration falls")
    exploration: Annotated[float, Search(0.01, 0.5, log=True)] = Field(
        0.1, ge=0, le=1, description="chance of a random item thereafter"
    )
    target_interval: int = Field(8, ge=1, description="slates per lane between copies into the target network")
    max_grad_norm: float = Field(10.0, gt=0)


class ItemDQNPolicy(DQNPolicy):
    """SB3's policy with ``ItemValues``; ``hidden`` is the scorer's width."""

    def __init__(self, *args: Any, hidden: int, **kwargs: Any) -> None:
        """See ``DQNPolicy``."""
        self.hidden = hidden
        super().__init__(*args, **{"features_extractor_class": PassThrough, **kwargs})

    def make_q_net(self) -> Any:
        """See ``DQNPolicy``."""
        space: Any = self.observation_space
        return ItemValues(SlateScorer(space["user"].shape[0], space["candidates"].shape[1], self.hidden))


class LaneDQN(LaneByLane, DQN):
    """SB3's DQN, exploring lane by lane."""


class DQNAgent(SB3Agent):
    """Shows the candidates of highest value."""

    id = "dqn"
    action_mode = "item"
    Config = DQNConfig
    algorithm = LaneDQN

    def build(self, num_user: int, num_candidate: int) -> nn.Module:
        """See ``NetworkAgent.build``."""
        return SlateScorer(num_user, num_candidate, self.config.hidden)

    def trained_part(self, policy: Any) -> nn.Module:
        """See ``SB3Agent.trained_part``."""
        return policy.q_net.scorer

    def start(self, policy: Any) -> None:
        """See ``SB3Agent.start``; the target network, too."""
        super().start(policy)
        policy.q_net_target.load_state_dict(policy.q_net.state_dict())

    def make(self, venv: SB3VecEnv) -> BaseAlgorithm:
        """See ``SB3Agent.make``."""
        return LaneDQN(ItemDQNPolicy, venv, **value_settings(self.config, venv))


def value_settings(config: DQNConfig, venv: SB3VecEnv) -> dict[str, Any]:
    """The arguments that SB3's DQN and QR-DQN have in common."""
    return {
        "learning_rate": LinearSchedule(config.learning_rate, config.learning_rate / 10, 1.0),
        "buffer_size": config.replay_size,
        "learning_starts": 0,
        "batch_size": config.batch_size,
        "gamma": config.gamma,
        "train_freq": config.num_steps,
        "gradient_steps": config.num_updates,
        "replay_buffer_class": SharedReplayBuffer,
        "target_update_interval": config.target_interval * venv.num_envs,
        "exploration_fraction": config.exploration_fraction,
        "exploration_final_eps": config.exploration,
        "max_grad_norm": config.max_grad_norm,
        "stats_window_size": EPISODES_AVERAGED,
        "policy_kwargs": {"hidden": config.hidden},
        "device": "cpu",
    }
