"""User-steps per second of the environments: whole steps, default observation included, medians over runs.

    python benchmarks/speed.py --lanes 1 64 1024 4096 --runs 5 --out speed.json

A user-step is one slate answered; steps that only restart a lane do not count. Actions are drawn beforehand.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from pathlib import Path

import numpy as np
import torch

import recgym
from recgym.envs.single import RecEnv
from recgym.envs.vector import RecVectorEnv


def measure(env_id: str, lanes: int, seconds: float, seed: int) -> float:
    """User-steps per second of one run of about ``seconds``."""
    env = recgym.make_vec(env_id, num_envs=lanes) if lanes > 1 else recgym.make(env_id)
    env.reset(seed=seed)
    env.action_space.seed(seed)
    actions = [env.action_space.sample() for _ in range(16)]
    for action in actions[:2]:  # warm up
        _step(env, action, lanes)
    answered, number, started = 0, 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        answered += _step(env, actions[number % len(actions)], lanes)
        number += 1
    rate = answered / (time.perf_counter() - started)
    env.close()
    return rate


_resting: dict[int, np.ndarray] = {}


def _step(env: RecEnv | RecVectorEnv, action: np.ndarray, lanes: int) -> int:
    """One step; how many users answered a slate in it."""
    _, _, terminated, truncated, _ = env.step(action)
    if lanes == 1:
        if terminated or truncated:
            env.reset()
        return 1
    resting = _resting.get(id(env))
    _resting[id(env)] = terminated | truncated  # these lanes restart in the next step, which answers nothing
    return lanes if resting is None else int(lanes - resting.sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", default="ecommerce-v0")
    parser.add_argument("--lanes", type=int, nargs="+", default=[1, 64, 1024, 4096])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--threads", type=int, default=0, help="torch threads; 0 leaves torch's default")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    rates: dict[int, list[float]] = {lanes: [] for lanes in arguments.lanes}
    for run in range(arguments.runs):  # sizes alternate, so that a slow minute does not fall on one of them
        for lanes in arguments.lanes:
            rates[lanes].append(measure(arguments.env, lanes, arguments.seconds, seed=run))
    print(f"{arguments.env}, {torch.get_num_threads()} torch threads, {arguments.runs} runs of {arguments.seconds:g} s")
    print(f"{'lanes':>6} {'median':>9} {'min':>9} {'max':>9}  user-steps per second")
    for lanes, values in rates.items():
        print(f"{lanes:>6} {statistics.median(values):>9,.0f} {min(values):>9,.0f} {max(values):>9,.0f}")
    if arguments.out:
        versions = {"recgym": recgym.__version__, "torch": torch.__version__, "numpy": np.__version__}
        record = {
            "env": arguments.env,
            "threads": torch.get_num_threads(),
            "machine": platform.processor() or platform.machine(),
            "versions": versions,
            "rates": {str(lanes): values for lanes, values in rates.items()},
        }
        arguments.out.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
