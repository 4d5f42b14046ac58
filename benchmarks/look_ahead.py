"""Looking ahead on branches of the simulation against greedy, where the future matters.

The users are the hand-written reference model ``boredom``, who lose interest in a topic while they see too much of it:
what a slate earns now is not all that it does. At every slate a planner branches off the running environment and
follows each of some policies (greedy, and greedy with at most 5, 3 or 2 items of a category) for a few slates; it shows
the slate of the one that earned most on average.

- ``fresh luck``: the branches redraw whatever is not settled yet. That is planning: it knows how users work, and
  nothing of what they are going to do.
- ``same luck``: the one branch replays what is going to happen. That is clairvoyance: no policy can reach its figure,
  and it is here to show why plans must not be made on it.

All meet the same users with the same luck, so differences are paired; intervals resample users.

python benchmarks/look_ahead.py --users 200 --seeds 3 --copies 32
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recgym.evaluation.statistics import Estimate, mean
from recgym.random import derive_seeds
from recgym.registration import USER_MODELS
from recgym.scenario import load_scenario
from recgym.simulation.planning import Policy, look_ahead, ranked
from recgym.simulation.simulator import Simulator
from recgym.threads import one_thread
from recgym.worlds.world import World, load_world

SCENARIOS: dict[str, dict[str, Any]] = {
    "one trip": {},
    "40 slates over some trips": {"episode.kind": "horizon", "episode.max_steps": 40},
}
LIMITS = (5, 3, 2)


def play(simulator: Simulator, policy: Policy, users: Tensor, seed: int) -> np.ndarray:
    """What each of ``users`` (int64 [B] rows) earns in an episode, float64 [B]."""
    state = simulator.reset(derive_seeds(seed, users), torch.zeros_like(users), users)
    earned, alive = np.zeros(len(users)), torch.ones(len(users), dtype=torch.bool)
    while alive.any():
        rows = alive.nonzero().squeeze(1)
        slate = state.candidates[:, : simulator.slate_size].to(torch.int64)
        slate[rows] = policy(simulator, state.select(rows))
        state, outcome = simulator.step(state, slate, alive)
        earned += (outcome.reward * alive).double().numpy()
        alive &= ~(outcome.terminated | outcome.truncated)
    return earned


def policies(world: World, depth: int, copies: int) -> dict[str, Policy]:
    """Greedy, its variants, and both ways of choosing among them, by name."""
    names = world.items["category"].astype(str).to_numpy()
    group = torch.from_numpy(np.unique(names, return_inverse=True)[1].astype(np.int64))
    followed = {"greedy": ranked(world.num_items)}
    followed |= {f"at most {limit} of a category": ranked(limit, group) for limit in LIMITS}
    choices = list(followed.values())
    return {
        **followed,
        "look-ahead, fresh luck": lambda simulator, state: look_ahead(
            simulator, state, choices, depth=depth, copies=copies
        ),
        "look-ahead, same luck (clairvoyant)": lambda simulator, state: look_ahead(
            simulator, state, choices, depth=depth, luck="same"
        ),
    }


def compare(
    world: World,
    scenario: dict[str, Any],
    *,
    num_users: int,
    num_seeds: int,
    depth: int,
    copies: int,
    told: Callable[[str], None] = lambda line: None,
) -> dict[str, dict[str, Estimate]]:
    """Reward an episode and its paired difference from greedy, by policy."""
    model = USER_MODELS.load("boredom")(world, "cpu")
    simulator = Simulator(world, load_scenario("default", scenario), user_model=model)
    users = torch.arange(num_users) * world.num_users // num_users
    clusters = np.tile(users.numpy(), num_seeds)
    found: dict[str, dict[str, Estimate]] = {}
    base = np.zeros(0)
    for name, policy in policies(world, depth, copies).items():
        earned = np.concatenate([play(simulator, policy, users, seed) for seed in range(num_seeds)])
        base = earned if name == "greedy" else base
        rng = np.random.default_rng(0)
        found[name] = {"reward": mean(earned, clusters, rng), "over_greedy": mean(earned - base, clusters, rng)}
        told(f"{name:38s} " + "  ".join(_shown(estimate) for estimate in found[name].values()))
    return found


def _shown(estimate: Estimate) -> str:
    return f"{estimate.value:7.2f} [{estimate.low:.2f}, {estimate.high:.2f}]"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--world", default="ecommerce")
    parser.add_argument("--users", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--depth", type=int, default=6, help="slates that a branch looks ahead")
    parser.add_argument("--copies", type=int, default=32, help="branches a policy with fresh luck")
    parser.add_argument("--only", choices=list(SCENARIOS), help="one scenario instead of all")
    parser.add_argument("--out", type=Path, help="JSON file of the figures")
    given = parser.parse_args(arguments)
    world, figures = load_world(given.world), {}
    for name, scenario in SCENARIOS.items():
        if given.only not in (None, name):
            continue
        print(f"{name}: reward an episode, and over greedy (95% intervals, {given.users} users x {given.seeds} seeds)")
        with one_thread():
            found = compare(
                world,
                scenario,
                num_users=given.users,
                num_seeds=given.seeds,
                depth=given.depth,
                copies=given.copies,
                told=lambda line: print("  " + line, flush=True),
            )
        figures[name] = {policy: {key: value.to_dict() for key, value in row.items()} for policy, row in found.items()}
    if given.out is not None:
        settings = {key: getattr(given, key) for key in ("world", "users", "seeds", "depth", "copies")}
        given.out.parent.mkdir(parents=True, exist_ok=True)
        given.out.write_text(json.dumps({"settings": settings, "figures": figures}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
