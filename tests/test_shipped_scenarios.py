"""Every shipped scenario can be played: by some agents in the evaluation, and by every agent at tiny size."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from gymnasium.vector import AutoresetMode
from typer.testing import CliRunner

import recgym
from recgym.agents import ActContext, Agent, make_agent
from recgym.agents.protocol import agent_class, parse_config
from recgym.agents.training import training_env
from recgym.cli import app
from recgym.commands import evaluate
from recgym.envs.vector import RecVectorEnv
from recgym.errors import ScenarioError
from recgym.registration import AGENTS, SCENARIOS
from recgym.scenario import Scenario, load_scenario
from recgym.simulation.fit import fitting_scenarios
from recgym.simulation.population import platform_world
from recgym.testing.worlds import tiny_world
from recgym.worlds.world import World

B, K = 6, 10
NAMES = [name for name in SCENARIOS.names()]
SMALL = {"num_envs": 4, "num_steps": 4, "batch_size": 8, "checkpoint_rollouts": 1, "calibration_steps": 2, "updates": 3}


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, World]:
    folder = tmp_path_factory.mktemp("worlds")
    return {kind: tiny_world(folder / kind, kind=kind) for kind in ("purchase", "rating")}  # type: ignore[arg-type]


def at_home(name: str, worlds: dict[str, World]) -> tuple[World, Scenario]:
    """A shipped scenario, short, in a tiny world of its kind, for which it is not made."""
    scenario = load_scenario(name)
    world = worlds["rating" if scenario.env.world == "movies" else "purchase"]
    groups = [attribute for attribute in scenario.users.group_by if attribute in world.spec.attributes]
    assert bool(groups) == bool(scenario.users.group_by)
    changes = {"env": {"world": None, "train_world": None}, "users": {"min_group": 1, "group_by": groups}}
    return world, load_scenario(scenario, {**changes, "episode.max_steps": 8})


@pytest.mark.parametrize("name", NAMES)
def test_shipped_scenarios_say_what_they_are_for(name: str) -> None:
    scenario = load_scenario(name)
    assert scenario.question.endswith("?") and scenario.metrics
    assert name == "default" or (scenario.reference and scenario.tags)


def test_every_scenario_fits_the_shipped_world_or_names_another(shipped: World) -> None:
    fitting, refused = fitting_scenarios(shipped)
    assert {scenario.name for scenario in fitting} | refused.keys() == set(NAMES)
    assert refused.keys() == {"other_simulator", "user_fairness_movies"}
    assert all("env.world" in why for why in refused.values())


@pytest.fixture(scope="module")
def shipped() -> World:
    return recgym.load_world("ecommerce")


@pytest.mark.parametrize("name", NAMES)
def test_shipped_scenarios_are_evaluated(name: str, worlds: dict[str, World]) -> None:
    world, scenario = at_home(name, worlds)
    rows = recgym.evaluate(world, scenario, ("random", "popularity", "greedy"), users=B, seeds=1, progress=False)
    assert len(rows) == 3 * B
    assert np.isfinite(rows["reward"]).all()


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("users:\n  group_by: [income]", 3, "users.group_by: users of world 'tiny' have no attribute 'income'"),
        ("users: {group_by: [gender]}", 2, "users.group_by: level 'F' of 'gender' has .* users.min_group 50: too few"),
        ("items:\n  provider: maker", 3, "items.provider: items of world 'tiny' have no attribute 'maker'"),
        ("objective:\n  terms:\n    unfairness: -1", 4, "objective.terms.unfairness: .* needs items.provider"),
        ("objective: {terms: {purchase: -1}}", 2, "objective.terms.purchase: a weight must be at least 0"),
        ("evaluation: {users: 0}", 2, "evaluation.users: input should be greater than or equal to 1"),
        ("episode: {horizon_days: 0}", 2, "episode.horizon_days: input should be greater than or equal to 1"),
        ("constraints: [{term: coverage, at_least: 2}]", 2, "constraints.0: contradiction: coverage is always in 0..1"),
        ("extends: mine.yaml", 2, "extends: scenarios extend each other in a circle"),
        ("env:\n  world: ecommerce", 3, "env.world: scenario 'mine' is made for world 'ecommerce', not for 'tiny'"),
    ],
)
def test_an_evaluation_refuses_a_scenario_before_anything_runs(
    text: str, line: int, message: str, worlds: dict[str, World], tmp_path: Path
) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(f"name: mine\n{text}\n")
    with pytest.raises(ScenarioError, match=f"^{path}:{line}: {message}"):
        recgym.evaluate(worlds["purchase"], path, ("random",), users=2, out=tmp_path / "out", progress=False)
    assert not (tmp_path / "out").exists()


def test_agents_are_trained_before_new_items_arrive(worlds: dict[str, World]) -> None:
    """Of the items of cold_start_items that no log has seen, no training sees any either; an evaluation does."""
    world, scenario = at_home("cold_start_items", worlds)
    cls = agent_class("scorer")
    agent = cls(platform_world(world, scenario), parse_config(cls, {"num_envs": 32}))
    shown = {}
    for name, env in (
        ("training", training_env(agent, world, scenario)),
        ("evaluation", RecVectorEnv(world, scenario, num_envs=32, observation=("candidate_items",))),
    ):
        observations, _ = env.reset(seed=0)
        shown[name] = env.simulator.population.new[np.asarray(observations["candidate_items"])].sum(axis=1)
    assert (shown["training"] == 0).all() and (shown["evaluation"] >= 10).all()


@pytest.mark.parametrize(
    ("names", "env"),
    [
        (["other_simulator"], "ecommerce-b"),
        (["user_fairness_movies"], "movies"),
        (["default", "user_fairness"], "ecommerce-v0"),
        (["other_simulator", "user_fairness_movies"], "ecommerce-v0"),  # which one of them refuses
        ([], "ecommerce-v0"),
    ],
)
def test_the_command_plays_where_the_scenario_is_made_for(names: list[str], env: str) -> None:
    assert evaluate._made_for([load_scenario(name) for name in names]) == env


def ready(name: str, env: RecVectorEnv, world: World, scenario: Scenario) -> Agent:
    """An agent for the world as the platform of ``env`` knows it, with a minute portion of training."""
    cls = agent_class(name)
    if cls.learns != "environment":
        return make_agent(name, env.world)
    agent = cls(env.world, parse_config(cls, {k: v for k, v in SMALL.items() if k in cls.Config.model_fields}))
    training = RecVectorEnv(
        world,
        scenario,
        num_envs=4,
        observation=agent.observes,
        action_mode=agent.action_mode,
        autoreset_mode=AutoresetMode.SAME_STEP,
    )
    agent.train(training, 32)
    return agent


@pytest.mark.slow
@pytest.mark.parametrize("agent_name", AGENTS.names())
@pytest.mark.parametrize("name", NAMES)
def test_every_agent_plays_every_scenario(name: str, agent_name: str, worlds: dict[str, World]) -> None:
    world, scenario = at_home(name, worlds)
    observes = agent_class(agent_name).observes
    env = RecVectorEnv(world, scenario, num_envs=B, observation=observes, action_mode="slate", strict=True)
    agent = ready(agent_name, env, world, scenario)
    observations, _ = env.reset(seed=0)
    lanes = np.arange(B, dtype=np.int64)
    for step in range(5):
        context = ActContext(lanes, np.full(B, step, dtype=np.int64), K)
        slates = agent.act(observations, context, env=env if agent.privileged else None)
        observations, rewards, *_ = env.step(slates)
        assert np.isfinite(rewards).all()


@pytest.mark.slow
def test_the_command_plays_all_scenarios_and_reports_them(worlds: dict[str, World], tmp_path: Path) -> None:
    where = ["--env", str(worlds["purchase"].path), "--scenario", "all", "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(app, ["evaluate", *where, "--agents", "random,greedy", "--users", "4"])
    assert result.exit_code == 0, result.output
    found = json.loads((tmp_path / "out" / "summary.json").read_text())
    played = {part["scenario"] for part in found["scenarios"]}
    fitting, refused = fitting_scenarios(worlds["purchase"])
    assert played == {scenario.name for scenario in fitting} and len(played) > 5
    assert all(f"left out: {name}: " in result.output for name in refused)
    assert found["run"]["configuration"]["seeds"] == [0, 1]
    text = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert all(scenario.question in text.replace("&#39;", "'") for scenario in fitting)
