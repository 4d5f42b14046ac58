"""Conformance of a scenario: it reads as it was written, plays in both shells, ends, and hides what is hidden."""

from __future__ import annotations

import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium.utils.env_checker import check_env

from recgym.envs.single import RecEnv
from recgym.envs.vector import RecVectorEnv
from recgym.errors import RecGymError
from recgym.scenario import Scenario, load_scenario
from recgym.simulation.observation import OBSERVATION_KEYS
from recgym.simulation.simulator import Simulator
from recgym.testing.bundles import expect_hidden
from recgym.testing.playing import elsewhere
from recgym.testing.report import Checks, Report
from recgym.testing.worlds import tiny_world
from recgym.worlds.world import World, load_world

LANES, STEPS = 8, 6
_SLOW = 2000.0  # microseconds a user and step above which a hint is given


def check_scenario(
    scenario: str | Path | Scenario, world: str | Path | World | None = None, *, processes: bool = True
) -> Report:
    """Checks a scenario: loading, actions, rewards, endings, determinism, hidden state, processes and speed.

    Args:
        scenario: a registered name, a YAML file or a ``Scenario``.
        world: the world to try it in; None: the one it is made for, or a tiny one with purchases or ratings.
        processes: whether to play it in a new process as well, which takes some seconds.

    Returns:
        what was checked, with hints.

    Raises:
        ConformanceError: each finding says what is wrong and what to change.
        ScenarioError: it cannot be read; the message gives file, line and key.
    """
    loaded = load_scenario(scenario)
    checks = Checks("scenario", loaded.name)
    rates = loaded.objective is not None and "liked" in loaded.objective.terms
    if world is None:
        kind: Any = "rating" if rates else "purchase"
        world = loaded.env.world or tiny_world(kind=kind, num_items=max(300, loaded.actions.num_candidates))
    where = load_world(world)
    again = load_scenario(Scenario.model_validate_json(loaded.model_dump_json(), strict=False))
    advice = "Use exact values: whole numbers, texts, true and false"
    checks.expect(again.hash == loaded.hash, "loading", "written out and read again it is another scenario", advice)
    checks.expect(
        set(loaded.observation.keys) <= set(OBSERVATION_KEYS),
        "observation",
        f"it shows {loaded.observation.keys}",
        f"Agents may see {', '.join(OBSERVATION_KEYS)}",
    )
    checks.expect(bool(loaded.description), "description", "it has none", "Say in a line what it is for")
    checks.settle()
    single = checks.attempt("environments", "making it", f"It has to fit world {where.name!r}", RecEnv, where, loaded)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Gymnasium's taste in spaces
        advice = "See gymnasium.utils.env_checker"
        checks.attempt("environments", "Gymnasium's check_env", advice, check_env, single, None, True)
    single.close()
    simulator = Simulator(where, loaded)
    state = simulator.reset(torch.arange(LANES), torch.zeros(LANES, dtype=torch.int64))
    expect_hidden(checks, simulator, state)
    told, seconds = _rollout(where, loaded)
    _sane(checks, told, loaded)
    twice, _ = _rollout(where, loaded)
    same = all(
        np.array_equal(a, b) for one, two in zip(told, twice, strict=True) for a, b in zip(one, two, strict=True)
    )
    checks.expect(same, "determinism", "played twice with one seed, it differs", "See the world's user model")
    if processes and (where.path / "world.json").is_file():
        try:
            found = elsewhere("recgym.testing.scenarios:played", loaded.model_dump_json(), str(where.path))
        except RecGymError as error:
            checks.expect(False, "processes", f"a new process cannot play it: {error}", "See the world's user model")
        else:
            advice = "See the world's user model"
            checks.expect(found == _text(told), "processes", "in a new process it plays otherwise", advice)
    each = seconds / (LANES * STEPS) * 1e6
    if each > _SLOW:
        checks.hints.append(f"a step takes {each:.0f} microseconds a user with {LANES} users")
    return checks.report()


def _rollout(world: World, scenario: Scenario) -> tuple[list[tuple[np.ndarray, ...]], float]:
    """Reward, terminated and truncated of each step of random actions, and the seconds it took."""
    vec = RecVectorEnv(world, scenario, LANES)
    vec.reset(seed=3)
    vec.action_space.seed(3)
    actions = [vec.action_space.sample() for _ in range(STEPS)]
    started = time.perf_counter()
    told = [tuple(np.asarray(part) for part in vec.step(action)[1:4]) for action in actions]
    seconds = time.perf_counter() - started
    vec.close()
    return told, seconds


def _sane(checks: Checks, told: list[tuple[np.ndarray, ...]], scenario: Scenario) -> None:
    rewards = np.stack([reward for reward, _, _ in told])
    checks.expect(
        bool(np.isfinite(rewards).all()), "reward", "rewards are not finite", "Weights of the objective are finite"
    )
    if not rewards.any():
        checks.hints.append(f"{LANES * STEPS} random slates earned nothing: learners will find it hard to begin")
    limit = scenario.episode.max_steps if scenario.episode.kind == "horizon" else scenario.episode.max_slates
    if limit <= STEPS:
        over = np.stack([terminated | truncated for _, terminated, truncated in told]).any(0)
        checks.expect(
            bool(over.all()), "endings", f"episodes last longer than {limit} slates", "See episode.max_slates"
        )
    checks.settle()


def _text(told: list[tuple[np.ndarray, ...]]) -> str:
    return str([[part.tolist() for part in step] for step in told])


def played(scenario: str, world: str) -> str:
    """What a scenario (JSON) plays in the bundle at ``world``, as text; for ``elsewhere``."""
    loaded = load_scenario(Scenario.model_validate_json(scenario, strict=False))
    return _text(_rollout(load_world(Path(world)), loaded)[0])
