"""``recgym list``: what is registered, straight from the registries."""

from __future__ import annotations

import typer
from rich.console import Console
from rich.table import Table

from recgym.registration import AGENTS, DATASETS, ENVS, SCENARIOS, USER_MODELS, WORLDS
from recgym.registry import Registry, Spec

app = typer.Typer(help="List what is registered.", no_args_is_help=True)


def _print_table(columns: list[str], rows: list[list[str]]) -> None:
    table = Table(box=None, pad_edge=False)
    for number, column in enumerate(columns):
        table.add_column(column, no_wrap=number == 0)
    for row in rows:
        table.add_row(*row)
    Console().print(table)


def _print_specs(registry: Registry[Spec]) -> None:
    _print_table(["name", "description"], [[spec.id, spec.description] for spec in registry.specs()])


@app.command()
def envs() -> None:
    """Environment ids, with the world and scenario of each."""
    rows = [[spec.id, spec.world, spec.scenario, spec.description] for spec in ENVS.specs()]
    _print_table(["id", "world", "scenario", "description"], rows)


@app.command()
def worlds() -> None:
    """Worlds: those with a recipe, and those already built."""
    from recgym.worlds.world import available_worlds

    built = available_worlds()
    rows = []
    for name in sorted({*WORLDS.names(), *built}):
        description = WORLDS.spec(name).description if name in WORLDS.names() else f"Your own, in {built[name]}."
        rows.append([name, "yes" if name in built else f"recgym world build {name}", description])
    _print_table(["name", "built", "description"], rows)


@app.command()
def scenarios() -> None:
    """Scenarios that `--scenario` takes by name."""
    rows = [[name, SCENARIOS.load(name).description] for name in SCENARIOS.names()]
    _print_table(["name", "description"], rows)


@app.command()
def agents() -> None:
    """Agents that `--agent` and `--agents` take by name."""
    _print_specs(AGENTS)


@app.command()
def user_models() -> None:
    """User models that an environment takes by name."""
    _print_specs(USER_MODELS)


@app.command()
def datasets() -> None:
    """Data sets that `recgym data fetch` knows."""
    _print_specs(DATASETS)
