"""Every registered user model: a user is bitwise the same alone or in any batch and order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from recgym.registration import USER_MODELS
from recgym.scenario import load_scenario
from recgym.simulation.simulator import Simulator
from recgym.testing.worlds import tiny_world


@pytest.mark.parametrize("kind", ["purchase", "rating"])
@pytest.mark.parametrize("episode", ["session", "horizon"])
@pytest.mark.parametrize("name", USER_MODELS.names())
def test_lanes_are_the_same_in_any_batch(name: str, episode: str, kind: str, tmp_path: Path) -> None:
    world = tiny_world(tmp_path / kind, kind=kind, num_items=600, num_users=50)  # type: ignore[arg-type]
    scenario = load_scenario("default", {"episode.kind": episode})
    simulator = Simulator(world, scenario, user_model=USER_MODELS.load(name)(world))

    def play(lanes: Tensor) -> tuple[list[Any], dict[str, Tensor]]:
        state = simulator.reset(lanes * 7 + 5, lanes % 3)
        outcomes = []
        for _ in range(10):
            state, outcome = simulator.step(state, state.candidates[:, :10].to(torch.int64))
            outcomes.append((outcome.consumed.clone(), outcome.rating.clone(), outcome.terminated.clone()))
        return outcomes, {name: value.clone() for name, value in state.flatten().items()}

    whole, end = play(torch.arange(33))
    assert sum(int(consumed.sum()) for consumed, _, _ in whole) > 30
    ratings = {int(rating) for _, given, _ in whole for rating in given.flatten()}
    assert ratings == {0} if kind == "purchase" else len(ratings) > 2
    for lanes in (torch.tensor([0]), torch.tensor([32, 4]), torch.arange(7) + 20, torch.arange(32, -1, -1)):
        part, part_end = play(lanes)
        for all_of_it, some in zip(whole, part, strict=True):
            assert all(torch.equal(a[lanes], b) for a, b in zip(all_of_it, some, strict=True))
        assert all(torch.equal(value[lanes], part_end[name]) for name, value in end.items())
