"""SARDINE (sardine-rec 1.0.8): its own boredom-and-influence environment, one user at a time, default observation."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import sardine  # noqa: F401  (registers the environments)

ENV_ID = "sardine/SlateTopK-BoredInf-v0"


class Contestant:
    """One user who answers a random slate at each step; a finished episode is reset within the step."""

    def __init__(self, num_items: int, slate_size: int, seed: int) -> None:
        np.random.seed(seed)  # noqa: NPY002  (what SARDINE draws its item embeddings from)
        # Without a file of embeddings, SARDINE draws them for as many items as it is asked for.
        self.env = gymnasium.make(ENV_ID, num_items=num_items, slate_size=slate_size, env_embedds=None)
        self.env.reset(seed=seed)
        self.env.action_space.seed(seed)
        self.actions = [self.env.action_space.sample() for _ in range(4096)]
        self.number = 0
        self.facts: dict[str, Any] = {"env": ENV_ID, "num_items": num_items, "slate_size": slate_size}

    def step(self) -> int:
        """One slate answered."""
        _, _, terminated, truncated, _ = self.env.step(self.actions[self.number % len(self.actions)])
        self.number += 1
        if terminated or truncated:
            self.env.reset()
        return 1


def prepare(num_items: int, slate_size: int, seed: int) -> Contestant:
    """The environment, ready to be stepped."""
    return Contestant(num_items, slate_size, seed)
