"""Published results on the reference users: far-sighted agents beat myopic ones, with intervals over seeds.

``python benchmarks/reference_users.py --seeds 5``. RecSim's two worlds (Ie et al., 2019): in long-term satisfaction an
agent that discounts by 0.9 against the same agent with discount 0; in interest evolution SlateQ against its myopic
variant. In the former ten trips of six slates make an episode, since agents see what a trip has shown. Each seed trains
both on the same users and scores them on the same luck; the interval is of the paired differences (t over seeds, 95%).
Beside them, two rules that read what no agent sees, to say how much is to be had.
"""

from __future__ import annotations

import argparse
import json
import sys

import numpy as np
import scipy.stats
import torch
from gymnasium.vector import AutoresetMode
from torch import Tensor

from recgym.agents.protocol import agent_class, parse_config
from recgym.envs.vector import RecVectorEnv
from recgym.evaluation.catalogue import Catalogue
from recgym.evaluation.rollout import play
from recgym.random import derive_seeds
from recgym.registration import USER_MODELS
from recgym.scenario import Scenario
from recgym.simulation.simulator import Simulator
from recgym.worlds.reference import reference_world, stepwise

SETTINGS = {
    "long_term_satisfaction": (stepwise(1, 10, {"revenue": 0.05}, slates=6), 0.9),
    "interest_evolution": (stepwise(3, 10, {"purchase": 1.0}), 0.99),
}
RULES = {"long_term_satisfaction": ("kale", "choc"), "interest_evolution": ("quality", "interest")}


def users_of(episodes: int, seed: int) -> tuple[Tensor, Tensor]:
    """User rows and lane seeds of the episodes that are scored."""
    rows = torch.arange(episodes) + 100
    return rows, derive_seeds(1_000 + seed, rows)


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
    rows, seeds = (column.numpy() for column in users_of(episodes, seed))
    simulator = Simulator(world, scenario, user_model=model)
    return float(play(agent, simulator, rows, seeds, catalogue=Catalogue.of(simulator)).episodes["reward"].mean())


def rule(users: str, name: str, episodes: int = 200) -> float:
    """Mean reward an episode of always showing the candidates with the most of ``name``, by the hidden truth."""
    scenario, _ = SETTINGS[users]
    world = reference_world()
    model = USER_MODELS.load(users)(world)
    simulator = Simulator(world, scenario, user_model=model)
    state = simulator.reset(*users_of(episodes, 0))
    total, alive = torch.zeros(episodes), torch.ones(episodes)
    while alive.any():
        items = state.candidates.to(torch.int64)  # [B, M]
        if name == "interest":
            worth = state.hidden.interest.gather(1, model.topic[items])
        else:
            worth = (
                model.quality[items] if name == "quality" else model.clickbait[items] * (1 if name == "choc" else -1)
            )
        slate = items.gather(1, worth.topk(scenario.actions.slate_size).indices)
        state, outcome = simulator.step(state, slate)
        total += alive * outcome.reward
        alive *= 1.0 - (outcome.terminated | outcome.truncated).float()
    return float(total.mean())


def compare(users: str, seeds: int, steps: int, episodes: int = 200) -> dict[str, float]:
    """Far-sighted less myopic, with its interval over seeds; ``won`` is the number of seeds with a gain."""
    scenario, gamma = SETTINGS[users]
    pairs = np.zeros((seeds, 2))
    for seed in range(seeds):
        pairs[seed] = [score(users, scenario, g, seed, steps, episodes) for g in (gamma, 0.0)]
        print(f"{users}, seed {seed}: {pairs[seed, 0]:.2f} far-sighted, {pairs[seed, 1]:.2f} myopic", file=sys.stderr)
    gain = pairs[:, 0] - pairs[:, 1]
    half = scipy.stats.t.ppf(0.975, seeds - 1) * gain.std(ddof=1) / np.sqrt(seeds) if seeds > 1 else float("nan")
    far, near = pairs.mean(0)
    return {
        "far_sighted": far,
        "myopic": near,
        "gain": gain.mean(),
        "low": gain.mean() - half,
        "high": gain.mean() + half,
        "won": int((gain > 0).sum()),
        **{f"rule {name}": rule(users, name, episodes) for name in RULES[users]},
    }


def main() -> None:
    """Prints a line for each of the two worlds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=40_000, help="slates of each training")
    parser.add_argument("--users", choices=list(SETTINGS), action="append")
    given = parser.parse_args()
    for users in given.users or SETTINGS:
        found = compare(users, given.seeds, given.steps)
        print(users, json.dumps({key: round(float(value), 2) for key, value in found.items()}), flush=True)


if __name__ == "__main__":
    main()
