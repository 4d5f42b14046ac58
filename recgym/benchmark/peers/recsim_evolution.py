"""RecSim 0.2.4: interest evolution, one user at a time, documents redrawn at each step as in its own experiments."""

from __future__ import annotations

import sys
import types
from typing import Any

import gin
import numpy as np

# RecSim's experiment runner and gin's TensorFlow hooks are imported with the package but not used by its environments;
# with them left empty, neither TensorFlow nor Dopamine is needed.
gin.tf = sys.modules["gin.tf"] = types.ModuleType("gin.tf")
sys.modules["recsim.simulator.runner_lib"] = types.ModuleType("recsim.simulator.runner_lib")

from recsim.environments import interest_evolution  # noqa: E402


class Contestant:
    """One user who answers a random slate of candidates at each step; a finished episode is reset within the step."""

    def __init__(self, num_candidates: int, slate_size: int, seed: int) -> None:
        config = {
            "num_candidates": num_candidates,
            "slate_size": slate_size,
            "resample_documents": True,
            "seed": seed,
        }
        self.env = interest_evolution.create_environment(config)
        self.env.reset()
        rng = np.random.default_rng(seed)
        self.actions = [rng.choice(num_candidates, slate_size, replace=False) for _ in range(4096)]
        self.number = 0
        self.facts: dict[str, Any] = {"num_candidates": num_candidates, "slate_size": slate_size}

    def step(self) -> int:
        """One slate answered."""
        done = self.env.step(self.actions[self.number % len(self.actions)])[2]
        self.number += 1
        if done:
            self.env.reset()
        return 1


def prepare(num_candidates: int, slate_size: int, seed: int) -> Contestant:
    """The environment, ready to be stepped."""
    return Contestant(num_candidates, slate_size, seed)
