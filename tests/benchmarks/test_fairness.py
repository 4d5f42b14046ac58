"""The benchmark of fairness: re-rankers move what they are to move, and the metrics notice."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest

from recgym.evaluation.measures import measure
from recgym.evaluation.store import read_manifest
from recgym.testing.worlds import tiny_world
from recgym.worlds.world import World

Script = Callable[[str], ModuleType]


@pytest.fixture(scope="module")
def fairness(benchmark_script: Script) -> ModuleType:
    return benchmark_script("fairness")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return tiny_world(tmp_path_factory.mktemp("worlds") / "tiny", num_users=600)


# Which way each metric of providers goes where exposure is taken from all but one of them.
WORSE = {
    "exposure_parity": -1,
    "exposed_utility": -1,
    "realised_utility": -1,
    "rsp": 1,
    "reo": 1,
    "expected_exposure": 1,
    "awrf": 1,
    "terms/unfairness": 1,
    "violations/unfairness": 1,
}


def test_every_provider_metric_tells_the_one_sided_agent(fairness: ModuleType, world: World, tmp_path: Path) -> None:
    rows, text = fairness.providers(world, 60, 1, tmp_path)
    table = measure(tmp_path, read_manifest(tmp_path), draws=200).table
    of_providers = table[table["group"].isin(["provider", "overall"])].set_index(["agent", "metric"])["value"]
    for metric, sign in WORSE.items():
        fair, unfair = (of_providers[agent, metric] for agent in ("weight 1", fairness.UNFAIR))
        assert sign * (unfair - fair) > 0, metric
    ladder = [of_providers[f"weight {weight:g}", "terms/unfairness"] for weight in fairness.WEIGHTS]
    assert (np.diff(ladder) <= 1e-6).all() and ladder[-1] < ladder[0]
    assert text.count("\n| weight") == text.count("\n| true, weight") == len(fairness.WEIGHTS)
    bought = rows.groupby("agent")["terms/purchase"].mean()
    # Two brands share a tiny catalogue by halves, so that fairness costs little: the truth still beats all else.
    assert bought["true, weight 0"] > bought["weight 0"] > bought["random"]
    # The attention of single items and of slates is off too, whoever provides them.
    items = table[table["metric"].isin(["equity_of_attention", "slate_exposure_loss"])]
    assert len(items) == 2 * rows["agent"].nunique()


def test_levels_lie_between_the_agent_and_chance(fairness: ModuleType, world: World, tmp_path: Path) -> None:
    rows, text = fairness.users(world, "gender", 1, tmp_path, 300)
    assert len(rows) == 300 * (len(fairness.LEVELS) + 1)
    assert text.count("\n| level") == len(fairness.LEVELS) and "one-sided" in text
    plain = rows[rows["agent"] == "level 0"].set_index("user")["reward"]
    unknown = world.users["gender"].isna()
    for _, mine in rows.groupby("agent"):  # users of whom nothing is known are left alone
        mine = mine.set_index("user")["reward"]
        assert (mine[unknown[mine.index]] == plain[unknown[plain.index]]).all()


def test_a_group_gets_as_many_random_slots_as_it_is_told(fairness: ModuleType, world: World) -> None:
    config = fairness.LevellingConfig(attribute="gender", shares={"F": 1.0, "M": 0.0})
    agent = fairness.LevellingRanker(world, config)
    from recgym.agents.frequency import FrequencyAgent
    from recgym.agents.protocol import ActContext
    from recgym.envs.vector import RecVectorEnv

    env = RecVectorEnv(world, "default", num_envs=200, observation=agent.observes)
    observations, info = env.reset(seed=0)
    context = ActContext(np.arange(200), np.zeros(200, np.int64), 10)
    slates, plain = agent.act(observations, context), FrequencyAgent(world).act(observations, context)
    gender = world.users["gender"].iloc[np.asarray(info["user"])].to_numpy()
    same = pd.Series((slates == plain).mean(axis=1)).groupby(pd.Series(gender).fillna("unknown")).mean()
    assert same["M"] == same["unknown"] == 1.0 and same["F"] < 0.2
    chances = agent.propensities(observations, context, slates)
    assert np.allclose(chances[gender == "F"], 1 / np.arange(100, 90, -1)) and (chances[gender == "M"] == 1).all()


def test_the_command_writes_its_part_of_the_page(
    fairness: ModuleType, world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.md"
    page.write_text("# What fairness costs\n\n## Fairness to users\n\nas it was\n")
    where = ["--world", str(world.path), "--users", "20", "--seeds", "1"]
    fairness.main(["providers", *where, "--out", str(tmp_path / "out"), "--page", str(page)])
    text = page.read_text()
    assert capsys.readouterr().out.strip() in text
    assert (
        "as it was" in text
        and "--out" not in text
        and "--page" not in text
        and "    python benchmarks/fairness.py providers" in text
    )
