"""Off-policy estimates from logs with exact propensities, each scored against the simulator's truth.

python benchmarks/off_policy.py --env ecommerce-v0 --logs 10 --slates 4000 --out runs/off_policy.json

A context is the first slate of a visit: 20 candidates, of which a logging policy (popularity, every slot with chance
one half any of the candidates left) shows one item, or three. Target policies rank otherwise and explore less. Their
true value is what they earn when they act themselves, in many more such contexts. Every estimator reads the same logs;
what is reported is its bias, its root-mean-square error over logs that differ in users and luck alone, and how often
its 95% interval holds the truth. One item: IPS, SNIPS, DM and DR, whose model of rewards is a ridge regression on the
features that agents see, fitted on the other half of the log's users. Three items: IPS and SNIPS of whole slates, and
RIPS, which weighs every position by those above it. Nothing is chosen on these figures.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from recgym.agents.exploration import Behaviour, slot_propensities
from recgym.agents.protocol import ActContext, make_agent
from recgym.data.rollouts import Rollouts, collect
from recgym.envs.vector import RecVectorEnv
from recgym.evaluation import off_policy
from recgym.evaluation.off_policy import Logged
from recgym.evaluation.statistics import Estimate, mean
from recgym.registration import ENVS
from recgym.scenario import Scenario, load_scenario
from recgym.threads import one_thread
from recgym.worlds.world import World, load_world

LOGGING = ("popularity", 0.5)  # agent, exploration
TARGETS = (("popularity", 0.1), ("frequency", 0.1), ("item_knn", 0.1), ("popularity", 1.0))
CANDIDATES = {"own": 8, "popular": 8, "uniform": 4}
RIDGE = 10.0
DRAWS = 300
LANES = 256


@dataclass(frozen=True)
class Score:
    """How an estimator fares for a target policy over several logs."""

    slate_size: int
    target: str
    estimator: str
    truth: float
    truth_low: float
    truth_high: float
    estimate: float  # mean over logs
    bias: float
    rmse: float
    coverage: float  # share of logs whose interval holds the truth
    effective_size: float  # mean effective number of slates of a log


def contexts(slate_size: int) -> Scenario:
    """Episodes of a single slate."""
    return load_scenario(
        "default",
        {
            "name": f"single slates of {slate_size}",
            "episode.max_slates": 1,
            "actions.slate_size": slate_size,
            "actions.num_candidates": sum(CANDIDATES.values()),
            **{f"actions.candidates.{kind}": count for kind, count in CANDIDATES.items()},
        },
    )


def log(world: World, scenario: Scenario, policy: Behaviour, keys: Sequence[str], slates: int, seed: int) -> Rollouts:
    """``slates`` single slates of ``policy``."""
    env = RecVectorEnv(world=world, scenario=scenario, num_envs=min(LANES, slates))
    return collect(policy, env, slates, keys=keys, seed=seed)


def chances(policy: Behaviour, logged: Rollouts, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The chance [R, K] of each logged position under ``policy``, given those above it; and its ranking [R, M]."""
    seen = {key: values[rows] for key, values in logged.observations.items()}
    size = seen["candidate_items"].shape[1]
    start = np.zeros(len(rows), np.int64)
    ranking = policy.agent.act(seen, ActContext(start, start, size))
    return slot_propensities(ranking, logged.slate[rows], policy.epsilon), ranking


def reward_model(logged: Rollouts, rows: np.ndarray) -> np.ndarray:
    """[R, M] reward expected of each candidate, by a ridge regression fitted on the other half of the users."""
    features = logged.observations["candidates"][rows].astype(np.float64)  # [R, M, F]
    user = logged.observations["user"][rows].astype(np.float64)
    wide = np.concatenate(
        [
            np.ones((*features.shape[:2], 1)),
            features,
            features**2,
            np.broadcast_to(user[:, None, :], (*features.shape[:2], user.shape[1])),
        ],
        axis=2,
    )
    at = np.arange(len(rows))
    own, rewards = wide[at, logged.slate[rows, 0]], logged.reward[rows].astype(np.float64)
    half = logged.user[rows] % 2
    found = np.empty(features.shape[:2])
    for side in (0, 1):
        known = half != side
        gram = own[known].T @ own[known] + RIDGE * np.eye(own.shape[1])
        weights = np.linalg.solve(gram, own[known].T @ rewards[known])
        found[half == side] = wide[half == side] @ weights
    return found


def estimates(target: Behaviour, logged: Rollouts) -> Iterator[tuple[str, Estimate, float]]:
    """Each estimator's name, estimate and effective number of slates."""
    rows = logged.slates()
    wanted, ranking = chances(target, logged, rows)
    acted, users = logged.propensity[rows], logged.user[rows]
    rewards = logged.reward[rows].astype(np.float64)
    whole = Logged(rewards, wanted.prod(1), acted.prod(1), users)
    size = off_policy.effective_sample_size(off_policy.importance_weights(whole.target, whole.logging))
    yield "IPS", off_policy.ips(whole, np.random.default_rng(0), draws=DRAWS), size
    yield "SNIPS", off_policy.snips(whole, np.random.default_rng(0), draws=DRAWS), size
    if logged.slate.shape[1] > 1:
        gains = logged.consumed[rows].astype(np.float64)
        by_position = Logged(gains, wanted, acted, users)
        interaction = off_policy.reward_interaction(by_position, np.random.default_rng(0), draws=DRAWS)
        yield "RIPS", interaction, size
        return
    count = ranking.shape[1]
    policy = np.full(ranking.shape, target.epsilon / count)
    np.put_along_axis(policy, ranking[:, :1], target.epsilon / count + 1 - target.epsilon, axis=1)
    model = reward_model(logged, rows)
    yield "DM", off_policy.direct_method(policy, model, users, np.random.default_rng(0), draws=DRAWS), len(rows)
    robust = off_policy.doubly_robust(
        whole, logged.slate[rows, 0], policy, model, np.random.default_rng(0), draws=DRAWS
    )
    yield "DR", robust, size


def measure(world: World, *, logs: int, slates: int, truth_slates: int, seed: int = 0) -> list[Score]:
    """Every estimator for every target and slate size."""
    found = []
    for slate_size in (1, 3):
        scenario = contexts(slate_size)
        policies = {
            f"{name}, exploring {share:g}": Behaviour(make_agent(name, world), share) for name, share in TARGETS
        }
        acting = Behaviour(make_agent(LOGGING[0], world), LOGGING[1])
        observed = [key for policy in (*policies.values(), acting) for key in policy.agent.observes]
        keys = tuple(dict.fromkeys([*observed, "user", "candidates", "candidate_items"]))
        histories = [log(world, scenario, acting, keys, slates, seed + number) for number in range(logs)]
        for label, target in policies.items():
            played = log(world, scenario, target, ("user",), truth_slates, seed + logs)
            rows = played.slates()
            truth = mean(played.reward[rows], played.user[rows], np.random.default_rng(seed), draws=DRAWS)
            results: dict[str, list[tuple[Estimate, float]]] = {}
            for history in histories:
                for name, estimate, size in estimates(target, history):
                    results.setdefault(name, []).append((estimate, size))
            for name, several in results.items():
                values = np.array([estimate.value for estimate, _ in several])
                found.append(
                    Score(
                        slate_size=slate_size,
                        target=label,
                        estimator=name,
                        truth=truth.value,
                        truth_low=truth.low,
                        truth_high=truth.high,
                        estimate=float(values.mean()),
                        bias=float(values.mean() - truth.value),
                        rmse=float(np.sqrt(((values - truth.value) ** 2).mean())),
                        coverage=float(np.mean([one.low <= truth.value <= one.high for one, _ in several])),
                        effective_size=float(np.mean([size for _, size in several])),
                    )
                )
    return found


def markdown(scores: Sequence[Score]) -> str:
    """The scores as a table."""
    lines = [
        "| items | target | estimator | truth | estimate | bias | RMSE | coverage | effective slates |",
        "|---:|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {one.slate_size} | {one.target} | {one.estimator} | {one.truth:.4f} | {one.estimate:.4f} | {one.bias:+.4f} "
        f"| {one.rmse:.4f} | {one.coverage:.0%} | {one.effective_size:,.0f} |"
        for one in scores
    ]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", default="ecommerce-v0", help="environment id, or name or directory of a world")
    parser.add_argument("--logs", type=int, default=10, help="logs that each estimator reads")
    parser.add_argument("--slates", type=int, default=4_000, help="slates of a log")
    parser.add_argument("--truth-slates", type=int, default=40_000, help="slates that a true value is read off")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="JSON file of the results")
    given = parser.parse_args(arguments)
    world = load_world(ENVS.spec(given.env).own_world() if given.env in ENVS.names() else given.env)
    with one_thread():
        scores = measure(world, logs=given.logs, slates=given.slates, truth_slates=given.truth_slates, seed=given.seed)
    print(markdown(scores))
    if given.out:
        settings: dict[str, Any] = {name: str(value) for name, value in vars(given).items() if name != "out"}
        given.out.parent.mkdir(parents=True, exist_ok=True)
        content = {"settings": {**settings, "world": world.hash}, "scores": [asdict(one) for one in scores]}
        given.out.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
