"""``recgym check``: whether a user model, an agent, a world or a scenario conforms, and what to change if not."""

from __future__ import annotations

from typing import Annotated

import typer

app = typer.Typer(help="Check what you bring: each failure says what to change.", no_args_is_help=True)

Target = Annotated[str, typer.Argument(help="A registered name, module:Class or path.py:Class.")]
InWorld = Annotated[str | None, typer.Option(help="World to try it in; a tiny one if not given.")]
Elsewhere = Annotated[bool, typer.Option(help="Play it in a new process as well; takes some seconds.")]


@app.command()
def user_model(target: Target, world: InWorld = None, processes: Elsewhere = True) -> None:
    """Types, shapes, ranges, purity, determinism, batches, processes and speed of a user model."""
    from recgym.testing import check_user_model

    typer.echo(check_user_model(target, world, processes=processes))


@app.command()
def agent(target: Target, world: InWorld = None, processes: Elsewhere = True) -> None:
    """Slates, purity, determinism, batches, saving, processes and speed of an agent."""
    from recgym.testing import check_agent

    typer.echo(check_agent(target, world, processes=processes))


@app.command()
def world(
    target: Annotated[str, typer.Argument(help="Name or directory of a world.")],
    user_model: Annotated[str, typer.Option(help="Who answers in it.")] = "preference",
    processes: Elsewhere = True,
) -> None:
    """Files, tables, ranges, privacy, probabilities, batches and hidden state of a world."""
    from recgym.testing import check_world

    typer.echo(check_world(target, user_model=user_model, processes=processes))


@app.command()
def scenario(
    target: Annotated[str, typer.Argument(help="Name or YAML file of a scenario.")],
    world: InWorld = None,
    processes: Elsewhere = True,
) -> None:
    """Loading, actions, rewards, endings, determinism and hidden state of a scenario."""
    from recgym.testing import check_scenario

    typer.echo(check_scenario(target, world, processes=processes))
