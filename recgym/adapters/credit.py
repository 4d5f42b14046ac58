"""A rollout buffer for SB3's PPO that credits each position of a slate with its own share of the reward."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.buffers import DictRolloutBuffer
from stable_baselines3.common.type_aliases import DictRolloutBufferSamples
from torch import Tensor


class SlateRolloutBuffer(DictRolloutBuffer):
    """Advantages and log-probabilities by position [n, K], for a ``PlackettLucePolicy`` made with ``by_position=True``.

    A slate's advantage A blames an item for what the K - 1 others earned, which is nearly all of its variance. Items of
    a slate answer independently (the decomposition of SlateQ: Ie et al., IJCAI 2019), so position k is compared by

        A_k = r_k - c_k rho(s) + (A - r + rho(s))

    with r_k its own reward (``split_reward``), r the slate's, rho(s) the expected r given the state (a linear fit on
    the critic's value) and c_k the position's usual share of r. What comes after the slate (the last bracket) is
    credited to every position in full. Given independent items whose rewards are their own, this is the policy gradient
    with less noise. PPO's losses are elementwise and do not notice the extra dimension; its clipping then holds for
    each position's choice by itself.
    """

    credits: Callable[[], NDArray[Any]] | None = None

    def watch(self, credits: Callable[[], NDArray[Any]]) -> None:
        """Sets where ``add`` reads the latest reward by position [B, K]: ``SB3VecEnv.credits``."""
        self.credits = credits

    def reset(self) -> None:
        """See ``RolloutBuffer``."""
        super().reset()
        self.own_rewards = np.zeros((self.buffer_size, self.n_envs, self.action_dim), np.float32)  # [T, B, K]
        self.log_probs = np.zeros_like(self.own_rewards)

    def add(self, *args: Any, **kwargs: Any) -> None:
        """See ``DictRolloutBuffer``; the last argument, ``log_prob``, is [B, K]."""
        assert self.credits is not None, "call watch before the first rollout"
        self.own_rewards[self.pos] = self.credits()
        super().add(*args, **kwargs)

    def compute_returns_and_advantage(self, last_values: Tensor, dones: NDArray[Any]) -> None:
        """See ``RolloutBuffer``; advantages become [T, B, K], returns stay those of the slate."""
        super().compute_returns_and_advantage(last_values, dones)
        self.advantages = by_position(self.own_rewards, self.advantages, self.values)

    def _get_samples(  # type: ignore[override]
        self, batch_inds: NDArray[Any], env: Any = None
    ) -> DictRolloutBufferSamples:
        observations = {key: self.to_torch(values[batch_inds]) for key, values in self.observations.items()}
        return DictRolloutBufferSamples(
            observations=observations,
            actions=self.to_torch(self.actions[batch_inds].astype(np.float32, copy=False)),
            old_values=self.to_torch(self.values[batch_inds].flatten()),
            old_log_prob=self.to_torch(self.log_probs[batch_inds]),
            advantages=self.to_torch(self.advantages[batch_inds]),
            returns=self.to_torch(self.returns[batch_inds].flatten()),
        )


def by_position(own: NDArray[Any], advantages: NDArray[Any], values: NDArray[Any]) -> NDArray[Any]:
    """Advantages by position [T, B, K]; see ``SlateRolloutBuffer``.

    Args:
        own: reward by position, [T, B, K].
        advantages: of whole slates, [T, B].
        values: the critic's, [T, B].
    """
    rewards = own.sum(axis=2)
    mean = float(rewards.mean())
    share = own.mean(axis=(0, 1)) / mean if mean else np.full(own.shape[2], 1.0 / own.shape[2])
    centred = values - values.mean()
    spread = float((centred**2).mean())
    slope = float((centred * (rewards - mean)).mean()) / spread if spread > 1e-12 else 0.0
    expected = mean + slope * centred
    out = own - share * expected[:, :, None] + (advantages - rewards + expected)[:, :, None]
    return out.astype(np.float32)


def split_reward(rewards: NDArray[Any], consumed: NDArray[Any]) -> NDArray[np.float32]:
    """Rewards [B] split over positions [B, K]: evenly among the items consumed, or among all where none was.

    What each item earned where the reward counts purchases; under other objectives (revenue, liked items) the items
    that were consumed on one slate share what they earned together.
    """
    taken = np.asarray(consumed, np.float32)
    number = taken.sum(axis=1, keepdims=True)
    weights = np.where(number > 0, taken / np.maximum(number, 1.0), 1.0 / taken.shape[1])
    return (np.asarray(rewards, np.float32)[:, None] * weights).astype(np.float32)
