"""A lane plays bitwise the same alone, in a batch of 4,096, in any order, on two threads, saved, or branched off.

Lanes are told apart by their seeds, which also choose their slates; everything that an environment gives is compared,
and everything that it holds in the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from gymnasium.vector import AutoresetMode
from safetensors.torch import load_file, save_file
from torch import Tensor

from recgym import compiled
from recgym.envs.vector import RecVectorEnv
from recgym.scenario import load_scenario
from recgym.worlds.world import World

Trace = list[dict[str, Tensor]]
STEPS, MIDDLE = 10, 4
KEYS = ("user", "candidates", "candidate_items", "user_id", "history")
SCENARIOS = {
    "session": load_scenario("default", {"episode.max_slates": 5}),
    "horizon": load_scenario("default", {"episode.kind": "horizon", "episode.horizon_days": 6}),
}
# Lanes that play again in smaller batches, in this order; counted from the end where negative.
SUBSETS = ([-1], [0, 1], [5, -96, 77], [9, 8, 7, 6, 5], list(range(125, 132)), list(range(31, 262, 7)))
PLAYED = [
    ("session", AutoresetMode.NEXT_STEP),
    ("session", AutoresetMode.SAME_STEP),
    ("horizon", AutoresetMode.SAME_STEP),
    ("horizon", AutoresetMode.DISABLED),
]


def begin(world: World, name: str, mode: AutoresetMode, device: torch.device, seeds: Sequence[int]) -> RecVectorEnv:
    """An environment that nothing is shared with, its lanes reset with ``seeds``."""
    vec = make(world, name, mode, device, len(seeds))
    vec.reset(seed=list(seeds))
    return vec


def make(world: World, name: str, mode: AutoresetMode, device: torch.device, lanes: int) -> RecVectorEnv:
    return RecVectorEnv(
        world, SCENARIOS[name], lanes, autoreset_mode=mode, observation=KEYS, output="torch", device=device
    )


def play(
    vec: RecVectorEnv, seeds: Sequence[int], first: int, steps: int, keep: Tensor | None = None, threads: int = 1
) -> Trace:
    """All that comes out of some steps, in the lanes ``keep`` (None: all), and the state at the end; on the CPU."""
    device = vec.simulator.device
    identity = torch.tensor(list(seeds), device=device)[:, None]
    trace = []
    for step in range(first, first + steps):
        slate = (torch.arange(10, device=device) * 7 + identity + 3 * step) % 100
        if step % 3 == 2:
            slate[:, 4] = slate[:, 0]
        torch.set_num_threads(threads)  # for the environment only: torch itself would wait for its turn at every sum
        observation, reward, terminated, truncated, info = vec.step(slate)
        torch.set_num_threads(1)
        ended = terminated | truncated
        out = {"reward": reward, "terminated": terminated, "truncated": truncated, **_flat(info, len(seeds))}
        if vec.autoreset_mode is AutoresetMode.DISABLED and bool(ended.any()):
            observation, _ = vec.reset(options={"reset_mask": ended})
        trace.append({**out, **{f"seen/{key}": value for key, value in observation.items()}})
    trace.append(vec.get_state())
    del trace[-1]["fingerprint"]
    return [{key: (value if keep is None else value[keep]).cpu() for key, value in step.items()} for step in trace]


def _flat(info: dict[str, Any], lanes: int) -> dict[str, Tensor]:
    """Infos by name, one row a lane: what holds only for lanes that ended is zero elsewhere."""
    out = {key: value for key, value in info.items() if isinstance(value, Tensor) and key != "final_lanes"}
    out |= {f"final/{key}": value for key, value in info.get("final_info", {}).items()}
    for key, value in info.get("final_obs", {}).items():
        out[f"final/seen/{key}"] = value.new_zeros(lanes, *value.shape[1:])
        out[f"final/seen/{key}"][info["final_lanes"]] = value
    return out


def assert_same(some: Trace, whole: Trace, rows: Any = slice(None)) -> None:
    """Row i of ``some`` is row ``rows[i]`` of ``whole``; infos that only one of both holds are of lanes in neither."""
    assert len(some) == len(whole)
    for step, (mine, all_of_it) in enumerate(zip(some, whole, strict=True)):
        for key in mine.keys() | all_of_it.keys():
            if key in mine and key in all_of_it:
                assert torch.equal(mine[key], all_of_it[key][rows]), (key, step)
            elif key == "_final_info":
                assert not (mine[key] if key in mine else all_of_it[key][rows]).any(), step


@pytest.mark.parametrize(("name", "mode"), PLAYED, ids=lambda value: str(getattr(value, "name", value)))
def test_lanes_are_the_same_whatever_is_beside_them(
    world: World, name: str, mode: AutoresetMode, device: torch.device, tmp_path: Path
) -> None:
    # Torch alone takes long: 4,096 lanes of it play in a slow test.
    _check(world, name, mode, device, tmp_path, 4096 if compiled.enabled() else 300)


@pytest.mark.slow
def test_4096_lanes_are_the_same_with_torch_alone(world: World, tmp_path: Path) -> None:
    with compiled.reference():
        _check(world, "horizon", AutoresetMode.SAME_STEP, torch.device("cpu"), tmp_path, 4096)


def _check(world: World, name: str, mode: AutoresetMode, device: torch.device, folder: Path, lanes: int) -> None:
    subsets = [[lane % lanes for lane in subset] for subset in SUBSETS]
    row_of = {lane: row for row, lane in enumerate(sorted(set(sum(subsets, []))))}
    keep = torch.tensor(list(row_of))
    whole = play(begin(world, name, mode, device, range(lanes)), range(lanes), 0, STEPS, keep, threads=2)
    assert sum(int((step["terminated"] | step["truncated"]).sum()) for step in whole[:-1]) > 20

    order = torch.randperm(lanes, generator=torch.Generator().manual_seed(0))
    places = order.argsort()[keep]
    assert_same(play(begin(world, name, mode, device, order.tolist()), order.tolist(), 0, STEPS, places), whole)

    for number, seeds in enumerate(subsets):
        size, rows = len(seeds), torch.tensor([row_of[lane] for lane in seeds])
        vec = begin(world, name, mode, device, seeds)
        start = play(vec, seeds, 0, MIDDLE)[:-1]
        file = folder / f"{size}.safetensors"
        save_file(vec.get_state(), file)
        same, other = vec.branch(2, luck="same"), make(world, name, mode, device, size)
        end = play(vec, seeds, MIDDLE, STEPS - MIDDLE, threads=1 + number % 2)
        assert_same(start + end, whole, rows)
        other.set_state({key: value.to(device) for key, value in load_file(file).items()})
        assert_same(play(other, seeds, MIDDLE, STEPS - MIDDLE), end)
        twice, doubled = [seed for seed in seeds for _ in range(2)], torch.arange(size).repeat_interleave(2)
        assert_same(play(same, twice, MIDDLE, STEPS - MIDDLE), end, doubled)


def test_fresh_luck_does_not_depend_on_what_is_beside_either(world: World, device: torch.device) -> None:
    seeds, some = range(33), [30, 2, 17]
    ahead = []
    for lanes in (seeds, some):
        vec = begin(world, "horizon", AutoresetMode.SAME_STEP, device, lanes)
        play(vec, lanes, 0, 3)
        copies = [seed for seed in lanes for _ in range(4)]
        ahead.append(play(vec.branch(4, luck="fresh"), copies, 3, 9))
    rows = torch.cat([torch.arange(4) + 4 * lane for lane in some])
    assert_same(ahead[1], ahead[0], rows)
    consumed = torch.stack([step["consumed"].view(33, 4, 10) for step in ahead[0][:-1]])
    assert all((consumed[:, :, 0] != consumed[:, :, copy]).any() for copy in (1, 2, 3))
