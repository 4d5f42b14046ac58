"""What keeping the users' memory as bfloat16 costs and brings: ``preference_bfloat16`` beside ``preference``.

Both play the same lanes with the same luck and random slates. Prints one JSON object: the share of slates answered
differently, the difference of the mean reward a slate with a 95% interval over lanes, bytes a lane, and the speed of
one over the other in alternating rounds.

    python benchmarks/bfloat16.py --lanes 4096 --steps 40
"""

from __future__ import annotations

import argparse
import json
import time

import numpy as np
import torch

import recgym
from recgym.envs.vector import RecVectorEnv

MODELS = ("preference", "preference_bfloat16")


def main() -> None:
    """Plays, compares and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", default="ecommerce-v0")
    parser.add_argument("--lanes", type=int, default=4096)
    parser.add_argument("--steps", type=int, default=40, help="slates a lane, in all rounds together")
    parser.add_argument("--rounds", type=int, default=5, help="rounds that the steps are timed in, in turn")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    envs = [_make(arguments.env, arguments.lanes, model, arguments.seed) for model in MODELS]
    generator = torch.Generator().manual_seed(arguments.seed)
    slates = [_slates(envs[0], arguments.lanes, generator) for _ in range(arguments.steps)]
    differing = answered = 0
    reward = torch.zeros(2, arguments.lanes)
    ratios = []
    for part in np.array_split(np.arange(arguments.steps), arguments.rounds):
        answers: list[list[torch.Tensor]] = []
        seconds = []
        for number, env in enumerate(envs):
            begin = time.perf_counter()
            steps = [env.step(slates[step]) for step in part]
            seconds.append(time.perf_counter() - begin)
            reward[number] += sum(step[1] for step in steps)
            answers.append([step[4]["consumed"] for step in steps])
        ratios.append(seconds[0] / seconds[1])
        for mine, theirs in zip(*answers, strict=True):
            differing += int((mine != theirs).any(dim=1).sum())
            answered += len(mine)
    paired = (reward[1] - reward[0]).double() / arguments.steps
    error = 1.96 * float(paired.std()) / arguments.lanes**0.5
    sizes = [env.state.hidden.cache.nbytes / arguments.lanes for env in envs]
    result = {
        "env": arguments.env,
        "slates": answered,
        "answered_differently": differing / answered,
        "mean_reward": float(reward[0].mean()) / arguments.steps,
        "reward_difference": [float(paired.mean()) - error, float(paired.mean()), float(paired.mean()) + error],
        "cache_bytes_a_lane": sizes,
        "speed_ratio": {"median": float(np.median(ratios)), "min": min(ratios), "max": max(ratios)},
        "threads": torch.get_num_threads(),
    }
    print(json.dumps(result))


def _make(env: str, lanes: int, model: str, seed: int) -> RecVectorEnv:
    vec = recgym.make_vec(env, num_envs=lanes, user_model=model, output="torch", autoreset_mode="SameStep")
    vec.reset(seed=seed)
    return vec


def _slates(env: RecVectorEnv, lanes: int, generator: torch.Generator) -> torch.Tensor:
    """Random distinct positions among the candidates, int64 [B, K]."""
    return torch.rand(lanes, env.num_candidates, generator=generator).argsort(dim=1)[:, : env.slate_size]


if __name__ == "__main__":
    main()
