"""``recgym world``: build worlds, print their cards, measure them again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Build worlds, print their fidelity cards, measure them again.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="NAME", help="A world of `recgym list worlds`, or a bundle directory.")]


SHOWN = 20  # differing figures that `validate` prints


@app.command()
def build(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A recipe of `recgym list worlds`.")],
    out: Annotated[
        Path | None, typer.Option(help="The bundle's directory. Default: $RECGYM_HOME/worlds/NAME.", show_default=False)
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the build.")] = 0,
    threads: Annotated[int, typer.Option(min=0, help="Torch threads; 0 leaves torch's default.")] = 0,
) -> None:
    """Build a world from real data: log, text and graph features, pre-training, fine-tuning, validation.

    An interrupted build goes on from its last epoch.
    """
    import torch

    from recgym.commands.progress import stage_progress
    from recgym.registration import WORLDS
    from recgym.worlds.build import build_world

    recipe = WORLDS.load(name)(seed=seed)
    if threads:
        torch.set_num_threads(threads)
    with stage_progress() as progress:
        world = build_world(recipe, out=out, progress=progress)
    _print_card(world.path)
    typer.echo(f"world {world.name!r} is in {world.path}")


@app.command()
def ensemble(
    name: Name,
    members: Annotated[int, typer.Option(min=2, help="Networks in all, that of the world included.")] = 3,
    threads: Annotated[int, typer.Option(min=0, help="Torch threads; 0 leaves torch's default.")] = 0,
) -> None:
    """Train further networks for a built world, on the item table that it ships; `validate --write` measures them.

    An interrupted training goes on from its last epoch.
    """
    import torch

    from recgym.commands.progress import stage_progress
    from recgym.worlds.ensemble import add_members
    from recgym.worlds.world import load_world

    if threads:
        torch.set_num_threads(threads)
    with stage_progress() as progress:
        world = add_members(load_world(name), members, progress=progress)
    typer.echo(f"world {world.name!r} in {world.path} has {1 + len(world.members)} networks")


@app.command()
def card(name: Name) -> None:
    """Print a world's fidelity card: what it was built from, what is fitted or assumed, held-out metrics."""
    from recgym.worlds.world import load_world

    _print_card(load_world(name).path)


@app.command()
def validate(
    name: Name,
    out: Annotated[
        Path | None, typer.Option(help="The card's directory. Default: runs/card-NAME.", show_default=False)
    ] = None,
    write: Annotated[bool, typer.Option("--write", help="Store the figures in the bundle and its card.")] = False,
) -> None:
    """Measure a world again on the held-out part of its log: card.md, card.json and figures.

    Prints the card, and every figure that is not the one in the bundle.
    """
    from dataclasses import replace

    import recgym.data
    from recgym.commands.progress import stage_progress
    from recgym.errors import WorldError
    from recgym.worlds.build import rewrite
    from recgym.worlds.card import check_card_directory, differences, render_card, write_card
    from recgym.worlds.parameters import behaviour_parameters
    from recgym.worlds.recipes import Recipe
    from recgym.worlds.validate import validate as measure
    from recgym.worlds.world import load_world

    world = load_world(name)
    directory = out or Path("runs") / f"card-{world.name}"
    check_card_directory(directory)
    dataset = world.spec.config.get("dataset")
    if dataset is None:
        raise WorldError(f"world {world.name!r} was not built from a log: there is nothing to measure it against")
    with stage_progress() as progress:
        progress("reading the log", 0.0)
        log = recgym.data.load(dataset)
        figures = measure(world, log, progress)
    kept = {key: value for key, value in world.spec.metrics.items() if key == "training"}
    parameters = behaviour_parameters(Recipe.model_validate(world.spec.config))
    spec = world.spec.model_copy(update={"metrics": {**kept, **figures}, "parameters": parameters})
    write_card(spec, directory)
    _print_markdown(render_card(spec))
    typer.echo(f"card: {directory / 'card.md'}")
    changed = differences(world.spec.metrics, spec.metrics)
    if not changed:
        typer.echo("every figure is the one in the bundle")
    else:
        typer.echo(f"{len(changed)} figures differ from the bundle's (bundle -> now):")
        for line in changed[:SHOWN]:
            typer.echo(f"  {line}")
        if len(changed) > SHOWN:
            typer.echo(f"  and {len(changed) - SHOWN} more")
    if write and spec != world.spec:
        rewrite(replace(world, spec=spec))
        typer.echo(f"written to {world.path}")


def _print_card(path: Path) -> None:
    _print_markdown((path / "card.md").read_text(encoding="utf-8"))


def _print_markdown(text: str) -> None:
    import sys

    from rich.console import Console
    from rich.markdown import Markdown

    if sys.stdout.isatty():
        Console().print(Markdown(text))
    else:
        typer.echo(text)
