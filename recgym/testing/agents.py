"""Conformance of an agent: valid slates, the same alone and in any batch, twice, saved and loaded, and elsewhere."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray

from recgym.agents.protocol import ActContext, Agent, agent_class, parse_config
from recgym.envs.vector import RecVectorEnv
from recgym.errors import RecGymError
from recgym.random import derive_seeds
from recgym.simulation.observation import OBSERVATION_KEYS
from recgym.testing.playing import elsewhere, generators_watched, importable
from recgym.testing.report import Checks, Report
from recgym.testing.worlds import tiny_world
from recgym.worlds.world import World, load_world

LANES, STEPS, BUDGET = 12, 4, 32
SMALL: Mapping[str, Any] = {  # what of it an agent has a setting for keeps its training short
    "num_envs": 4,
    "num_steps": 4,
    "batch_size": 8,
    "checkpoint_rollouts": 1,
    "calibration_steps": 2,
    "updates": 3,
}
_FILES = ("agent.json", "agent.safetensors")
_SLOW = 2000.0  # microseconds a user above which a hint is given


def check_agent(agent: str | type[Agent], world: str | Path | World | None = None, *, processes: bool = True) -> Report:
    """Checks an agent: what it declares, its slates, purity, determinism, batches, saving, processes and speed.

    An agent that learns in the environment is trained for ``BUDGET`` slates with the settings of ``SMALL`` that it has.

    Args:
        agent: a registered name, ``module:Class``, ``path.py:Class`` or the class.
        world: the world to try it in; None: a tiny one.
        processes: whether to play it in a new process as well, which takes some seconds.

    Returns:
        what was checked, with hints on speed.

    Raises:
        ConformanceError: each finding says what is wrong and what to change.
        UnknownNameError: no agent of that name.
    """
    checks = Checks("agent", agent if isinstance(agent, str) else agent.__qualname__)
    loaded = tiny_world() if world is None else load_world(world)
    cls = agent_class(agent) if isinstance(agent, str) else agent
    _declared(checks, cls)
    advice = "See recgym.agents.protocol.Agent"
    trained = checks.attempt("construction", "making and training it", advice, trained_briefly, cls, loaded)
    _slates(checks, checks.attempt("acting", "act", advice, _first_slates, trained, loaded))
    whole = checks.attempt("acting", "act", advice, play, trained, loaded, lane_seeds())
    _batches(checks, trained, loaded, whole)
    _inputs(checks, trained, loaded)
    with generators_watched() as touched:
        again = play(trained_briefly(cls, loaded), loaded, lane_seeds())
    checks.expect(
        not touched,
        "randomness",
        f"it draws from or seeds the global generator of {', '.join(touched)}",
        "Pass generators (recgym.random keys draws by context.lane_seeds), or build within recgym.agents.learning."
        "private_rng",
    )
    checks.expect(
        np.array_equal(again, whole),
        "determinism",
        "made and trained twice with one seed, it shows other slates",
        "Everything it learns has to follow from its seed and what it meets",
    )
    checks.settle()
    with tempfile.TemporaryDirectory() as folder:
        _saved(checks, trained, loaded, whole, Path(folder) / "run", agent if processes else None)
    return checks.report()


def lane_seeds(lanes: int = LANES) -> NDArray[np.int64]:
    """Identities of lanes, int64 [lanes]."""
    return derive_seeds(5, torch.arange(lanes)).numpy()


def environment(agent: Agent, world: World, lanes: int = LANES, **settings: Any) -> RecVectorEnv:
    """The default scenario in ``world``, observed as ``agent`` wants."""
    return RecVectorEnv(world=world, scenario="default", num_envs=lanes, observation=agent.observes, **settings)


def play(agent: Agent, world: World, seeds: NDArray[np.int64], num_steps: int = STEPS) -> NDArray[np.int64]:
    """Slates [num_steps, B, K] of an agent on the lanes with ``seeds`` [B]."""
    env = environment(agent, world, len(seeds), autoreset_mode=AutoresetMode.SAME_STEP)
    observations, _ = env.reset(seed=[int(seed) for seed in seeds])
    slates = []
    for step in range(num_steps):
        context = ActContext(seeds, np.full(len(seeds), step, dtype=np.int64), env.slate_size)
        slates.append(agent.act(observations, context, env=env if agent.privileged else None))
        observations, *_ = env.step(slates[-1])
    return np.stack(slates)


def trained_briefly(agent: str | type[Agent], world: World, seed: int = 0) -> Agent:
    """The agent fitted on the log or, where it learns in the environment, after a minute portion of it."""
    cls = agent_class(agent) if isinstance(agent, str) else agent
    in_environment = cls.learns == "environment"
    settings = {key: value for key, value in SMALL.items() if in_environment and key in cls.Config.model_fields}
    made = cls(world, parse_config(cls, settings), seed)
    if cls.learns == "log":
        made.fit(world)
    if in_environment:
        same_step = {"action_mode": made.action_mode, "autoreset_mode": AutoresetMode.SAME_STEP}
        made.train(environment(made, world, 4, **same_step), BUDGET)
    return made


def _declared(checks: Checks, cls: type[Agent]) -> None:
    what = "recgym.agents.protocol.Agent"
    checks.expect(isinstance(getattr(cls, "id", None), str), "declaration", "it has no id", "Set id = 'its_name'")
    keys = getattr(cls, "observes", ())
    checks.expect(
        isinstance(keys, tuple) and bool(keys) and set(keys) <= set(OBSERVATION_KEYS),
        "declaration",
        f"observes is {keys!r}",
        f"A tuple of observation keys: {', '.join(OBSERVATION_KEYS)}; nothing else reaches act",
    )
    checks.expect(
        cls.learns in ("nothing", "log", "environment"),
        "declaration",
        f"learns is {cls.learns!r}",
        "'nothing', 'log' (define fit) or 'environment' (define train or update)",
    )
    checks.expect(
        cls.Config.model_config.get("extra") == "forbid",
        "declaration",
        "its Config takes unknown settings in silence",
        "Derive Config from recgym.agents.protocol.AgentConfig",
    )
    checks.expect(cls.act is not Agent.act, "declaration", "it does not define act", f"See {what}")
    checks.settle()


def _first_slates(agent: Agent, world: World) -> Any:
    env = environment(agent, world)
    observations, _ = env.reset(seed=1)
    context = ActContext(lane_seeds(), np.zeros(LANES, dtype=np.int64), env.slate_size)
    return agent.act(observations, context, env=env if agent.privileged else None)


def _slates(checks: Checks, slates: Any, num_candidates: int = 100, slate_size: int = 10) -> None:
    """Checks the slates [B, K] that ``act`` returned; the numbers are those of the default scenario."""
    array = checks.expect(
        isinstance(slates, np.ndarray), "slates", f"act returned a {type(slates).__name__}", "Return a numpy array"
    )
    if not array:
        checks.settle()
    checks.expect(
        slates.dtype == np.int64, "slates", f"act returned {slates.dtype}", "Return int64 positions: .astype(np.int64)"
    )
    right = checks.expect(
        slates.shape == (LANES, slate_size),
        "slates",
        f"act returned slates of shape {slates.shape} for {LANES} lanes and a slate of {slate_size}",
        "Return [B, context.slate_size]; recgym.agents.protocol.top_slate makes slates of scores",
    )
    if right:
        checks.expect(
            bool(slates.min() >= 0 and slates.max() < num_candidates),
            "slates",
            f"positions {slates.min():g} to {slates.max():g} do not lie among {num_candidates} candidates",
            "Return positions among the candidates, not item rows",
        )
        checks.expect(
            bool((np.diff(np.sort(slates, axis=-1), axis=-1) > 0).all()),
            "slates",
            "a slate shows a candidate twice",
            "Rank the candidates and take the first K",
        )
    checks.settle()


def _batches(checks: Checks, agent: Agent, world: World, whole: NDArray[np.int64]) -> None:
    seeds = lane_seeds()
    for lanes in ([3], list(range(5, 10)), list(range(LANES - 1, -1, -1))):
        alone = play(agent, world, seeds[lanes].copy())
        checks.expect(
            np.array_equal(alone, whole[:, lanes]),
            "batch",
            f"a lane is shown another slate among {LANES} lanes than among {len(lanes)}, or in another order",
            "A slate depends on its own lane's observation, seed and step alone: key draws by context.lane_seeds, and "
            "compute scores within recgym.agents.blocks.by_block",
        )
    checks.settle()


def _inputs(checks: Checks, agent: Agent, world: World) -> None:
    env = environment(agent, world)
    observations, _ = env.reset(seed=1)
    context = ActContext(lane_seeds(), np.zeros(LANES, dtype=np.int64), env.slate_size)
    handed = env if agent.privileged else None
    kept = {key: value.copy() for key, value in observations.items()}
    expected = agent.act(observations, context, env=handed)
    for key, value in kept.items():
        checks.expect(
            np.array_equal(value, observations[key]),
            "purity",
            f"act changed observation {key!r} in place",
            "Copy what you change: others read it too",
        )
    tensors = {key: torch.as_tensor(value) for key, value in kept.items()}
    advice = "Observations are numpy arrays or tensors: recgym.agents.protocol.as_tensor takes both"
    given = checks.attempt("inputs", "act on torch observations", advice, _acted, agent, tensors, context, handed)
    checks.expect(np.array_equal(given, expected), "inputs", "torch observations give other slates", advice)
    chances = agent.propensities(kept, context, expected)
    if chances is not None:
        checks.expect(
            chances.shape == expected.shape and bool(((chances > 0) & (chances <= 1 + 1e-9)).all()),
            "propensities",
            f"propensities of its own slates are not chances [B, K] above 0 (shape {chances.shape})",
            "The chance of each position given those above it; None where it is not known",
        )
    if not agent.privileged:
        from recgym.simulation.simulator import Simulator

        held = [name for name, value in vars(agent).items() if isinstance(value, RecVectorEnv | Simulator)]
        checks.expect(
            not held,
            "hidden state",
            f"it keeps a running environment in {', '.join(held)}",
            "What is hidden from agents lies in there: declare privileged = True, or learn from observations",
        )
    checks.settle()
    started = time.perf_counter()
    agent.act(kept, context, env=handed)
    each = (time.perf_counter() - started) / LANES * 1e6
    if each > _SLOW:
        checks.hints.append(f"a slate takes {each:.0f} microseconds a user")


def _acted(agent: Agent, observations: Any, context: ActContext, env: RecVectorEnv | None) -> NDArray[np.int64]:
    return agent.act(observations, context, env=env)


def _saved(
    checks: Checks,
    agent: Agent,
    world: World,
    whole: NDArray[np.int64],
    path: Path,
    target: str | type[Agent] | None,
) -> None:
    advice = "What it has learned is all in tensors(), and restore takes it back"
    checks.attempt("saving", "save", advice, agent.save, path)
    extra = {file.name for file in path.iterdir()} - {*_FILES, "model.zip"}  # SB3's own form, beside ours
    checks.expect(not extra, "saving", f"it saves {', '.join(sorted(extra))} beside {', '.join(_FILES)}", advice)
    loaded = checks.attempt("saving", "load", advice, type(agent).load, path, world)
    same = loaded.config == agent.config and loaded.seed == agent.seed
    checks.expect(
        same and np.array_equal(play(loaded, world, lane_seeds()), whole),
        "saving",
        "saved and loaded, it shows other slates",
        advice,
    )
    checks.settle()
    if target is None:
        return
    if not (world.path / "world.json").is_file():
        checks.hints.append(f"world {world.name!r} lives in memory only: not played in a new process")
        return
    try:
        found = elsewhere("recgym.testing.agents:slates_of", importable(target), str(path), str(world.path))
    except RecGymError as error:
        advice = "Define it at the top level of a module"
        checks.expect(False, "processes", f"a new process cannot load it: {error}", advice)
    else:
        advice = "Use row numbers, sorted() or hashlib: hash() of texts and the order of sets change with the process"
        checks.expect(found == str(whole.tolist()), "processes", "a new process shows other slates", advice)
    checks.settle()


def slates_of(target: str, saved: str, world: str) -> str:
    """The slates of a saved agent in the bundle at ``world``, as text; for ``elsewhere``."""
    loaded = load_world(Path(world))
    return str(play(agent_class(target).load(saved, loaded), loaded, lane_seeds()).tolist())
