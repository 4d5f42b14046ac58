"""With torch output, nothing of a step's arrays travels between the host and the device.

A CPU has no such border, so what would cross it is watched: ``reference`` takes the way of other devices, on which
``numpy`` and ``from_numpy`` would fail or copy, ``torch.tensor`` uploads, and reading a scalar waits. The two scalars
that decide what is computed (is an action out of range, has a lane ended) and the row numbers of lanes that ended are
read, however many lanes there are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from recgym import compiled
from recgym.envs.vector import RecVectorEnv
from recgym.scenario import load_scenario
from recgym.worlds.world import World

SCENARIOS = {
    "session": load_scenario("default", {"episode.max_slates": 3}),
    "horizon": load_scenario("default", {"episode.kind": "horizon", "episode.horizon_days": 10}),
    "cascade": load_scenario("default", {"behaviour.examination.model": "cascade"}),
}
WAITS = ("_local_scalar_dense", "nonzero")  # for a scalar, for the number of rows


class Border(TorchDispatchMode):
    """Counts what waits for the device, and refuses what copies between it and the host."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        self.counts[name] += 1
        assert name != "lift_fresh", "an upload: a tensor was made of Python numbers"
        kinds = {
            leaf.device.type for leaf in tree_leaves((args, kwargs, out)) if isinstance(leaf, Tensor) and leaf.dim()
        }
        assert len(kinds) <= 1, f"{func} works on {kinds}"
        return out


@contextmanager
def watched() -> Iterator[Border]:
    """No array may cross meanwhile; gives what was counted."""

    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("a copy to or from the host")

    with pytest.MonkeyPatch.context() as patch:
        for method in ("numpy", "cpu", "tolist", "__array__"):
            patch.setattr(Tensor, method, refuse)
        patch.setattr(torch, "from_numpy", refuse)
        with Border() as border:
            yield border


def waits(world: World, name: str, mode: AutoresetMode, device: torch.device, lanes: int) -> list[int]:
    """How often each of some steps waits for the device."""
    vec = RecVectorEnv(world, SCENARIOS[name], lanes, autoreset_mode=mode, output="torch", device=device)
    vec.reset(seed=0)
    slate = (torch.arange(10) * 7).repeat(lanes, 1).to(device)
    vec.step(slate)  # whatever is uploaded once and kept, and each user's state where its log ends
    users: Any = vec.simulator.user_model
    users.starting_states(torch.arange(world.num_users, device=device))
    counts, ended = [], 0
    for _ in range(8):
        with watched() as border:
            _, _, terminated, truncated, _ = vec.step(slate)
        counts.append(sum(border.counts[name] for name in WAITS))
        ended += int((terminated | truncated).sum())
    assert ended > 0
    return counts


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP], ids=lambda mode: mode.name)
@pytest.mark.parametrize("name", list(SCENARIOS))
def test_nothing_is_copied_in_a_step(
    world: World, films: World, name: str, mode: AutoresetMode, device: torch.device
) -> None:
    if device.type == "cpu" and compiled.enabled():
        pytest.skip("compiled kernels work on the host's own memory")
    bundle = films if name == "cascade" else world
    few, many = (max(waits(bundle, name, mode, device, lanes)) for lanes in (6, 40))
    assert few <= 20 and many <= 20, (few, many)


def test_the_border_is_watched() -> None:
    for act, message in [
        (lambda: torch.tensor([1, 2]), "upload"),
        (lambda: torch.zeros(2).to("meta"), "works on"),
        (lambda: torch.zeros(2).numpy(), "copy"),
        (lambda: torch.zeros(2).cpu(), "copy"),
        (lambda: torch.zeros(2).tolist(), "copy"),
        (lambda: torch.from_numpy(np.zeros(2)), "copy"),
    ]:
        with pytest.raises(AssertionError, match=message), watched():
            act()
    with watched() as border:
        assert int(torch.arange(3).sum()) == 3 and bool(torch.ones(2, dtype=torch.bool).any())
        torch.ones(3).nonzero()
    assert sum(border.counts[name] for name in WAITS) == 3
