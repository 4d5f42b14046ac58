"""From the options of ``recgym world build --from`` to a recipe and its log."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import typer

from recgym.data import load
from recgym.data.interactions import Interactions
from recgym.data.own import NOT_STATED, LogFiles, load_files, parse_mapping
from recgym.errors import RecGymError
from recgym.registration import DATASETS
from recgym.worlds.recipes import Recipe, own_recipe


def refuse(options: dict[str, Any], why: str, *, besides: tuple[str, ...] = ()) -> None:
    """Refuses what was given of ``options``, besides some: what would not be read must not be given in good faith.

    Raises:
        RecGymError: naming the options to leave out.
    """
    given = [key for key, value in options.items() if value not in (None, "", NOT_STATED) and key not in besides]
    if given:
        told = ", ".join(f"--{'map' if key == 'mapping' else key.replace('_', '-')}" for key in given)
        raise RecGymError(f"{why}: leave out {told}")


def own_log(
    name: str | None, source: Path, options: dict[str, Any], changes: dict[str, Any]
) -> tuple[Recipe, Interactions]:
    """The recipe and the log; prints what was read, with checksums, licence and citation.

    Args:
        name: of the world.
        source: the log's file or directory, or the name of a data set that can be fetched.
        options: mapping and text as given on the command line, and further fields of ``LogFiles``.
        changes: fields of the recipe.

    Raises:
        RecGymError: the name is missing or no plain word, or an option is given that this kind of log does not read.
        DataError: the log cannot be read.
    """
    if name is None or not re.fullmatch(r"[A-Za-z0-9][\w.\-]*", name):
        raise RecGymError(f"--from needs --name, a word of letters, digits, '-', '_' and '.', got {name!r}")
    if not source.exists() and str(source) in DATASETS.names():
        return _named_log(name, str(source), options, changes)
    if options["layout"] is not None:
        why = f"--layout {options['layout']} says what its files and columns mean"
        refuse(options, why, besides=("layout", "max_users"))
    elif source.suffix == ".inter":
        items = {key: options[key] for key in ("items", "text")}
        refuse(items, f"the items of {source.name} are read from {source.with_suffix('.item').name} beside it")
    elif options["text"] and not options["items"]:
        raise RecGymError("--text names columns of --items: give the table of items, or leave out --text")
    words = tuple(column.strip() for column in options["text"].split(",") if column.strip())
    mapping = parse_mapping(options["mapping"]) if options["mapping"] else {}
    read = {**options, "mapping": mapping, "text": words, "items": options["items"] and str(options["items"])}
    files = LogFiles(path=str(source), **read).hashed()
    log = load_files(files, name)
    log.describe()
    for file, digest in files.sha256.items():
        typer.echo(f"sha256 {digest}  {file}")
    return own_recipe(name, files, log, **changes), log


def _named_log(
    name: str, dataset: str, options: dict[str, Any], changes: dict[str, Any]
) -> tuple[Recipe, Interactions]:
    """The same from a data set of ``recgym list datasets``, fetched where it is not there yet."""
    refuse(options, f"--from {dataset} is a data set that RecGym reads by itself")
    log = load(dataset)
    log.describe()
    for file, digest in log.source.files.items():
        typer.echo(f"sha256 {digest}  {file}")
    recipe = own_recipe(name, None, log, **changes)
    return recipe.changed({"dataset": dataset, "title": f"{name}, fitted on {dataset}"}), log


def recipe_changes(settings: dict[str, object]) -> dict[str, Any]:
    """Settings by their places in a recipe: those with the name of one of its fields, and the model's."""
    found = nested(settings)
    changes = {key: found.pop(key) for key in list(found) if key in Recipe.model_fields}
    return {**changes, "model": {**changes.get("model", {}), **found}} if found else changes


def nested(settings: dict[str, object]) -> dict[str, Any]:
    """``{"training.patience": 3}`` as ``{"training": {"patience": 3}}``."""
    out: dict[str, Any] = {}
    for key, value in settings.items():
        place = out
        *parents, last = key.split(".")
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = value
    return out
