"""``recgym world``: build worlds, print their cards, measure them again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from recgym.data.interactions import Interactions
    from recgym.worlds.world import World

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

    from recgym.commands.progress import stage_progress
    from recgym.worlds.build import rewrite
    from recgym.worlds.card import check_card_directory, differences, render_card, write_card
    from recgym.worlds.parameters import behaviour_parameters
    from recgym.worlds.recipes import Recipe
    from recgym.worlds.validate import validate as measure
    from recgym.worlds.world import load_world

    world = load_world(name)
    directory = out or Path("runs") / f"card-{world.name}"
    check_card_directory(directory)
    with stage_progress() as progress:
        log = _log(world, progress)
        figures = measure(world, log, progress)
    kept = {key: value for key, value in world.spec.metrics.items() if key in ("training", "ablations")}
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


@app.command()
def ablate(
    name: Name,
    out: Annotated[
        Path | None, typer.Option(help="The file of figures. Default: runs/ablations-NAME.json.", show_default=False)
    ] = None,
    users: Annotated[int, typer.Option(min=2, help="Users that each run is trained on.")] = 300,
    pretrain_epochs: Annotated[int, typer.Option(min=0, help="Epochs of pre-training.")] = 2,
    finetune_epochs: Annotated[int, typer.Option(min=1, help="Epochs of fine-tuning.")] = 2,
    seeds: Annotated[int, typer.Option(min=2, max=10, help="Seeds of each variant.")] = 3,
    variants: Annotated[
        str | None, typer.Option(help="Variants to train beside the full model, separated by commas. Default: all.")
    ] = None,
    write: Annotated[bool, typer.Option("--write", help="Store the figures in the bundle and its card.")] = False,
) -> None:
    """Train a world's model again without each of its parts, at one reduced budget, and compare.

    An interrupted ablation goes on with the next run.
    """
    import json
    from dataclasses import replace

    from recgym.commands.progress import stage_progress
    from recgym.worlds.ablations import VARIANTS, Budget
    from recgym.worlds.ablations import ablate as train_variants
    from recgym.worlds.build import rewrite
    from recgym.worlds.card import render_ablations
    from recgym.worlds.world import load_world

    world = load_world(name)
    names = VARIANTS if variants is None else [part.strip() for part in variants.split(",")]
    with stage_progress() as progress:
        log = _log(world, progress)
        figures = train_variants(
            world, log, Budget(users, pretrain_epochs, finetune_epochs, seeds=seeds), names, progress
        )
    file = out or Path("runs") / f"ablations-{world.name}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    _print_markdown(render_ablations(figures))
    typer.echo(f"figures: {file}")
    if write:
        metrics = {**world.spec.metrics, "ablations": figures}
        rewrite(replace(world, spec=world.spec.model_copy(update={"metrics": metrics})))
        typer.echo(f"written to {world.path}")


def _log(world: World, progress: Callable[[str, float], None]) -> Interactions:
    """The log that a world was built from.

    Raises:
        WorldError: it was built from none.
    """
    import recgym.data
    from recgym.errors import WorldError

    dataset = world.spec.config.get("dataset")
    if dataset is None:
        raise WorldError(f"world {world.name!r} was not built from a log: there is nothing to measure it against")
    progress("reading the log", 0.0)
    return recgym.data.load(dataset)


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
