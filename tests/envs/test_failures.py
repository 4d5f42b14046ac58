"""A step that fails leaves everything as it was, bit for bit, and what comes next is as if it had not been."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode
from torch import Tensor

from recgym.envs.vector import RecVectorEnv
from recgym.scenario import load_scenario
from recgym.user_models.boredom import BoredUsers
from recgym.worlds.world import World

SCENARIOS = {
    "session": load_scenario("default", {"episode.max_slates": 3}),
    "horizon": load_scenario(
        "default", {"episode.kind": "horizon", "episode.horizon_days": 9, "behaviour.patience": 0.5}
    ),
}
STEP = ("respond", "transition")
RETURN = ("away", "arrive", "intend")
LANES = 9


class Fragile(BoredUsers):
    """Users of which one call fails: the one that finds ``fuse`` at (its name, 0)."""

    fuse: tuple[str, int] = ("", 0)

    def _spend(self, name: str) -> None:
        if self.fuse[0] == name:
            self.fuse = (name, self.fuse[1] - 1)
            if self.fuse[1] < 0:
                raise RuntimeError(f"{name} is broken")

    def init(self, *args: Any) -> Any:
        self._spend("init")
        return super().init(*args)

    def respond(self, *args: Any) -> Any:
        self._spend("respond")
        return super().respond(*args)

    def transition(self, *args: Any) -> Any:
        self._spend("transition")
        return super().transition(*args)

    def away(self, *args: Any) -> Any:
        self._spend("away")
        return super().away(*args)

    def arrive(self, *args: Any) -> Any:
        self._spend("arrive")
        return super().arrive(*args)

    def intend(self, *args: Any) -> Any:
        self._spend("intend")
        return super().intend(*args)


def slates(step: int) -> np.ndarray:
    return (np.arange(10)[None, :] * 7 + np.arange(LANES)[:, None] + 3 * step) % 100


def make(world: World, name: str, mode: AutoresetMode, device: torch.device) -> tuple[RecVectorEnv, Fragile]:
    users = Fragile(world, device)
    vec = RecVectorEnv(world, SCENARIOS[name], LANES, autoreset_mode=mode, user_model=users, device=device)
    vec.reset(seed=4)
    return vec, users


def assert_same(before: dict[str, Tensor], after: dict[str, Tensor]) -> None:
    assert before.keys() == after.keys()
    for name, value in before.items():
        assert torch.equal(value, after[name]), name


def step(vec: RecVectorEnv, number: int) -> list[Any]:
    """What a step gives; with DISABLED, lanes that ended are reset at once."""
    observation, *rest, _ = vec.step(slates(number))
    ended = rest[1] | rest[2]
    if vec.autoreset_mode is AutoresetMode.DISABLED and ended.any():
        observation, _ = vec.reset(options={"reset_mask": ended})
    return [*observation.values(), *rest]


@pytest.mark.parametrize("mode", list(AutoresetMode))
@pytest.mark.parametrize("name", list(SCENARIOS))
def test_a_user_model_that_fails_leaves_the_environment_as_it_was(
    world: World, name: str, mode: AutoresetMode, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recgym.simulation.simulator.CHUNK", 4)  # three chunks: the later ones fail after the first
    twin, _ = make(world, name, mode, device)
    vec, users = make(world, name, mode, device)
    failed: dict[str, int] = {}
    for number in range(9):
        before = vec.get_state()
        for method in ("init", *STEP, *RETURN):
            for call in range(4):
                users.fuse = (method, call)
                try:
                    vec.step(slates(number))
                except RuntimeError as error:
                    assert str(error) == f"{method} is broken"
                    failed[method] = failed.get(method, 0) + 1
                    assert_same(before, vec.get_state())
                else:
                    users.fuse = ("", 0)
                    vec.set_state(before)
                    break
        users.fuse = ("", 0)
        for ours, theirs in zip(step(vec, number), step(twin, number), strict=True):
            assert np.array_equal(ours, theirs), number
    assert all(failed[method] >= 9 for method in STEP)
    if mode is not AutoresetMode.DISABLED:
        assert failed["init"] > 2
    if name == "horizon" or mode is not AutoresetMode.DISABLED:
        assert all(failed[method] > 2 for method in RETURN)
