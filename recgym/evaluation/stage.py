"""The stage of a process: its simulators and agents, on which chunks of episodes are played."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import pandas as pd
import torch

from recgym.agents.protocol import Agent
from recgym.evaluation.catalogue import Catalogue
from recgym.evaluation.plan import Plan
from recgym.evaluation.progress import Progress
from recgym.evaluation.rollout import play
from recgym.random import derive_seeds
from recgym.registration import USER_MODELS
from recgym.simulation.simulator import Simulator

LEARNING_BLOCK = 256  # users that a copy of an agent that adapts learns from together, whatever the chunk
TRACED_USERS = 3
TABLES = ("visits", "providers", "items", "steps", "rows")  # rows last: a part is finished once they are in place


@dataclass(frozen=True)
class Task:
    """One chunk of the users with one seed: the episodes of one agent in one scenario."""

    KEYS: ClassVar = ["scenario", "agent", "seed"]
    scenario: str
    agent: str
    seed: int
    start: int  # of the chunk, in the users of the plan
    size: int
    num_traced: int

    @property
    def group(self) -> tuple[str, str, int]:
        """Scenario, agent and seed."""
        return self.scenario, self.agent, self.seed

    @property
    def name(self) -> str:
        """What its part of an evaluation is called."""
        return f"{self.scenario}__{self.agent}__{self.seed}__{self.start}"


def tasks(plan: Plan, agents: Mapping[tuple[str, str], Agent]) -> list[Task]:
    """All chunks of an evaluation, in the order of its rows; see ``Agent`` for who learns in blocks of one size."""
    found = []
    for scenario in plan.scenarios:
        for entrant in plan.entrants:
            size = LEARNING_BLOCK if agents[scenario.name, entrant.label].adapts else plan.chunk
            for seed in plan.seeds:
                for start in range(0, len(plan.users), size):
                    traced = TRACED_USERS if seed == plan.seeds[0] and start == 0 else 0
                    length = min(size, len(plan.users) - start)
                    found.append(Task(scenario.name, entrant.label, seed, start, length, traced))
    return found


class Stage:
    """Everything that chunks of a plan need to be played in this process."""

    def __init__(self, plan: Plan, agents: Mapping[tuple[str, str], Agent]) -> None:
        """Loads the users; a simulator is built when the first chunk of its scenario is played.

        Args:
            plan: the evaluation.
            agents: by scenario and label.
        """
        self._plan, self._agents = plan, agents
        self._users = USER_MODELS.load(plan.user_model)(plan.world, plan.device)
        self._set: tuple[Simulator, Catalogue] | None = None  # of the scenario under way

    def play(self, task: Task, finished: Callable[[Task, int], None]) -> dict[str, pd.DataFrame]:
        """The tables of a chunk; ``finished`` is told how many of its episodes have ended."""
        plan, agent = self._plan, self._agents[task.scenario, task.agent]
        users = plan.users[task.start : task.start + task.size]
        simulator, catalogue = self._set_of(task.scenario)
        played = play(
            agent.clone() if agent.adapts else agent,
            simulator,
            users,
            derive_seeds(task.seed, torch.from_numpy(users)).numpy(),
            catalogue=catalogue,
            num_traced=task.num_traced,
            finished=functools.partial(finished, task),
        )
        names = dict(zip(Task.KEYS, task.group, strict=True))
        about = {"scenario": task.scenario, "agent": task.agent, "privileged": agent.privileged}
        return {
            "visits": _prepend(played.visits, names),
            "providers": _prepend(played.providers, names),
            "items": _prepend(played.exposures, names),
            "steps": _prepend(played.steps, names),
            "rows": _prepend(played.episodes, {**about, "world": plan.world.name, "seed": task.seed}),
        }

    def _set_of(self, scenario: str) -> tuple[Simulator, Catalogue]:
        if self._set is None or self._set[0].scenario.name != scenario:
            chosen = next(one for one in self._plan.scenarios if one.name == scenario)
            simulator = Simulator(self._plan.world, chosen, self._plan.device, self._users)
            self._set = simulator, Catalogue.of(simulator)
        return self._set


class Bar:
    """Episodes of each agent that are finished: of whole chunks, and of the one under way."""

    def __init__(self, report: Progress, work: Sequence[Task], where: str = "") -> None:
        """All chunks are still to come; ``where`` is added to the agents' names."""
        self._report, self._where = report, where
        self._several = len({task.scenario for task in work}) > 1
        self._totals: dict[str, int] = {}
        for task in work:
            self._totals[self._title(task)] = self._totals.get(self._title(task), 0) + task.size
        self._done = dict.fromkeys(self._totals, 0)

    def under_way(self, task: Task, count: int) -> None:
        """``count`` episodes of ``task`` have ended."""
        title = self._title(task)
        self._report(title, self._done[title] + count, self._totals[title])

    def finish(self, task: Task) -> None:
        """``task`` is done."""
        self.under_way(task, task.size)
        self._done[self._title(task)] += task.size

    def of(self, task: Task, tables: dict[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
        """``tables``, after ``finish``."""
        self.finish(task)
        return tables

    def skip(self, task: Task, done: bool) -> bool:
        """``done``; whether ``task`` need not be played any more."""
        if done:
            self.finish(task)
        return done

    def _title(self, task: Task) -> str:
        name = task.agent + self._where
        return f"{name} in {task.scenario}" if self._several else name


def _prepend(table: pd.DataFrame, constants: Mapping[str, Any]) -> pd.DataFrame:
    """``table`` with constant columns in front."""
    table = table.reset_index(drop=True)
    for at, (name, value) in enumerate(constants.items()):
        table.insert(at, name, value)
    return table
