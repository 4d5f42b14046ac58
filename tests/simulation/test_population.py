"""What the platform knows of users and items, groups and providers: cuts, arrivals and refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from recgym.envs.vector import RecVectorEnv
from recgym.errors import ScenarioError, WorldError
from recgym.scenario import load_scenario
from recgym.simulation.population import UNKNOWN, Population, platform_world
from recgym.simulation.simulator import Simulator
from recgym.worlds.world import World


def levels(world: World, **history: float) -> tuple[Population, World]:
    shares = {name.strip("_").replace("_", "-"): share for name, share in history.items()}
    scenario = load_scenario("default", {"users.history": shares})
    population = Population.of(world, scenario)
    return population, platform_world(world, scenario, population)


def test_nothing_is_cut_by_default(world: World) -> None:
    population, known = levels(world, all=1.0)
    assert known is world
    assert not population.cut and not population.new.any()


def test_histories_are_cut_to_the_latest_purchases(world: World) -> None:
    population, known = levels(world, _0=0.25, _1_5=0.25, _6_20=0.25, all=0.25)
    before, after = world.interactions(), known.interactions()
    bounds = {"0": (0, 0), "1-5": (1, 5), "6-20": (6, 20)}
    seen = set()
    for user in range(world.num_users):
        level = population.history.levels[population.history.codes[user]]
        seen.add(level)
        mine, left = before[before["user"] == user], after[after["user"] == user]
        if level == "all":
            assert left.drop(columns="user").values.tolist() == mine.drop(columns="user").values.tolist()
            continue
        low, high = bounds[level]
        assert min(low, len(mine)) <= len(left) <= high
        assert set(left["item"]) <= set(mine["item"])
        assert (left["count"] == 1).all()
        if len(left) and len(left) < len(mine):
            gone = mine[~mine["item"].isin(left["item"])]
            assert gone["last_day"].max() <= left["last_day"].min()
        assert known.users["num_trips"][user] == left["last_day"].nunique()
        first, stop = known.tokens.offsets[user], known.tokens.offsets[user + 1]
        assert int((known.tokens.values["items"][first:stop] >= 0).sum()) <= high
    assert seen == {"0", "1-5", "6-20", "all"}
    assert known.hash != world.hash


def test_an_unknown_user_answers_as_ever_and_agents_see_nothing_of_the_past(world: World) -> None:
    cold: dict[str, Any] = {"users.history": {"0": 1.0}}
    seeds = torch.arange(40)
    outcomes, seen = [], []
    for overrides in (cold, {}):
        simulator = Simulator(world, load_scenario("default", {"episode.kind": "horizon", **overrides}))
        state = simulator.reset(seeds, seeds * 0)
        seen.append(simulator.observe(state, ("user", "candidates", "history")))
        played = []
        for step in range(10):
            state, outcome = simulator.step(state, (torch.arange(10) * 7 + step).repeat(40, 1))
            played.append(outcome.consumed.clone())
        outcomes.append(torch.stack(played))
    assert torch.equal(*outcomes)
    assert outcomes[0].any()
    assert (seen[0]["history"] == -1).all() and (seen[1]["history"] >= 0).any()
    assert (seen[0]["candidates"][..., -3:] == 0).all() and (seen[1]["candidates"][..., -3] > 0).any()
    assert platform_world(world, load_scenario("default", cold)).interactions().empty


def test_what_happens_in_the_run_is_known(world: World) -> None:
    scenario = load_scenario("default", {"episode.kind": "horizon", "users.history": {"0": 1.0}})
    simulator = Simulator(world, scenario)
    seeds = torch.arange(30)
    state = simulator.reset(seeds, seeds * 0)
    for _ in range(40):
        state, _ = simulator.step(state, state.candidates[:, :10].to(torch.int64))
    assert state.known is not None
    some = state.known.num_items > 0
    assert some.any()
    assert (state.known.num_items <= state.pool.num_items).all()
    assert torch.equal(state.known.num_items.clamp(max=50), (state.known.record.recent >= 0).sum(1).to(torch.int32))
    assert (simulator.observe(state, ("history",))["history"][some] >= 0).any()


@pytest.mark.parametrize("day", [0, 20])
def test_new_items_are_in_no_log_and_arrive_on_their_day(world: World, day: int) -> None:
    overrides: dict[str, Any] = {
        "episode.kind": "horizon",
        "items.arrivals": {"share": 0.2, "day": day},
        "actions.candidates": {"own": 30, "popular": 40, "uniform": 20, "new": 10},
    }
    env = RecVectorEnv(world, load_scenario("default", overrides), num_envs=30, observation=("candidate_items",))
    new = env.simulator.population.new
    assert 0.1 < new.mean() < 0.3
    assert not new[env.world.interactions()["item"]].any() and new[world.interactions()["item"]].any()
    assert (env.world.items["popularity"][new] == 0).all()
    tokens = env.world.tokens.values["items"]
    assert not new[tokens[tokens >= 0]].any()
    observations, _ = env.reset(seed=0)
    early = late = 0
    for _ in range(60):
        state = env.state
        arrived = (state.visit.day - state.start_day).numpy() >= day
        fresh = new[observations["candidate_items"]].sum(1)
        assert (fresh[~arrived] == 0).all()
        early, late = early + int((~arrived).sum()), late + int(fresh[arrived].sum())
        observations, *_ = env.step(np.tile(np.arange(10), (30, 1)))
    assert late > 0 and (early > 0) == (day > 0)


def test_what_a_platform_knows_is_no_world_to_simulate(world: World) -> None:
    scenario = load_scenario("default", {"users.history": {"0": 1.0}})
    with pytest.raises(WorldError, match="environments take the world itself"):
        Simulator(Simulator(world, scenario).platform, scenario)


def test_groups_hold_every_user_and_the_unknown(world: World) -> None:
    scenario = load_scenario(
        "default", {"users": {"group_by": ["age"], "min_group": 1}, "items": {"provider": "brand"}}
    )
    population = Population.of(world, scenario)
    labels = population.groups["age"]
    assert labels.levels == ("19-34", "35-54", "55+", UNKNOWN)
    for user, age in enumerate(world.users["age"]):
        assert labels.levels[labels.codes[user]] == (age if isinstance(age, str) else UNKNOWN)
    assert population.provider is not None
    assert [population.provider.levels[code] for code in population.provider.codes] == list(world.items["brand"])


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        (
            "users: {group_by: [agee]}",
            3,
            "users.group_by: users of world 'tiny' have no attribute 'agee'. Did you mean",
        ),
        ("users:\n  group_by: [age]", 4, "users.group_by: level "),
        ("items:\n  provider: maker", 4, "items.provider: items of world 'tiny' have no attribute 'maker'"),
        (
            "items: {harmful: {attribute: brand, values: [Poison]}}",
            3,
            "no item of world 'tiny' has brand in ['Poison']",
        ),
        ("items: {arrivals: {share: 0.99}}", 3, "change items.arrivals.share"),
    ],
)
def test_what_a_world_lacks_is_refused(world: World, tmp_path: Path, text: str, line: int, message: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(f"name: mine\ndescription: x\n{text}\n")
    with pytest.raises(ScenarioError) as caught:
        Simulator(world, load_scenario(path))
    assert message in str(caught.value)
    if "arrivals" not in text:
        assert f"{path}:{line}: " in str(caught.value)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"users.history": {"0": 0.5}}, "shares lie in 0..1 and add up to 1"),
        ({"users.history": {"1-6": 1.0}}, "Did you mean '1-5'?"),
        ({"users.group_by": ["age", "age"]}, "names one attribute twice"),
        ({"actions.candidates": {"own": 39, "new": 1}}, "items.arrivals.share is 0"),
    ],
)
def test_contradictions_are_refused(overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        load_scenario("default", overrides)
    assert message in str(caught.value)
