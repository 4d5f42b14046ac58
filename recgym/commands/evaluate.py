"""``recgym evaluate``: agents on identical users with identical luck, a table with intervals, and a report."""

from __future__ import annotations

import hashlib
import json
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from recgym.commands.settings import Changes, changed_scenario
from recgym.errors import RecGymError
from recgym.registration import ENVS

if TYPE_CHECKING:
    from recgym.scenario import Scenario

DEFAULT_ENV = "ecommerce-v0"
ALL = "all"
OVERVIEW_SEEDS = 2  # of every scenario: more users tell more than more episodes with each


def evaluate(
    env: Annotated[
        str | None,
        typer.Option(
            help="Environment id, or name or directory of a world. Default: the world that the scenarios are made for, "
            "or ecommerce-v0."
        ),
    ] = None,
    scenario: Annotated[
        list[str] | None,
        typer.Option(
            help="Scenario name or YAML file; several: repeat, or separate by commas; all: every one that the world "
            "can play. Default: the environment's."
        ),
    ] = None,
    changes: Changes = None,
    agents: Annotated[
        str, typer.Option(help="Agents by name or run directory, separated by commas; all: every registered one.")
    ] = "random,popularity,frequency,item_knn,greedy",
    users: Annotated[int | None, typer.Option(help="Users, the same for every agent. Default: the scenario's.")] = None,
    seeds: Annotated[
        int | None,
        typer.Option(help="Episodes with each user. Default: the scenario's, or 2 of each where all are played."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Directory for rows and report; the same command again resumes.")
    ] = None,
    train_steps: Annotated[int | None, typer.Option(min=1, help="Training budget of learners given by name.")] = None,
    device: Annotated[str, typer.Option(help="Torch device of the simulation.")] = "cpu",
    user_model: Annotated[
        str, typer.Option(help="Who answers: a name of `recgym list user-models`, or a target.")
    ] = "preference",
    trained_in: Annotated[
        str | None,
        typer.Option(help="Another world with the same items, to train in; agents are scored there too."),
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes; rows are the same whatever their number.")] = 1,
) -> None:
    """Compare agents on the same simulated users: means with 95% intervals, paired differences and a report."""
    from rich.console import Console

    from recgym.evaluation.entrants import entrants
    from recgym.evaluation.plan import own_code
    from recgym.evaluation.runner import evaluate as run
    from recgym.simulation.fit import fitting_scenarios
    from recgym.sources import recgym_source
    from recgym.worlds.world import load_world

    names = _split(agents)
    scenarios = [name for given in scenario or [] for name in _split(given)]
    if ALL in scenarios and len(scenarios) > 1:
        raise RecGymError(f"--scenario {ALL} stands for every scenario: give it alone, not with {scenarios}")
    if scenarios == [ALL]:
        env, seeds = env or DEFAULT_ENV, OVERVIEW_SEEDS if seeds is None else seeds
        fitting, refused = fitting_scenarios(load_world(ENVS.spec(env).own_world() if env in ENVS.names() else env))
        scenarios = [scenario.name for scenario in fitting]
        for name, why in refused.items():
            typer.echo(f"left out: {name}: {why}", err=True)
    if changes and not scenarios:
        env = env or DEFAULT_ENV
        scenarios = [ENVS.spec(env).scenario if env in ENVS.names() else "default"]
    played = [changed_scenario(name, changes) for name in scenarios]
    env = env or _made_for(played)
    out = out or default_directory(
        env,
        scenarios,
        names,
        users,
        seeds,
        train_steps,
        device,
        user_model,
        trained_in,
        changes,
        recgym_source(),
        own_code(entrants(names), user_model),
    )
    with resumable():
        run(
            env,
            played or None,
            names,
            users=users,
            seeds=seeds,
            out=out,
            train_steps=train_steps,
            device=device,
            user_model=user_model,
            trained_in=trained_in,
            workers=workers,
            command=command_line(),
        )
    finish(out, Console())


def _made_for(scenarios: list[Scenario]) -> str:
    """The one world that ``scenarios`` are made for, if it is not that of the default environment, which is next."""
    worlds = {scenario.env.world for scenario in scenarios} - {None, ENVS.spec(DEFAULT_ENV).world}
    return str(worlds.pop()) if len(worlds) == 1 else DEFAULT_ENV


@contextmanager
def resumable() -> Iterator[None]:
    """Says, where the user interrupts, that nothing finished is lost."""
    try:
        yield
    except KeyboardInterrupt:
        typer.echo("What is finished is kept: the same command again takes up from here.", err=True)
        raise


def finish(directory: Path, console: object) -> None:
    """Prints the tables of a finished evaluation and writes its report."""
    from rich.console import Console

    from recgym.evaluation import table
    from recgym.evaluation.report import write_report
    from recgym.evaluation.summary import summarise_run

    assert isinstance(console, Console)
    summary = summarise_run(directory)
    users = summary.manifest["configuration"]["users"]
    console.print()
    table.show(summary, console)
    if users["used"] < users["requested"]:
        console.print(
            f"All {users['available']:,} users of the world were used; {users['requested']:,} were asked for."
        )
    console.print(f"Report: {write_report(directory, summary)}", soft_wrap=True, highlight=False)


def command_line() -> str:
    """What the user typed, without the directory of the executable."""
    return shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])


def default_directory(env: str, *settings: object) -> Path:
    """A directory under ``runs`` for these settings, so that the same command again takes up where it stopped."""
    digest = hashlib.sha256(json.dumps([env, *settings]).encode()).hexdigest()[:8]
    return Path("runs") / f"evaluate-{Path(env).name}-{digest}"


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]
