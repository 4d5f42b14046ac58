"""Chunks of an evaluation on several processes: what they write is what one process would have written."""

from __future__ import annotations

import multiprocessing
import signal
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from recgym.agents.protocol import Agent, agent_class, make_agent
from recgym.errors import RecGymError
from recgym.evaluation.plan import Plan
from recgym.evaluation.stage import Bar, Stage, Task
from recgym.evaluation.store import RunDirectory
from recgym.simulation.population import platform_world
from recgym.threads import one_thread
from recgym.worlds.world import load_world


@dataclass(frozen=True)
class _Recipe:
    """What a process needs to set its stage up; nothing in it is large."""

    world: Path
    plan: Plan  # without world and entrants
    agents: dict[tuple[str, str], tuple[str | None, Path]]  # class by name or target, and where it is saved
    store: Path


_stage: tuple[Stage, RunDirectory] | None = None  # of this process, where it is a worker


def play_in_processes(
    plan: Plan,
    agents: Mapping[tuple[str, str], Agent],
    work: Sequence[Task],
    store: RunDirectory,
    workers: int,
    bar: Bar,
) -> None:
    """Plays ``work`` on ``workers`` processes; each part is written by the one that played it.

    An interruption lets the chunks under way come to an end and be kept.

    Args:
        plan: the evaluation; its world must lie on disk as it is in memory.
        agents: by scenario and label; they are saved, and loaded by each process.
        work: the chunks.
        store: where parts go.
        workers: processes.
        bar: told of every chunk that is done.

    Raises:
        RecGymError: the simulation is to run on another device than a CPU, or a process died.
    """
    if torch.device(plan.device).type != "cpu":
        raise RecGymError(f"several workers share the cores of a CPU; device {plan.device!r} takes one")
    if not (plan.world.path / "world.json").is_file():
        raise RecGymError(f"several workers load the world from its bundle, and {plan.world.path} holds none")
    with tempfile.TemporaryDirectory(prefix="recgym-agents-") as home:
        saved = {}
        for number, (key, agent) in enumerate(agents.items()):
            entrant = next(one for one in plan.entrants if one.label == key[1])
            source = entrant.source if isinstance(entrant.source, str) else None
            saved[key] = (source, agent.save(Path(home) / str(number)))
        recipe = _Recipe(plan.world.path, replace(plan, world=None, home=None, entrants=()), saved, store.path)  # type: ignore[arg-type]
        context = multiprocessing.get_context("spawn")  # a fork would copy locks that threads of ours may hold
        with ProcessPoolExecutor(workers, context, _enter, (recipe,)) as pool:
            waiting: dict[Future[None], Task] = {pool.submit(_play, task): task for task in work}
            try:
                while waiting:
                    done, _ = wait(waiting, return_when=FIRST_COMPLETED)
                    for future in done:
                        future.result()
                        bar.finish(waiting.pop(future))
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise


def _enter(recipe: _Recipe) -> None:
    """Sets the stage of a worker."""
    global _stage
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides when to stop
    torch.set_num_threads(1)
    plan = replace(recipe.plan, world=load_world(recipe.world))
    known = {scenario.name: platform_world(plan.world, scenario) for scenario in plan.scenarios}
    agents = {}
    for key, (source, path) in recipe.agents.items():
        world = known[key[0]]
        agents[key] = make_agent(path, world) if source is None else agent_class(source).load(path, world)
    stage = Stage(plan, agents)
    _stage = stage, RunDirectory(recipe.store)


def _play(task: Task) -> None:
    """Plays a chunk and writes its part."""
    if _stage is None:
        raise RecGymError("this process is no worker of an evaluation")
    stage, store = _stage
    with one_thread():
        store.save_part(task.name, stage.play(task, lambda task, count: None))
