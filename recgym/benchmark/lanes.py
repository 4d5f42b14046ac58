"""RecGym's contestants: the vector and the single environment, driven by random actions drawn beforehand."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

import recgym
from recgym.benchmark.worlds import bench_world

BATCHES = 16  # of actions, taken in turn


class VectorContestant:
    """Lanes of a vector environment; the step in which a lane only restarts does not count for it."""

    def __init__(self, lanes: int, seed: int, device: str, arguments: dict[str, Any]) -> None:
        """Makes the environment with ``arguments`` of ``recgym.make_vec``; off the CPU, with torch in and out."""
        self.torch = device != "cpu"
        extra: dict[str, Any] = {"device": device, "output": "torch"} if self.torch else {}
        self.env = recgym.make_vec(**arguments, **extra, num_envs=lanes)
        self.env.reset(seed=seed)
        space: Any = self.env.single_action_space
        rng = np.random.default_rng(seed)
        drawn = [rng.integers(0, space.nvec, (lanes, *space.shape)) for _ in range(BATCHES)]
        self.actions = [torch.from_numpy(one).to(device) for one in drawn] if self.torch else drawn
        self.lanes, self.number, self.resting = lanes, 0, 0
        self.facts: dict[str, Any] = {"lanes": lanes, "threads": torch.get_num_threads(), "device": device}

    def step(self) -> int:
        """A slate for every lane."""
        _, _, terminated, truncated, _ = self.env.step(self.actions[self.number % BATCHES])
        self.number += 1
        counted = self.lanes - self.resting
        self.resting = int((terminated | truncated).sum())  # with torch, waits for the device
        return counted


class SingleContestant:
    """One user; a finished episode is reset within the step."""

    def __init__(self, seed: int, arguments: dict[str, Any]) -> None:
        """Makes the environment with ``arguments`` of ``recgym.make``."""
        self.env = recgym.make(**arguments)
        self.env.reset(seed=seed)
        space: Any = self.env.action_space
        self.actions = np.random.default_rng(seed).integers(0, space.nvec, (1024, *space.shape))
        self.number = 0
        self.facts: dict[str, Any] = {"lanes": 1, "threads": torch.get_num_threads()}

    def step(self) -> int:
        """One slate answered."""
        _, _, terminated, truncated, _ = self.env.step(self.actions[self.number % len(self.actions)])
        self.number += 1
        if terminated or truncated:
            self.env.reset()
        return 1


def prepare(
    lanes: int,
    seed: int,
    single: bool = False,
    device: str = "cpu",
    items: int = 0,
    dim: int = 64,
    scenario: dict[str, Any] | None = None,
    **arguments: Any,
) -> VectorContestant | SingleContestant:
    """The environment, ready to be stepped.

    Args:
        lanes: B.
        seed: of lanes and actions.
        single: ``RecEnv`` instead of a vector of one.
        device: torch device of the simulation.
        items: size of the catalogue of a world made for the purpose; 0: the world of the environment id.
        dim: width of the network of such a world.
        scenario: overrides of the default scenario.
        **arguments: of ``recgym.make`` or ``recgym.make_vec``.
    """
    if items:
        arguments["world"] = bench_world(items, dim)
    if scenario:
        arguments["scenario"] = recgym.load_scenario("default", scenario)
    if single:
        return SingleContestant(seed, arguments)
    return VectorContestant(lanes, seed, device, arguments)
