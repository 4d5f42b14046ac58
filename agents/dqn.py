"""DQN re-ranker (Mnih et al., "Human-level control through deep reinforcement learning", Nature 2015), by SB3.

Departures from the paper: Q(s, i) of all candidates comes from one scorer that is applied to each (``item`` mode: a
slate of one), many lanes explore at once, each by itself, and features are standardised once. In evaluation, where
slates hold K items, the K of highest value are shown.

Where no term of the objective is without bound, it is known what Q can be: a chance of a purchase, say. There the
network gives the logit of how far Q lies between its bounds, and learns by the cross-entropy of that share, as in
Kalashnikov et al., "QT-Opt", CoRL 2018 (see also Farebrother et al., "Stop regressing", ICML 2024). Below the first few
items of a ranking, chances are a few hundredths and differ by less: a squared error hardly sees that, and gradient
steps that suit large values shake it, whereas a logit tells 0.01 from 0.02 as well as 0.2 from 0.33. Elsewhere the
error is squared: where rewards are skewed, Huber's loss is least at another value than the mean.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import torch
from pydantic import Field
from stable_baselines3 import DQN
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.utils import LinearSchedule
from stable_baselines3.dqn.policies import DQNPolicy
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, mse_loss

from recgym.adapters.plackett_luce import PassThrough
from recgym.adapters.sb3 import SB3VecEnv
from recgym.agents.networks import SlateScorer
from recgym.agents.sb3 import EPISODES_AVERAGED, ItemValues, LaneByLane, OffPolicyConfig, SB3Agent, SharedReplayBuffer
from recgym.agents.search import Search

if TYPE_CHECKING:
    from recgym.envs.vector import RecVectorEnv

_MOST = {"rating": 5.0, "revenue": math.inf}  # that a slate of one item earns of a term; of any other 1


class ItemValueConfig(OffPolicyConfig):
    """Settings that DQN and QR-DQN have in common."""

    exploration_fraction: float = Field(0.3, gt=0, le=1, description="share of training in which exploration falls")
    exploration: Annotated[float, Search(0.01, 0.5, log=True)] = Field(
        0.1, ge=0, le=1, description="chance of a random item thereafter"
    )
    target_interval: int = Field(8, ge=1, description="slates per lane between copies into the target network")
    max_grad_norm: float = Field(10.0, gt=0)


class DQNConfig(ItemValueConfig):
    """Settings of ``DQNAgent``."""

    gamma: Annotated[float, Search(0.0, 0.9)] = Field(
        0.0,
        ge=0,
        le=1,
        description="discount per slate; 0 suits single trips, whose slates hardly shape later ones: what follows, "
        "much the same after every item, would hide by how little items differ",
    )


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


class BoundedDQN(DQN):
    """SB3's DQN, learning by ``value_loss``; what was shown is all that is scored of the state it was shown in."""

    bounds: tuple[float, float] | None = None  # of Q, see ``value_bounds``

    def train(self, gradient_steps: int, batch_size: int = 100) -> None:
        """See ``DQN``, in whose method the loss is fixed."""
        self.policy.set_training_mode(True)
        self._update_learning_rate(self.policy.optimizer)
        losses = []
        for _ in range(gradient_steps):
            batch: Any = self.replay_buffer.sample(batch_size)  # type: ignore[union-attr]
            with torch.no_grad():
                follows = values(self.q_net_target(batch.next_observations), self.bounds).amax(1, keepdim=True)
                targets = batch.rewards + (1.0 - batch.dones) * self.gamma * follows
            user, candidates = batch.observations["user"], batch.observations["candidates"]
            shown = candidates.take_along_dim(batch.actions.long()[:, :, None], dim=1)  # [n, 1, F]
            loss = value_loss(self.q_net({"user": user, "candidates": shown}), targets, self.bounds)
            losses.append(loss.item())
            self.policy.optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(self.policy.parameters(), self.max_grad_norm)
            self.policy.optimizer.step()
        self._n_updates += gradient_steps
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        self.logger.record("train/loss", np.mean(losses))


def values(outputs: Tensor, bounds: tuple[float, float] | None) -> Tensor:
    """Q of a network's outputs: those themselves or, of logits, between ``bounds``."""
    if bounds is None:
        return outputs
    low, high = bounds
    return low + (high - low) * outputs.sigmoid()


def value_loss(outputs: Tensor, targets: Tensor, bounds: tuple[float, float] | None) -> Tensor:
    """The mean loss of outputs (see ``values``) whose Q should be ``targets``; see the module's docstring."""
    if bounds is None:
        return mse_loss(outputs, targets)
    low, high = bounds
    return binary_cross_entropy_with_logits(outputs, ((targets - low) / (high - low)).clamp(0.0, 1.0))


def value_bounds(env: RecVectorEnv, gamma: float) -> tuple[float, float] | None:
    """The least and the most that an episode of slates of one item returns, discounted; None: there is no telling."""
    scenario = env.scenario
    most = dict(_MOST)
    if scenario.behaviour.delay.share > 0:
        most["purchase"] = math.inf  # what was put aside before may come with it
    earned = [weight * most.get(term, 1.0) for term, weight in env.simulator.objective.weights.items() if weight]
    episode = scenario.episode
    slates = min(episode.max_slates, episode.max_steps) if episode.kind == "session" else episode.max_steps
    length = sum(gamma**number for number in range(slates))
    low, high = length * sum(one for one in earned if one < 0), length * sum(one for one in earned if one > 0)
    return (low, high) if 0.0 < high - low < math.inf else None


class LaneDQN(LaneByLane, BoundedDQN):
    """``BoundedDQN``, exploring lane by lane."""


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
        model = LaneDQN(ItemDQNPolicy, venv, **value_settings(self.config, venv))
        model.bounds = value_bounds(venv.env, model.gamma)  # saved with it
        return model


def value_settings(config: ItemValueConfig, venv: SB3VecEnv) -> dict[str, Any]:
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
