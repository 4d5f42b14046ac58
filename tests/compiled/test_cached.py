"""Kernels read from disk compute what they computed when they were compiled."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

EPISODES = """
import hashlib, recgym, torch
torch.set_num_threads(1)
env = recgym.make_vec("ecommerce-v0", num_envs=64)
env.reset(seed=0)
env.action_space.seed(0)
digest = hashlib.sha256()
for _ in range(12):
    observation, reward, *_ = env.step(env.action_space.sample())
    state = env.state
    chance, _ = env.simulator.chance(state, state.candidates.long())
    digest.update(chance.numpy().tobytes() + reward.tobytes() + state.hidden.query.numpy().tobytes())
print(digest.hexdigest())
"""


@pytest.mark.slow
def test_a_kernel_read_from_disk_rounds_as_when_it_was_compiled(tmp_path: Path) -> None:
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    told = []
    for _ in range(2):
        command = [sys.executable, "-c", EPISODES]
        told.append(subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout)  # noqa: S603
        assert list(tmp_path.rglob("*.nbc"))
    assert told[0] == told[1]
