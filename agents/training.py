"""Training as ``recgym train`` does it: a run directory that can be resumed, and a cache of trained agents."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recgym.agents.loggers import check_loggers, open_loggers
from recgym.agents.protocol import Agent, agent_class, parse_config
from recgym.agents.validation import StopTraining, Validation, Validator, scorer
from recgym.devices import usable
from recgym.errors import AgentError
from recgym.paths import recgym_home
from recgym.registration import USER_MODELS
from recgym.scenario import Scenario, before_arrivals, load_scenario
from recgym.simulation.population import platform_world
from recgym.sources import own_source
from recgym.worlds.world import World, load_world

if TYPE_CHECKING:
    from recgym.envs.vector import RecVectorEnv

RUN = "run.json"
_PACKAGES = ("recgym", "torch", "stable-baselines3", "gymnasium", "numpy")
_IDENTITY = ("agent", "source", "config", "world", "scenario", "seed", "steps", "validation", "user_model")


def train_agent(
    agent: str,
    world: str | Path | World,
    scenario: str | Path | Scenario = "default",
    *,
    steps: int | None = None,
    seed: int = 0,
    out: str | Path,
    config: Mapping[str, Any] | None = None,
    validation: Validation | None = None,
    loggers: Sequence[str] = ("tensorboard",),
    device: str = "cpu",
    user_model: str | None = None,
    progress: Callable[[int, int], None] | None = None,
    resume: bool = False,
) -> Agent:
    """Trains an agent and saves it, with its record, to a run directory that ``make_agent`` and ``--agents`` take.

    Args:
        agent: a registered name, ``module:Class`` or ``path.py:Class``.
        world: the world it trains on.
        scenario: the scenario it trains in; agents that learn from the log do not look at it.
        steps: slates shown in all; the agent's own ``total_steps`` if None.
        seed: of the agent, its luck and the users it meets.
        out: the run directory.
        config: the agent's settings, where they differ from its defaults.
        validation: validates while training, ends it early where nothing improves any more, and keeps the best; None:
            the agent is what it is after all steps.
        loggers: where figures go, of ``recgym.agents.loggers.LOGGERS``.
        device: torch device of the simulation and of what the agent computes while it learns.
        user_model: who answers, a name of ``recgym list user-models`` or a target; None: the world's own users.
        progress: called with the slates shown so far and the total.
        resume: goes on with the run in ``out``: from its last checkpoint, or not at all where it is complete.

    Raises:
        AgentError: an unknown setting; or ``out`` holds a run already and ``resume`` is off, or the run that it holds
            differs from this one (the message says in what); or an agent that does not learn in the environment is to
            be validated.
        RecGymError: the device cannot be used here, or a logger or user model is unknown.
    """
    world, scenario, out = load_world(world), load_scenario(scenario), Path(out)
    cls = agent_class(agent)
    known = platform_world(world, scenario)
    learner = cls(known, parse_config(cls, config or {}), seed)
    record = run_record(learner, agent, scenario, steps, validation, user_model)
    learner.device = usable(device)
    check_loggers(loggers)
    if user_model is not None:
        USER_MODELS.load(user_model)  # an unknown name is told before anything is written
    before = read_record(out)
    if before is not None:
        refuse_other(out, before, record, resume)
        if before.get("status") == "complete":
            return cls.load(out, known)
    out.mkdir(parents=True, exist_ok=True)
    seconds = float(before["train_seconds"]) if before else 0.0
    write_record(out, {**record, "status": "running", "train_seconds": seconds})
    started = time.monotonic()
    result: dict[str, Any] = {}
    try:
        if learner.learns == "log":
            learner.fit(known)
        elif learner.learns == "environment":
            with open_loggers(loggers, out, record) as learner.log:
                result = _learn(
                    learner, world, scenario, record["steps"], validation, out, progress, resume, user_model
                )
        learner.save(out)
        status = "complete"
    except BaseException:
        status = "interrupted"
        raise
    finally:
        seconds += time.monotonic() - started
        about = {"status": status, "device": str(learner.device), "train_seconds": round(seconds, 2)}
        write_record(out, {**record, **about, "report": learner.report(), **result})
    return learner


def _learn(
    learner: Agent,
    world: World,
    scenario: Scenario,
    total: int,
    validation: Validation | None,
    out: Path,
    progress: Callable[[int, int], None] | None,
    resume: bool,
    user_model: str | None,
) -> dict[str, Any]:
    """Trains in the environment; what to record of it: slates shown, and the best validation."""
    shown, stopped = 0, False
    validator = None
    if validation is not None:
        score = scorer(world, scenario, validation.users, str(learner.device), user_model)
        validator = Validator(learner, validation, score, out, resume)

    def report(done: int) -> None:
        nonlocal shown
        shown = done
        if progress:
            progress(done, total)
        if validator:
            validator(done)

    env = training_env(learner, world, scenario, user_model)
    try:
        learner.train(env, total, directory=out, progress=report, resume=resume)
    except StopTraining:
        stopped = True
    finally:
        env.close()
    used = shown or total
    if validator is None:
        return {"steps_used": used}
    return {"steps_used": used, "stopped_early": stopped, "best_validation": validator.finish(used, stopped)}


def run_record(
    learner: Agent,
    agent: str,
    scenario: Scenario,
    steps: int | None,
    validation: Validation | None,
    user_model: str | None = None,
) -> dict[str, Any]:
    """What a run of ``learner``, called ``agent`` by whoever asked for it, is: its identity and versions."""
    in_environment = learner.learns == "environment"
    if validation is not None and not in_environment:
        raise AgentError(
            f"agent {learner.id!r} learns from: {learner.learns}; only training in the environment is validated"
        )
    return {
        "agent": agent,
        "source": own_source(type(learner)),  # None: RecGym's own
        "config": learner.config.model_dump(mode="json"),
        "world": {"name": learner.world.name, "hash": learner.world.hash},
        # What is learned from the log is the same in every scenario that leaves the log alike: see the world's hash.
        "scenario": {"name": scenario.name, "hash": scenario.hash} if in_environment else None,
        "seed": learner.seed,
        "steps": _budget(learner, steps),
        "validation": validation.model_dump() if validation else None,
        "user_model": user_model if in_environment else None,  # None: the world's own users
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in _PACKAGES}},
    }


def trained(
    agent: str,
    world: str | Path | World,
    scenario: str | Path | Scenario = "default",
    *,
    seed: int = 0,
    config: Mapping[str, Any] | None = None,
    home: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Agent:
    """The agent trained with its default budget: from the cache, or trained now and kept there.

    The cache is keyed by (agent, configuration, world, scenario, seed) and lies under ``home``
    (``$RECGYM_HOME/agents`` if None). An interrupted training is resumed. The version of RecGym is part of the key, and
    so is the source of an agent that is not RecGym's own.
    """
    world, scenario = load_world(world), load_scenario(scenario)
    out = cache_directory(agent, world, scenario, seed=seed, config=config, home=home)
    return train_agent(agent, world, scenario, seed=seed, out=out, config=config, progress=progress, resume=True)


def cache_directory(
    agent: str,
    world: World,
    scenario: Scenario,
    *,
    seed: int = 0,
    config: Mapping[str, Any] | None = None,
    home: Path | None = None,
) -> Path:
    """Where ``trained`` keeps an agent; see there."""
    cls = agent_class(agent)
    settings = parse_config(cls, config or {}).model_dump(mode="json")
    played = scenario.hash if cls.learns == "environment" else None
    known = platform_world(world, scenario)
    key = [agent, settings, known.hash, played, seed, _version("recgym")]
    if (source := own_source(cls)) is not None:  # that of RecGym's own agents goes with the version
        key.append(source)
    text = json.dumps(key, sort_keys=True)
    return (home or recgym_home() / "agents") / f"{cls.id}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def training_env(agent: Agent, world: World, scenario: Scenario, user_model: str | None = None) -> RecVectorEnv:
    """The environment that ``agent`` learns in: its own observation keys and action mode, ``num_envs`` lanes.

    Items that are new in ``scenario`` have not arrived there: what no log has seen, no training has seen either.
    """
    from gymnasium.vector import AutoresetMode

    from recgym.envs.vector import RecVectorEnv

    return RecVectorEnv(
        world=world,
        scenario=before_arrivals(scenario),
        num_envs=getattr(agent.config, "num_envs", 64),
        action_mode=agent.action_mode,
        observation=agent.observes,
        autoreset_mode=AutoresetMode.SAME_STEP,
        device=agent.device,
        user_model=user_model,
    )


def _budget(agent: Agent, steps: int | None) -> int:
    if agent.learns != "environment":
        return 0
    total = getattr(agent.config, "total_steps", None) if steps is None else steps
    if total is None or total < 1:
        raise AgentError(f"agent {agent.id!r}: steps = {total}: give a positive number of slates to train on")
    return int(total)


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def read_record(out: Path) -> dict[str, Any] | None:
    """The record of the run in ``out``; None where there is none."""
    try:
        return json.loads((out / RUN).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, json.JSONDecodeError) as error:
        raise AgentError(f"{out / RUN} cannot be read: {error}") from error


def write_record(out: Path, record: Mapping[str, Any]) -> None:
    """Writes the record of the run in ``out``, whole or not at all."""
    partial = out / f"partial-{RUN}"
    partial.write_text(json.dumps(record, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    partial.replace(out / RUN)


def refuse_other(out: Path, before: Mapping[str, Any], now: Mapping[str, Any], resume: bool) -> None:
    """Raises AgentError unless the run ``before`` that ``out`` holds is to be resumed, and is the same as ``now``."""
    if not resume:
        raise AgentError(f"{out} already holds a run ({before.get('status')}): resume it, or choose another directory")
    for part in _IDENTITY:
        if before.get(part) != now[part]:
            raise AgentError(
                f"{out} holds another run: its {part} is {before.get(part)!r}, this run's is {now[part]!r}"
            )
