"""Published results on the reference users: far-sighted agents beat myopic ones, with intervals over seeds.

``python benchmarks/reference_users.py --seeds 5``. RecSim's two worlds (Ie et al., 2019): in long-term satisfaction an
agent that discounts by 0.9 against the same agent with discount 0; in interest evolution SlateQ against its myopic
variant. Each seed trains both on the same users and scores them on the same luck; the interval is over seeds (t, 95%).
"""

from __future__ import annotations

import argparse
import json

import numpy as np
import scipy.stats
import torch
from gymnasium.vector import AutoresetMode

from recgym.agents.protocol import agent_class, parse_config
from recgym.envs.vector import RecVectorEnv
from recgym.evaluation.rollout import Catalogue, play
from recgym.random import derive_seeds
from recgym.registration import USER_MODELS
from recgym.scenario import Scenario
from recgym.simulation.simulator import Simulator
from recgym.worlds.reference import reference_world, stepwise

SETTINGS = {
    "long_term_satisfaction": (stepwise(1, 10, {"revenue": 0.05}), 0.9),
    "interest_evolution": (stepwise(3, 10, {"purchase": 1.0}), 0.95),
}


def score(users: str, scenario: Scenario, gamma: float, seed: int, steps: int, episodes: int = 200) -> float:
    """Mean reward an episode of SlateQ trained with ``gamma``."""
    world = reference_world()
    cls = agent_class("slateq")
    agent = cls(world, parse_config(cls, {"gamma": gamma, "num_envs": 64, "num_steps": 4}), seed)
    model = USER_MODELS.load(users)(world)
    env = RecVectorEnv(
        world,
        scenario,
        64,
        observation=agent.observes,
        autoreset_mode=AutoresetMode.SAME_STEP,
        user_model=model,
    )
    agent.train(env, steps)
    rows = np.arange(episodes) + 100
    seeds = derive_seeds(1_000 + seed, torch.from_numpy(rows)).numpy()
    simulator = Simulator(world, scenario, user_model=model)
    return float(play(agent, simulator, rows, seeds, catalogue=Catalogue.of(simulator)).episodes["reward"].mean())


def compare(users: str, seeds: int, steps: int) -> dict[str, float]:
    """Far-sighted less myopic, with its interval over seeds."""
    scenario, gamma = SETTINGS[users]
    pairs = np.array([[score(users, scenario, g, seed, steps) for g in (gamma, 0.0)] for seed in range(seeds)])
    gain = pairs[:, 0] - pairs[:, 1]
    half = scipy.stats.t.ppf(0.975, seeds - 1) * gain.std(ddof=1) / np.sqrt(seeds) if seeds > 1 else float("nan")
    far, near = pairs.mean(0)
    return {
        "far_sighted": far,
        "myopic": near,
        "gain": gain.mean(),
        "low": gain.mean() - half,
        "high": gain.mean() + half,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=40_000, help="slates of each training")
    parser.add_argument("--users", choices=list(SETTINGS), action="append")
    given = parser.parse_args()
    for users in given.users or SETTINGS:
        print(users, json.dumps({k: round(float(v), 2) for k, v in compare(users, given.seeds, given.steps).items()}))


if __name__ == "__main__":
    main()
