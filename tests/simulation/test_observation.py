"""What agents may see of the trip under way."""

from __future__ import annotations

import torch

from recgym.scenario import load_scenario
from recgym.simulation.observation import candidate_features
from recgym.simulation.simulator import Simulator
from recgym.worlds.world import World


def test_candidates_say_whether_this_trip_has_shown_them(world: World) -> None:
    scenario = load_scenario("default", {"behaviour.patience": 0.0})
    simulator = Simulator(world, scenario)
    state = simulator.reset(torch.arange(6), torch.zeros(6, dtype=torch.int64))
    column = candidate_features(world).index("shown")
    shown: list[set[int]] = [set() for _ in range(6)]
    for _ in range(4):
        candidates = simulator.observe(state, ("candidates", "candidate_items"))
        for lane in range(6):
            rows = candidates["candidate_items"][lane].tolist()
            assert candidates["candidates"][lane, :, column].tolist() == [float(row in shown[lane]) for row in rows]
        slate = candidates["candidate_items"][:, :10]
        for lane in range(6):
            shown[lane] |= set(slate[lane].tolist())
        state, _ = simulator.step(state, slate)
    assert float(simulator.observe(state, ("candidates",))["candidates"][..., column].max()) == 1.0
