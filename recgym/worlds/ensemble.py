"""An ensemble: further networks for a built world, on the item table that it ships."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from recgym.data.interactions import Interactions
from recgym.errors import WorldError
from recgym.user_models.preference.checkpoint import digest
from recgym.user_models.preference.training import Trainer
from recgym.worlds.build import build_directory, item_texts, rewrite, training_data
from recgym.worlds.bundle import check_bundle_directory
from recgym.worlds.prepare import prepare
from recgym.worlds.recipes import Recipe
from recgym.worlds.validate import require_log
from recgym.worlds.world import World

Progress = Callable[[str, float], None]


def add_members(world: World, count: int, log: Interactions | None = None, progress: Progress | None = None) -> World:
    """Trains networks until ``world`` has ``count`` in all and writes them into its bundle; returns it, loaded again.

    A member has its own seed, learns from the same log and takes the item vectors and graph embeddings that ship:
    an ensemble shares one item table. Training is resumable as that of the world is.

    Raises:
        WorldError: ``count`` is below 2, the log is not the one that the world was built from, or other files lie in
            the bundle's directory.
    """
    if count < 2:
        raise WorldError(f"an ensemble has at least 2 members, got {count}")
    check_bundle_directory(world.path)
    report = progress or (lambda what, share: None)
    recipe = Recipe.model_validate(world.spec.config)
    log = recipe.log() if log is None else log
    require_log(world, log)
    prepared = prepare(log, recipe)
    text, _ = item_texts(prepared, recipe, build_directory(recipe, log) / "text", report)
    data = training_data(prepared, recipe, text)
    tables = world.item_tensors["vectors"], world.item_tensors["graph"]
    members = list(world.members[: count - 1])
    while len(members) < count - 1:
        number = len(members) + 1

        def told(what: str, share: float, number: int = number) -> None:
            report(f"member {number + 1} of {count}: {what}", share)

        directory = build_directory(recipe, log) / f"member-{number}-{digest(*tables)}"
        trainer = Trainer(data, recipe.model, recipe.seed + number, directory, told, tables)
        network = trainer.run().network
        members.append({name: value.detach().clone() for name, value in network.state_dict().items()})
    return rewrite(replace(world, members=tuple(members)))
