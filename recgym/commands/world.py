"""``recgym world``: build worlds, print their cards, measure them again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from recgym.user_models.preference.config import Method

if TYPE_CHECKING:
    from recgym.data.interactions import Interactions
    from recgym.worlds.world import World

app = typer.Typer(help="Build worlds, print their fidelity cards, measure them again.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="NAME", help="A world of `recgym list worlds`, or a bundle directory.")]


SHOWN = 20  # differing figures that `validate` prints


@app.command()
def build(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="A recipe of `recgym list worlds`.", show_default=False)
    ] = None,
    source: Annotated[
        Path | None,
        typer.Option(
            "--from",
            help="Your own log: .csv, .tsv, .parquet, .jsonl, .inter, .zip; or a data set's name.",
            show_default=False,
        ),
    ] = None,
    mapping: Annotated[
        str, typer.Option("--map", help="KEY=COLUMN,...: schema names (user, item, time, quantity ...) to columns.")
    ] = "",
    items: Annotated[Path | None, typer.Option(help="A table of items.", show_default=False)] = None,
    text: Annotated[str, typer.Option(help="Columns of --items that make an item's text, as title,description.")] = "",
    layout: Annotated[
        str | None, typer.Option(help="--from is a directory laid out as this published data set.", show_default=False)
    ] = None,
    own_name: Annotated[
        str | None, typer.Option("--name", help="Name of the world from --from.", show_default=False)
    ] = None,
    time_unit: Annotated[
        str | None, typer.Option(help="Unit of numeric times: D, s, ms ...", show_default="by their size")
    ] = None,
    time_format: Annotated[
        str | None, typer.Option(help="How text times are written, as %d/%m/%Y.", show_default="ISO 8601, or as found")
    ] = None,
    max_users: Annotated[
        int | None, typer.Option(min=1, help="Read so many users of a large log.", show_default="all")
    ] = None,
    min_item_users: Annotated[
        int | None, typer.Option(min=1, help="Leave out items of fewer users.", show_default="5 with --from")
    ] = None,
    min_user_trips: Annotated[
        int | None, typer.Option(min=4, help="Leave out users of fewer trips.", show_default="5 with --from")
    ] = None,
    currency: Annotated[str | None, typer.Option(help="Of prices, such as EUR.", show_default=False)] = None,
    licence: Annotated[str, typer.Option(help="Licence of your log, for the card.")] = "not stated",
    citation: Annotated[str, typer.Option(help="Citation of your log, for the card.")] = "not stated",
    config: Annotated[
        list[str] | None,
        typer.Option(
            help="A setting of the model or of the recipe, such as training.pretrain_epochs=4, tuning.steps=400 or "
            "text_components=256; several times if need be."
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The bundle's directory. Default: $RECGYM_HOME/worlds/NAME.", show_default=False)
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the build.")] = 0,
    held_out_items: Annotated[
        float,
        typer.Option(min=0, max=0.5, help="Share of the items kept out of training, to be measured. Needs --out."),
    ] = 0.0,
    encoder: Annotated[
        str | None, typer.Option(help="A Hugging Face encoder or decoder: name or path. Default: the recipe's.")
    ] = None,
    tuning: Annotated[
        Method | None, typer.Option(help="What of the encoder is tuned on first purchases. Default: the recipe's.")
    ] = None,
    threads: Annotated[int, typer.Option(min=0, help="Torch threads; 0 leaves torch's default.")] = 0,
) -> None:
    """Build a world from real data: log, text and graph features, pre-training, fine-tuning, validation.

    Of a recipe by NAME, or of your own log: --from FILE --map user=...,item=...,time=... --name shop.
    An interrupted build goes on from its last epoch.
    """
    import torch

    from recgym.commands.own import own_log, recipe_changes, refuse
    from recgym.commands.progress import stage_progress
    from recgym.commands.settings import parse_settings
    from recgym.errors import RecGymError
    from recgym.registration import WORLDS
    from recgym.worlds.build import build_world
    from recgym.worlds.recipes import Recipe

    if held_out_items and out is None:
        raise typer.BadParameter("a world without some of its items is no replacement for the whole one: give --out")
    filters: dict[str, Any] = {"min_item_users": min_item_users, "min_user_trips": min_user_trips, "currency": currency}
    filters |= {"held_out_items": held_out_items or None, "encoder": encoder}
    changes: dict[str, Any] = {key: value for key, value in filters.items() if value is not None}
    changes |= {"seed": seed} | recipe_changes(parse_settings(config or []))
    if tuning:
        changes["tuning"] = {**changes.get("tuning", {}), "method": tuning}
    log = None
    options: dict[str, Any] = {"mapping": mapping, "items": items, "text": text, "layout": layout}
    options |= {"time_unit": time_unit, "time_format": time_format, "max_users": max_users}
    options |= {"licence": licence, "citation": citation}
    if source is not None:
        if name is not None and own_name is not None:
            raise RecGymError(f"a log has no recipe: leave out {name!r}, or --name {own_name}")
        recipe, log = own_log(own_name or name, source, options, changes)
    elif name is None:
        raise RecGymError("name a recipe of `recgym list worlds`, or a log with --from and --name")
    else:
        base: Recipe = WORLDS.load(name)()
        refuse({"name": own_name, **options}, f"{name} is a recipe with a log of its own, and there is no --from")
        recipe = base.changed(changes)
    if threads:
        torch.set_num_threads(threads)
    with stage_progress() as progress:
        world = build_world(recipe, out=out, log=log, progress=progress)
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
    from recgym.worlds.bundle import check_bundle_directory
    from recgym.worlds.card import check_card_directory, differences, render_card, write_card
    from recgym.worlds.parameters import behaviour_parameters
    from recgym.worlds.recipes import Recipe
    from recgym.worlds.validate import validate as measure
    from recgym.worlds.world import load_world

    world = load_world(name)
    directory = out or Path("runs") / f"card-{world.name}"
    check_card_directory(directory)
    if write:
        check_bundle_directory(world.path)
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
    from recgym.errors import WorldError
    from recgym.worlds.recipes import Recipe

    if world.spec.config.get("dataset") is None:
        raise WorldError(f"world {world.name!r} was not built from a log: there is nothing to measure it against")
    progress("reading the log", 0.0)
    return Recipe.model_validate(world.spec.config).log()


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
