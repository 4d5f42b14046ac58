"""From the options of ``recgym world build --from`` to a recipe and its log."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import typer

from recgym.data import load
from recgym.data.interactions import Interactions
from recgym.data.own import LogFiles, load_files, parse_mapping
from recgym.errors import RecGymError
from recgym.registration import DATASETS
from recgym.worlds.recipes import Recipe, own_recipe


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
        RecGymError: the name is missing or no plain word, or a data set comes with options for files.
        DataError: the log cannot be read.
    """
    if name is None or not re.fullmatch(r"[A-Za-z0-9][\w.\-]*", name):
        raise RecGymError(f"--from needs --name, a word of letters, digits, '-', '_' and '.', got {name!r}")
    if not source.exists() and str(source) in DATASETS.names():
        return _named_log(name, str(source), options, changes)
    words = tuple(column.strip() for column in options.pop("text").split(",") if column.strip())
    given = options.pop("mapping")
    mapping = parse_mapping(given) if given else {}
    items = options.pop("items")
    files = LogFiles(path=str(source), mapping=mapping, text=words, items=items and str(items), **options).hashed()
    log = load_files(files, name)
    log.describe()
    for file, digest in files.sha256.items():
        typer.echo(f"sha256 {digest}  {file}")
    return own_recipe(name, files, log, **changes), log


def _named_log(
    name: str, dataset: str, options: dict[str, Any], changes: dict[str, Any]
) -> tuple[Recipe, Interactions]:
    """The same from a data set of ``recgym list datasets``, fetched where it is not there yet."""
    defaults = LogFiles(path=dataset)
    given = [key for key, value in options.items() if value and value != getattr(defaults, key, None)]
    if given:
        told = ", ".join(f"--{'map' if key == 'mapping' else key.replace('_', '-')}" for key in given)
        raise RecGymError(f"--from {dataset} is a data set that RecGym reads by itself: leave out {told}")
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
