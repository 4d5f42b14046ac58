"""Does planning over visits beat the slate that earns most at once? Ninety days of PPO, greedy and look-ahead.

    python benchmarks/long_term.py ppo --training-seeds 5
    python benchmarks/long_term.py sweep

``ppo`` trains the PPO re-ranker in ``long_term_engagement`` (kept under ``$RECGYM_HOME/agents``) and plays it beside
greedy, which sees the users' hidden state, with the same users and the same luck. At the states that PPO meets, both
slates are then shown on branches with fresh luck: greedy's has to earn more at once, or there was nothing to plan for.

``sweep`` asks whether that hangs on one value of an assumption. Over a grid of two of them it compares greedy with
look-ahead on branches with fresh luck, which needs no training: at every slate it follows greedy, and a thrifty rule
(what users most likely want, less so much for how dear it is), for some weeks, and shows the slate of the better one.

Intervals resample users; over training seeds they are Student's t.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor

from recgym.agents.lookahead import positions
from recgym.agents.protocol import ActContext, Agent, Observations, make_agent
from recgym.agents.training import cache_directory, read_record, trained
from recgym.benchmark.pages import world_of
from recgym.envs.vector import RecVectorEnv
from recgym.evaluation.catalogue import Catalogue
from recgym.evaluation.rollout import play
from recgym.evaluation.statistics import Estimate, mean
from recgym.random import derive_seeds
from recgym.scenario import Scenario, load_scenario
from recgym.simulation.planning import Policy, look_ahead, ranked
from recgym.simulation.simulator import Simulator
from recgym.simulation.state import State
from recgym.threads import one_thread
from recgym.worlds.world import World, load_world

SCENARIO = "long_term_engagement"
# Settings, where they differ from the defaults. What visits come to is noisy: the usual bonus for entropy would win.
PPO: dict[str, Any] = {"entropy_coef": 1e-4, "total_steps": 200_000}
EFFECTS = {"behaviour.price_image.effect": (1.5, 3.0, 4.5), "behaviour.satisfaction.return_effect": (1.0, 2.0, 4.0)}
THRIFT = 3.0  # logits that the dearest item costs
TOLD = ("reward", "revenue", "num_trips", "num_steps")


class Planner(Agent):
    """A policy that sees the hidden state, as an agent."""

    id = "planner"
    observes = ("candidate_items",)
    privileged = True
    policy: Policy

    def act(
        self, observations: Observations, context: ActContext, *, env: RecVectorEnv | None = None
    ) -> NDArray[np.int64]:
        """See ``Agent.act``."""
        assert env is not None
        return positions(env.state.candidates.to(torch.int64), self.policy(env.simulator, env.state)).numpy()


class Watched(Agent):
    """Another agent, beside whose slates greedy's are tried on branches with fresh luck."""

    id = "watched"
    privileged = True
    inner: Agent
    copies = 4

    def watch(self, inner: Agent) -> None:
        """Sets whose slates are shown."""
        self.inner, self.observes = inner, inner.observes  # type: ignore[misc]
        self.lost: list[NDArray[np.float64]] = []  # by slate: user, and what greedy's earns at once above the inner's

    def act(
        self, observations: Observations, context: ActContext, *, env: RecVectorEnv | None = None
    ) -> NDArray[np.int64]:
        """See ``Agent.act``."""
        assert env is not None
        slates = self.inner.act(observations, context)
        state, simulator = env.state, env.simulator
        first = state.episode == 0  # lanes whose users are still on stage
        shown = state.candidates.to(torch.int64).gather(1, torch.from_numpy(slates))
        earned = [
            _at_once(simulator, state.select(first.nonzero().squeeze(1)), choice[first], self.copies)
            for choice in (ranked(simulator.world.num_items)(simulator, state), shown)
        ]
        gap = (earned[0] - earned[1]).double()
        self.lost.append(torch.stack([state.user[first].double(), gap]).numpy())
        return slates


def _at_once(simulator: Simulator, state: State, slate: Tensor, copies: int) -> Tensor:
    """What slates [B, K] earn before users leave or return, mean over ``copies`` branches with fresh luck, [B]."""
    branches = simulator.branch(state, copies, "fresh")
    _, outcome = simulator.step(branches, slate.repeat_interleave(copies, dim=0))
    return outcome.terms["revenue"].view(-1, copies).mean(dim=1)


def thrifty(simulator: Simulator, state: State) -> Tensor:
    """The candidates most likely to be bought, less for those that look dear."""
    items = state.candidates.to(torch.int64)
    chance, _ = simulator.chance(state, items)
    worth = chance.clamp(min=1e-12).log() - THRIFT * simulator.moods.dearness[items]
    return items.gather(1, worth.argsort(dim=1, descending=True, stable=True)[:, : simulator.slate_size])


def episodes(agent: Agent, world: World, scenario: Scenario, num_users: int, seeds: int) -> dict[str, NDArray[Any]]:
    """Users and what each came to, [users * seeds] each; the same users and luck whatever the agent."""
    simulator = Simulator(world, scenario)
    users = np.arange(num_users) * world.num_users // num_users
    parts = []
    for seed in range(seeds):
        lanes = derive_seeds(seed, torch.from_numpy(users)).numpy()
        parts.append(play(agent, simulator, users, lanes, catalogue=Catalogue.of(simulator)).episodes)
    table = pd.concat(parts)
    told = {name: table[name].to_numpy(float) for name in TOLD}
    return {"user": np.tile(users, seeds), **told, "cut": (table["ended"] == "slates").to_numpy()}


def over_users(values: NDArray[Any], users: NDArray[Any]) -> Estimate:
    """A mean with its interval."""
    return mean(values, users, np.random.default_rng(0))


def over_trainings(values: Sequence[float]) -> dict[str, float]:
    """A mean over training seeds with Student's interval."""
    center, width = float(np.mean(values)), float("nan")
    if len(values) > 1:
        width = float(stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values)))
    return {"value": center, "low": center - width, "high": center + width}


def shown(estimate: Estimate | dict[str, float]) -> str:
    """An estimate as text."""
    at = estimate if isinstance(estimate, dict) else estimate.to_dict()
    return f"{at['value']:.2f} [{at['low']:.2f}, {at['high']:.2f}]"


def of_ppo(world: World, scenario: Scenario, given: argparse.Namespace) -> dict[str, Any]:
    """PPO over several training seeds against greedy, and what both slates earn at once."""
    greedy = episodes(make_agent("greedy", world), world, scenario, given.users, given.seeds)
    print(f"greedy: {shown(over_users(greedy['reward'], greedy['user']))}, {greedy['num_trips'].mean():.1f} trips")
    found: dict[str, Any] = {"greedy": {name: float(greedy[name].mean()) for name in TOLD}, "trainings": []}
    gaps = []
    for seed in range(given.training_seeds):
        agent = trained("ppo", world, scenario, seed=seed, config=PPO)
        record = read_record(cache_directory("ppo", world, scenario, seed=seed, config=PPO)) or {}
        watched = Watched(world)
        watched.watch(agent)
        played = episodes(agent, world, scenario, given.users, given.seeds)
        gap = played["reward"] - greedy["reward"]
        gaps.append(gap)
        episodes(watched, world, scenario, min(given.users, 25), 1)
        user, lost = np.concatenate(watched.lost, axis=1)
        line = {
            "seed": seed,
            "train_seconds": record.get("train_seconds"),
            **{name: float(played[name].mean()) for name in TOLD},
            "cut": float(played["cut"].mean()),
            "over_greedy": over_users(gap, greedy["user"]).to_dict(),
            "greedy_earns_more_at_once": over_users(lost, user).to_dict(),
            "slates_compared": len(lost),
        }
        found["trainings"].append(line)
        print(
            f"ppo, training seed {seed} ({line['train_seconds']:.0f} s): {line['reward']:.1f}, {line['num_trips']:.1f} "
            f"trips, {line['cut']:.0%} cut off by the limit of slates, over greedy {shown(line['over_greedy'])}; at "
            "its states greedy's slate earns "
            f"{shown(line['greedy_earns_more_at_once'])} more at once",
            flush=True,
        )
    found["over_trainings"] = over_trainings([float(gap.mean()) for gap in gaps])
    found["over_users"] = over_users(np.mean(gaps, axis=0), greedy["user"]).to_dict()
    print(f"over greedy, mean of trainings: {shown(found['over_trainings'])} over training seeds, ", end="")
    print(f"{shown(found['over_users'])} over users")
    return found


def sweep(world: World, given: argparse.Namespace) -> list[dict[str, Any]]:
    """Look-ahead and its two policies against greedy over a grid of two assumptions."""
    found = []
    (first, ones), (second, others) = EFFECTS.items()
    for one in ones:
        for other in others:
            scenario = load_scenario(given.scenario, {first: one, second: other})
            choices: dict[str, Policy] = {"greedy": ranked(world.num_items), "thrifty": thrifty}
            both = list(choices.values())
            choices["look-ahead"] = lambda simulator, state, both=both: look_ahead(
                simulator, state, both, depth=given.depth, copies=given.copies, days=given.days
            )
            line: dict[str, Any] = {first: one, second: other}
            base = np.zeros(0)
            for name, policy in choices.items():
                planner = Planner(world)
                planner.policy = policy
                played = episodes(planner, world, scenario, given.users, given.seeds)
                base = played["reward"] if name == "greedy" else base
                line[name] = over_users(played["reward"] - (base if name != "greedy" else 0), played["user"]).to_dict()
                line[name]["cut"] = int(played["cut"].sum())
            found.append(line)
            print(
                f"{first} {one}, {second} {other}: greedy {shown(line['greedy'])}; over it, look-ahead "
                f"{shown(line['look-ahead'])}, thrifty always {shown(line['thrifty'])}; cut off by the limit of "
                f"slates: {', '.join(str(line[name]['cut']) for name in choices)} of {len(base)} episodes",
                flush=True,
            )
    return found


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("ppo", "sweep"))
    parser.add_argument("--world", default="ecommerce")
    parser.add_argument("--scenario", default=SCENARIO)
    parser.add_argument("--users", type=int, help="default: 300, of a sweep 40")
    parser.add_argument("--seeds", type=int, default=1, help="episodes of each user")
    parser.add_argument("--training-seeds", type=int, default=5)
    parser.add_argument("--days", type=int, default=21, help="that look-ahead sees")
    parser.add_argument("--depth", type=int, default=40, help="slates that it looks ahead at most")
    parser.add_argument("--copies", type=int, default=4, help="branches a policy")
    parser.add_argument("--out", type=Path, help="JSON file of the figures")
    given = parser.parse_args(arguments)
    given.users = given.users or (300 if given.what == "ppo" else 40)
    world, started = load_world(given.world), time.monotonic()
    with one_thread():
        figures = of_ppo(world, load_scenario(given.scenario), given) if given.what == "ppo" else sweep(world, given)
    print(f"{world_of(world)} {time.monotonic() - started:.0f} s")
    if given.out is not None:
        settings = {name: str(value) for name, value in vars(given).items() if name != "out"}
        given.out.parent.mkdir(parents=True, exist_ok=True)
        given.out.write_text(json.dumps({"settings": settings, "figures": figures}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
