"""Gymnasium's vectorised CartPole: no recommender, but the speed that a vector environment can have, for scale."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np


class Contestant:
    """Lanes of CartPole; the step in which a lane restarts does not count."""

    def __init__(self, lanes: int, seed: int) -> None:
        self.env = gymnasium.make_vec("CartPole-v1", num_envs=lanes, vectorization_mode="vector_entry_point")
        self.env.reset(seed=seed)
        rng = np.random.default_rng(seed)
        self.actions = [rng.integers(0, 2, lanes) for _ in range(64)]
        self.number, self.lanes, self.resting = 0, lanes, 0
        self.facts: dict[str, Any] = {"lanes": lanes}

    def step(self) -> int:
        """One step of all lanes."""
        _, _, terminated, truncated, _ = self.env.step(self.actions[self.number % len(self.actions)])
        self.number += 1
        counted = self.lanes - self.resting
        self.resting = int((terminated | truncated).sum())
        return counted


def prepare(lanes: int, seed: int) -> Contestant:
    """The environment, ready to be stepped."""
    return Contestant(lanes, seed)
