"""Tuning: trials over an agent's declared search space, by Optuna's TPE, judged on validation users."""

from __future__ import annotations

import importlib
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from recgym.agents.protocol import Agent, agent_class, parse_config
from recgym.agents.search import Search, search_space
from recgym.agents.training import read_record, refuse_other, run_record, train_agent, write_record
from recgym.agents.validation import Validation, scorer
from recgym.errors import AgentError
from recgym.random import Purpose, fold
from recgym.scenario import Scenario, load_scenario
from recgym.simulation.population import platform_world
from recgym.worlds.world import World, load_world

TUNING = "tuning"
_STARTUP_TRIALS = 5  # drawn at random before TPE has something to go by
_USERS = 200


def tune(
    agent: str,
    world: str | Path | World,
    scenario: str | Path | Scenario = "default",
    *,
    trials: int,
    out: str | Path,
    steps: int | None = None,
    seed: int = 0,
    config: Mapping[str, Any] | None = None,
    validation: Validation | None = None,
    loggers: Sequence[str] = ("tensorboard",),
    device: str = "cpu",
    user_model: str | None = None,
    progress: Callable[[int, int], None] | None = None,
    resume: bool = False,
) -> Agent:
    """Trains an agent with ``trials`` settings, and saves the best of them to ``out`` as ``train_agent`` does.

    The first trial has the defaults, so what comes out is at least as good on validation. Trials lie in ``out/tuning``
    with Optuna's journal; an interrupted tuning goes on with its unfinished trial, and ends as if it had not been.

    Args:
        agent: see ``train_agent``, as for what is not listed here.
        world: the world.
        scenario: the scenario; validation plays it too, with agents that learn from the log as well.
        trials: how many settings; a finished tuning can be resumed with more.
        out: the run directory.
        steps: slates of each trial.
        seed: of the trials' training and of the search.
        config: settings that stay as they are.
        validation: stops trials early; its users judge the trials. None: 200 users do, at the end of a trial.
        loggers: where each trial writes its figures.
        device: where the trials compute.
        user_model: who answers in the trials and judges them.
        progress: called with the slates shown so far in all trials, and the total.
        resume: goes on with the tuning in ``out``.

    Raises:
        AgentError: the agent declares no search space or all of it is fixed, Optuna is not installed, or ``out`` holds
            another run or tuning.
    """
    optuna = _optuna()
    if trials < 1:
        raise AgentError(f"trials = {trials}: give at least 1")
    world, scenario, out = load_world(world), load_scenario(scenario), Path(out)
    known = platform_world(world, scenario)
    cls, fixed = agent_class(agent), dict(config or {})
    space = {name: search for name, search in search_space(cls.Config).items() if name not in fixed}
    if not space:
        raise AgentError(f"agent {agent!r} declares nothing to tune" + (f" beside {sorted(fixed)}" if fixed else ""))
    defaults = parse_config(cls, fixed).model_dump()
    directory = out / TUNING
    record = run_record(cls(known, parse_config(cls, fixed), seed), agent, scenario, steps, validation, user_model)
    record["scenario"] = {"name": scenario.name, "hash": scenario.hash}  # it judges the trials
    before = read_record(directory)
    if before is None and read_record(out) is not None:
        raise AgentError(f"{out} already holds a run that was not tuned: choose another directory")
    if before is not None:
        refuse_other(directory, before, record, resume)
    directory.mkdir(parents=True, exist_ok=True)
    write_record(directory, {**record, "status": "running", "trials": trials})
    score = scorer(world, scenario, validation.users if validation else _USERS, device, user_model)
    with _quiet(optuna):
        backend = optuna.storages.journal.JournalFileBackend(str(directory / "journal.log"))
        study = optuna.create_study(
            study_name=f"{cls.id}-{seed}",
            storage=optuna.storages.JournalStorage(backend),
            direction="maximize",
            load_if_exists=True,
        )
        states = optuna.trial.TrialState
        for left in study.get_trials(states=(states.RUNNING,)):
            study.tell(left.number, state=states.FAIL)
        while (number := len(study.get_trials(states=(states.COMPLETE,)))) < trials:
            # A sampler of its own for each trial: what it proposes depends on the trials before and on nothing else.
            study.sampler = optuna.samplers.TPESampler(n_startup_trials=_STARTUP_TRIALS, seed=_seed(seed, number))
            if number == 0:
                study.enqueue_trial({name: defaults[name] for name in space}, skip_if_exists=True)
            trial = study.ask()
            settings = {**fixed, **{name: _suggest(trial, name, search) for name, search in space.items()}}
            trained = train_agent(
                agent,
                world,
                scenario,
                steps=steps,
                seed=seed,
                out=_trial(directory, number),
                config=settings,
                validation=validation,
                loggers=loggers,
                device=device,
                user_model=user_model,
                progress=_overall(progress, number, trials),
                resume=True,
            )
            trial.set_user_attr("number", number)
            study.tell(trial, score(trained))
        complete = study.get_trials(states=(states.COMPLETE,))
    best = max(complete, key=lambda trial: trial.value)
    results = [{"settings": trial.params, "reward": trial.value} for trial in complete]
    shutil.copytree(_trial(directory, best.user_attrs["number"]), out, dirs_exist_ok=True)
    about = {"trials": trials, "best": best.user_attrs["number"], "results": results}
    write_record(directory, {**record, "status": "complete", **about})
    return cls.load(out, known)


def _trial(directory: Path, number: int) -> Path:
    return directory / f"trial-{number:03d}"


def _suggest(trial: Any, name: str, search: Search) -> Any:
    if search.choices:
        return trial.suggest_categorical(name, search.choices)
    if isinstance(search.low, int) and isinstance(search.high, int):
        return trial.suggest_int(name, search.low, search.high, log=search.log)
    return trial.suggest_float(name, search.low, search.high, log=search.log)


def _overall(
    progress: Callable[[int, int], None] | None, number: int, trials: int
) -> Callable[[int, int], None] | None:
    if progress is None:
        return None
    return lambda done, total: progress(number * total + min(done, total), trials * total)


def _seed(seed: int, number: int) -> int:
    return int(fold(torch.tensor(seed), int(Purpose.AGENT), number) & 0x7FFFFFFF)


def _optuna() -> Any:
    try:
        return importlib.import_module("optuna")
    except ImportError as error:
        raise AgentError("tuning needs the package 'optuna': pip install 'recgym[tune]'") from error


@contextmanager
def _quiet(optuna: Any) -> Iterator[None]:
    """Optuna says only what is wrong meanwhile."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)
