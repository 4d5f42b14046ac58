"""Evaluation: every agent meets identical users with identical luck; out comes one row an episode."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import pandas as pd
import torch

from recgym.agents.protocol import Agent
from recgym.devices import usable
from recgym.errors import RecGymError
from recgym.evaluation.entrants import AgentLike, Entrant, entrants, fingerprint
from recgym.evaluation.progress import Progress, bars, silent
from recgym.evaluation.rollout import Catalogue, Ints, Played, play
from recgym.evaluation.store import ROWS, TRAINING, RunDirectory, versions, write_parquet
from recgym.random import derive_seeds
from recgym.registration import USER_MODELS
from recgym.scenario import Scenario, load_scenario
from recgym.simulation.fit import check_fit
from recgym.simulation.simulator import Simulator
from recgym.threads import one_thread
from recgym.worlds.named import named_world
from recgym.worlds.world import World

CHUNK = 512
LEARNING_BLOCK = 256  # users that a copy of an agent that adapts learns from together, whatever the chunk
TRACED_USERS = 3
_SAMPLE = 0x5A3D1E  # the stream that orders users for sampling; far from the evaluation seeds people use
_TABLES = ("items", "steps", "rows")  # rows last: a part is finished once they are in place

Scenarios: TypeAlias = Sequence[str | Path | Scenario] | str | Path | Scenario
Agents: TypeAlias = Sequence[AgentLike] | Mapping[str, AgentLike] | AgentLike


@dataclass(frozen=True)
class Plan:
    """An evaluation, resolved and checked before anything runs."""

    world: World
    scenarios: tuple[Scenario, ...]
    entrants: tuple[Entrant, ...]
    users: Ints  # [n] user rows, the same for every agent, scenario and seed
    requested_users: int
    seeds: tuple[int, ...]
    chunk: int  # users simulated at once
    train_steps: int | None
    device: str
    user_model: str

    def to_dict(self) -> dict[str, Any]:
        """The resolved configuration, as JSON values."""
        spec = self.world.spec
        return {
            "world": {
                "name": self.world.name,
                "title": spec.title,
                "hash": self.world.hash,
                "kind": spec.kind,
                "reward": spec.reward,
                "currency": spec.currency,
                "num_users": spec.num_users,
                "num_items": spec.num_items,
                "data": spec.data,
            },
            "scenarios": {scenario.name: scenario.model_dump(mode="json") for scenario in self.scenarios},
            "agents": {entrant.label: entrant.describe() for entrant in self.entrants},
            "users": {"requested": self.requested_users, "used": len(self.users), "available": self.world.num_users},
            "seeds": list(self.seeds),
            "chunk": self.chunk,
            "train_steps": self.train_steps,
            "device": self.device,
            "user_model": self.user_model,
        }


def evaluate(
    world: str | Path | World = "ecommerce-v0",
    scenarios: Scenarios | None = None,
    agents: Agents = ("random", "popularity", "frequency"),
    *,
    users: int | None = None,
    seeds: int | Sequence[int] | None = None,
    out: str | Path | None = None,
    train_steps: int | None = None,
    chunk: int = CHUNK,
    device: str = "cpu",
    user_model: str = "preference",
    progress: bool | Progress = True,
    command: str | None = None,
) -> pd.DataFrame:
    """Plays one episode for every agent, scenario, seed and user.

    Users are drawn without replacement, the same for all agents; the luck of an episode is keyed by (seed, user), so
    two agents can be compared episode by episode. Where more users are asked for than the world holds, all are used.

    Args:
        world: an environment id, a world's name or path, or a ``World``.
        scenarios: names, files or ``Scenario`` objects; None: the environment's own.
        agents: registered names (``all``: every one), run directories or ``Agent`` objects; a mapping gives them
            labels. A learner given by name is trained first, once for each scenario, and cached.
        users: how many users; None: what the (first) scenario says.
        seeds: how many seeds (0, 1, ...), or the seeds themselves; None: what the (first) scenario says.
        out: directory for ``rows.parquet``, ``run.json`` and what the report needs; a second call with the same
            configuration takes up where the first one stopped. None: nothing is written.
        train_steps: training budget of learners given by name; None: their default.
        chunk: users simulated at once; rows are ordered the same whatever it is.
        device: torch device of the simulation.
        user_model: who answers: a name of ``recgym list user-models`` or a target. Learners given by name are trained
            with the world's own users all the same.
        progress: whether to show bars, or a callback ``(task, done, total)``.
        command: what the user typed, for the provenance.

    Returns:
        one row an episode, ordered by scenario, agent, seed and user as given: scenario, agent, privileged, world,
        seed, user (row), lane_seed, history_trips, reward, revenue (NaN without prices), num_steps, num_shown,
        num_examined, num_consumed, num_hits (slates with a consumed item), num_new (items the log never saw with this
        user), units, num_rated, rating_sum, popularity_shown (sum), num_trips, num_days, disagreement (of the members
        of an ensemble on what was shown: standard deviation of q, averaged over slots and slates; NaN without one),
        ended (``left`` or ``truncated``).

    Raises:
        UnknownNameError: an unknown agent, scenario or world; the message gives the nearest name.
        RecGymError: fewer than one user or seed, or ``out`` holds another evaluation.
    """
    plan = make_plan(world, scenarios, agents, users, seeds, train_steps, chunk, device, user_model)
    store = None if out is None else RunDirectory(out)
    if store is not None:
        store.claim("configuration", plan.to_dict())
        store.claim("versions", versions())
        store.record("command", command or "recgym.evaluate(...)")
    with ExitStack() as stack:
        report = stack.enter_context(bars()) if progress is True else progress or silent
        stack.enter_context(one_thread())
        tables = _run(plan, store, report)
    if store is not None:
        write_parquet(store.path / ROWS, tables["rows"])
        write_parquet(store.path / "items.parquet", tables["items"])
        write_parquet(store.path / "steps.parquet", tables["steps"])
        curves = [entrant.curve(scenario) for scenario in plan.scenarios for entrant in plan.entrants]
        if any(len(curve) for curve in curves):
            write_parquet(store.path / TRAINING, pd.concat([curve for curve in curves if len(curve)]))
    return tables["rows"]


def make_plan(
    world: str | Path | World,
    scenarios: Scenarios | None = None,
    agents: Agents = (),
    users: int | None = None,
    seeds: int | Sequence[int] | None = None,
    train_steps: int | None = None,
    chunk: int = CHUNK,
    device: str = "cpu",
    user_model: str = "preference",
) -> Plan:
    """Resolves every name and checks every number; see ``evaluate``."""
    taking_part = tuple(entrants(agents))
    loaded, own = named_world(world)
    scenarios = own if scenarios is None else scenarios
    if isinstance(scenarios, str | Path | Scenario):
        scenarios = [scenarios]
    resolved = tuple(load_scenario(scenario) for scenario in scenarios)
    names = [scenario.name for scenario in resolved]
    if not names or len(set(names)) < len(names):
        raise RecGymError(f"give at least one scenario, each under a name of its own; got {names}")
    users = resolved[0].evaluation.users if users is None else users
    for name, count in (("users", users), ("chunk", chunk), ("train_steps", 1 if train_steps is None else train_steps)):
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise RecGymError(f"{name} must be a whole number of at least 1, got {count!r}")
    numbers = _seeds(resolved[0].evaluation.seeds if seeds is None else seeds)
    usable(device)
    USER_MODELS.load(user_model)  # an unknown name is told before anything is trained
    for scenario in resolved:
        check_fit(loaded, scenario)
    return Plan(
        world=loaded,
        scenarios=resolved,
        entrants=taking_part,
        users=sample_users(loaded.num_users, users),
        requested_users=users,
        seeds=numbers,
        chunk=min(chunk, users, loaded.num_users),
        train_steps=train_steps,
        device=device,
        user_model=user_model,
    )


def sample_users(available: int, count: int) -> Ints:
    """The first ``count`` of all user rows in a fixed random order: a larger sample contains every smaller one."""
    keys = derive_seeds(_SAMPLE, torch.arange(available))
    order: Ints = keys.argsort(stable=True)[:count].numpy()
    return order


def _seeds(seeds: int | Sequence[int]) -> tuple[int, ...]:
    if isinstance(seeds, int) and not isinstance(seeds, bool):
        if seeds < 1:
            raise RecGymError(f"seeds must be at least 1, got {seeds}")
        return tuple(range(seeds))
    chosen = tuple(seeds) if isinstance(seeds, Sequence) else ()
    whole = all(isinstance(seed, int) and not isinstance(seed, bool) and seed >= 0 for seed in chosen)
    if not chosen or not whole or len(set(chosen)) < len(chosen):
        raise RecGymError(f"seeds must be a count or different whole numbers of at least 0, got {seeds!r}")
    return chosen


def _run(plan: Plan, store: RunDirectory | None, report: Progress) -> dict[str, pd.DataFrame]:
    ready: dict[tuple[str, str], Agent] = {}
    for scenario in plan.scenarios:
        for entrant in plan.entrants:
            agent = entrant.agent(plan.world, scenario, train_steps=plan.train_steps, progress=report)
            ready[scenario.name, entrant.label] = agent
    if store is not None:
        # An agent trained again with other results must not be mixed with rows of the one before.
        store.claim(
            "fingerprints", {f"{label} in {name}": fingerprint(agent) for (name, label), agent in ready.items()}
        )
    catalogue = Catalogue.of(plan.world)
    users = USER_MODELS.load(plan.user_model)(plan.world, plan.device)
    pieces: dict[str, list[pd.DataFrame]] = {table: [] for table in _TABLES}
    for scenario in plan.scenarios:
        simulator = Simulator(plan.world, scenario, plan.device, users)
        for entrant in plan.entrants:
            agent = ready[scenario.name, entrant.label]
            task = entrant.label if len(plan.scenarios) == 1 else f"{entrant.label} in {scenario.name}"
            bar = _Bar(report, task, plan)
            for seed in plan.seeds:
                name = f"{scenario.name}__{entrant.label}__{seed}"
                part = store.load_part(name, _TABLES) if store else None
                if part is None:
                    part = _part(plan, simulator, entrant.label, agent, seed, catalogue, bar)
                    if store is not None:
                        store.save_part(name, part)
                bar.finish(len(plan.users))
                for table, content in part.items():
                    pieces[table].append(content)
    return {
        table: pd.concat([content for content in found if len(content)], ignore_index=True)
        for table, found in pieces.items()
    }


class _Bar:
    """Episodes of one agent finished: those of earlier chunks and seeds, and those of the chunk under way."""

    def __init__(self, report: Progress, task: str, plan: Plan) -> None:
        self._report = report
        self._task = task
        self._total = len(plan.seeds) * len(plan.users)
        self._before = 0

    def show(self, count: int) -> None:
        """``count`` episodes of the chunk under way have ended."""
        self._report(self._task, self._before + count, self._total)

    def finish(self, count: int) -> None:
        """A whole seed, of ``count`` episodes, is done."""
        self.show(count)
        self._before += count


def _part(
    plan: Plan, simulator: Simulator, label: str, agent: Agent, seed: int, catalogue: Catalogue, bar: _Bar
) -> dict[str, pd.DataFrame]:
    """All episodes of one agent in one scenario with one seed, in chunks of one size; see ``Agent`` for who learns."""
    lane_seeds = derive_seeds(seed, torch.from_numpy(plan.users)).numpy()
    played: list[Played] = []
    size = LEARNING_BLOCK if agent.adapts else plan.chunk
    for start in range(0, len(plan.users), size):
        chunk = slice(start, start + size)
        piece = play(
            agent.clone() if agent.adapts else agent,
            simulator,
            plan.users[chunk],
            lane_seeds[chunk],
            catalogue=catalogue,
            num_traced=TRACED_USERS if seed == plan.seeds[0] and start == 0 else 0,
            finished=functools.partial(_show_from, bar, start),
        )
        played.append(piece)
    names = {"scenario": simulator.scenario.name, "agent": label}
    about = {**names, "privileged": agent.privileged, "world": plan.world.name, "seed": seed}
    exposures = pd.concat([piece.exposures for piece in played]).groupby("item", as_index=False).sum()
    return {
        "items": _prepend(exposures, {**names, "seed": seed}),
        "steps": _prepend(played[0].steps, {**names, "seed": seed}),  # only the first chunk is traced
        "rows": _prepend(pd.concat([piece.episodes for piece in played]), about),
    }


def _show_from(bar: _Bar, start: int, count: int) -> None:
    bar.show(start + count)


def _prepend(table: pd.DataFrame, constants: Mapping[str, Any]) -> pd.DataFrame:
    """``table`` with constant columns in front."""
    table = table.reset_index(drop=True)
    for at, (name, value) in enumerate(constants.items()):
        table.insert(at, name, value)
    return table
