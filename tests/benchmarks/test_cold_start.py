"""The benchmark of cold start: what the agents are kept from seeing, and a page with every comparison."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from recgym.agents.protocol import observation_layout
from recgym.agents.scorer import ScorerAgent
from recgym.envs.vector import RecVectorEnv
from recgym.scenario import load_scenario
from recgym.testing.worlds import tiny_world
from recgym.worlds.world import World

Script = Callable[[str], ModuleType]


@pytest.fixture(scope="module")
def cold(benchmark_script: Script) -> ModuleType:
    return benchmark_script("cold_start")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return tiny_world(tmp_path_factory.mktemp("worlds") / "tiny", num_items=800, num_users=60)


def test_the_scorer_by_id_does_not_see_what_items_are_like(cold: ModuleType, world: World) -> None:
    scenario = load_scenario("cold_start_items")
    env = RecVectorEnv(world, scenario, num_envs=8, observation=ScorerAgent.observes)
    observations = {key: torch.from_numpy(np.asarray(value)) for key, value in env.reset(seed=0)[0].items()}
    columns = observation_layout(world, ScorerAgent.observes)["candidates"]
    likeness = [at for at, name in enumerate(columns) if name.startswith(("text_", "category=", "price", "discount"))]
    assert len(likeness) == 16 + 8 + 1 + 2
    changed = observations["candidates"].clone()
    changed[:, :, likeness] += 0.5
    for kind, sees in ((ScorerAgent, True), (cold.IdScorer, False)):
        agent = cold._trained(kind, world, scenario, 0, 1024)
        scores = [
            agent.models["response"](
                agent._batch(*(one if key == "candidates" else observations[key] for key in ScorerAgent.observes))
            )
            for one in (observations["candidates"], changed)
        ]
        assert torch.equal(*scores) != sees


def test_the_command_writes_a_page(cold: ModuleType, world: World, tmp_path: Path) -> None:
    page, where = tmp_path / "page.md", ["--world", str(world.path), "--users", "24", "--seeds", "1"]
    few = ["--trainings", "1", "--steps", "1024"]
    cold.main(["items", *where, *few, "--out", str(tmp_path / "items"), "--page", str(page)])
    cold.main(["users", *where, "--out", str(tmp_path / "users"), "--page", str(page)])
    text = page.read_text()
    assert text.startswith("# Cold start") and text.count("\n## ") == 2
    for part in (f"| {cold.TEXT} - {cold.BY_ID} |", "| content - bpr |", "| linucb |", "| slates 2 to 5 |"):
        assert part in text, part
