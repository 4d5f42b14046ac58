"""QR-DQN re-ranker (Dabney et al., "Distributional RL with quantile regression", AAAI 2018), by sb3-contrib.

Departures from the paper: as ``recgym.agents.dqn``, with the quantiles of all candidates from one scorer. The value of
an item is the mean of its quantiles.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field
from sb3_contrib import QRDQN
from sb3_contrib.qrdqn.policies import QRDQNPolicy
from stable_baselines3.common.base_class import BaseAlgorithm
from torch import Tensor, nn

from recgym.adapters.plackett_luce import PassThrough
from recgym.adapters.sb3 import SB3VecEnv
from recgym.agents.dqn import ItemValueConfig, value_settings
from recgym.agents.networks import SlateScorer
from recgym.agents.sb3 import ItemValues, LaneByLane, SB3Agent


class QRDQNConfig(ItemValueConfig):
    """Settings of ``QRDQNAgent``."""

    num_quantiles: int = Field(16, ge=2, description="quantiles of the return of each item")


class ItemQRDQNPolicy(QRDQNPolicy):
    """sb3-contrib's policy with ``ItemValues``; ``hidden`` is the scorer's width."""

    def __init__(self, *args: Any, hidden: int, **kwargs: Any) -> None:
        """See ``QRDQNPolicy``."""
        self.hidden = hidden
        super().__init__(*args, **{"features_extractor_class": PassThrough, **kwargs})

    def make_quantile_net(self) -> Any:
        """See ``QRDQNPolicy``."""
        space: Any = self.observation_space
        sizes = space["user"].shape[0], space["candidates"].shape[1]
        return ItemValues(SlateScorer(*sizes, self.hidden, self.n_quantiles))


class LaneQRDQN(LaneByLane, QRDQN):
    """sb3-contrib's QR-DQN, exploring lane by lane."""


class QRDQNAgent(SB3Agent):
    """Shows the candidates of highest mean return."""

    id = "qrdqn"
    action_mode = "item"
    Config = QRDQNConfig
    algorithm = LaneQRDQN

    def build(self, num_user: int, num_candidate: int) -> nn.Module:
        """See ``NetworkAgent.build``."""
        return SlateScorer(num_user, num_candidate, self.config.hidden, self.config.num_quantiles)

    def scores(self, user: Tensor, candidates: Tensor) -> Tensor:
        """See ``NetworkAgent.scores``."""
        return self.network(user, candidates).mean(-1)

    def trained_part(self, policy: Any) -> nn.Module:
        """See ``SB3Agent.trained_part``."""
        return policy.quantile_net.scorer

    def start(self, policy: Any) -> None:
        """See ``SB3Agent.start``; the target network, too."""
        super().start(policy)
        policy.quantile_net_target.load_state_dict(policy.quantile_net.state_dict())

    def make(self, venv: SB3VecEnv) -> BaseAlgorithm:
        """See ``SB3Agent.make``."""
        settings = value_settings(self.config, venv)
        settings["policy_kwargs"] = {**settings["policy_kwargs"], "n_quantiles": self.config.num_quantiles}
        return LaneQRDQN(ItemQRDQNPolicy, venv, **settings)
