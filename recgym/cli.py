"""The ``recgym`` command: its sub-commands, and errors as one line instead of a traceback."""

from __future__ import annotations

from typing import Annotated, Any

import pydantic
import typer
from typer.core import TyperGroup

import recgym
from recgym.commands import bench, check, data, demo, evaluate, listing, sample_size, scenario, train, world
from recgym.errors import RecGymError


class _Root(TyperGroup):
    """The root group: where every sub-command's errors end."""

    def invoke(self, ctx: Any) -> Any:
        """Runs the sub-command; exit code 2 for an error of the user's, 130 for an interruption."""
        try:
            return super().invoke(ctx)
        except (RecGymError, pydantic.ValidationError) as error:
            if ctx.params.get("debug"):
                raise
            typer.secho(f"Error: {_message(error)}", fg="red", err=True)
            raise typer.Exit(2) from error
        except KeyboardInterrupt as interrupt:
            typer.secho("Interrupted.", fg="red", err=True)
            raise typer.Exit(130) from interrupt


def _message(error: Exception) -> str:
    if not isinstance(error, pydantic.ValidationError):
        return str(error)
    problems = []
    for detail in error.errors(include_url=False):
        keys = ".".join(str(key) for key in detail["loc"])
        problems.append(f"{error.title}: {keys}: {detail['msg']}, got {detail['input']!r}")
    return "; ".join(problems)


app = typer.Typer(
    name="recgym",
    cls=_Root,
    help="A Gymnasium simulator for reinforcement-learning recommendation with users fitted on real logs.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("demo")(demo.demo)
app.add_typer(listing.app, name="list")
app.add_typer(data.app, name="data")
app.add_typer(world.app, name="world")
app.command("train")(train.train)
app.command("evaluate")(evaluate.evaluate)
app.command("sample-size")(sample_size.sample_size)
app.add_typer(scenario.app, name="scenario")
app.add_typer(check.app, name="check")
app.command("bench")(bench.bench)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"recgym {recgym.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and leave.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """A Gymnasium simulator for reinforcement-learning recommendation with users fitted on real logs."""


def main() -> None:
    """Runs the command line."""
    app()
