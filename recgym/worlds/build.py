"""Builds a world: log, trips, text, training, export, validation; resumable at every epoch."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import json
import platform
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState

from recgym.data.interactions import Interactions
from recgym.paths import recgym_home
from recgym.user_models.preference.attributes import attribute_columns, item_attributes, item_statistics
from recgym.user_models.preference.checkpoint import VERSION
from recgym.user_models.preference.evening import Evening
from recgym.user_models.preference.exposures import fit_lift
from recgym.user_models.preference.graph import Knowledge
from recgym.user_models.preference.model import PreferenceModel, TrainingData
from recgym.user_models.preference.text import encode_texts
from recgym.user_models.preference.text_tuning import tuned_encoder
from recgym.user_models.preference.training import LONGEST_WAIT, Trainer
from recgym.worlds.bundle import check_bundle_directory, write_bundle
from recgym.worlds.card import card_files
from recgym.worlds.parameters import behaviour_parameters
from recgym.worlds.prepare import Prepared, prepare
from recgym.worlds.recipes import Recipe
from recgym.worlds.spec import FORMAT_VERSION, Parameter, WorldSpec
from recgym.worlds.unseen import Neighbours
from recgym.worlds.userside import user_side
from recgym.worlds.validate import satisfaction_reference, validate
from recgym.worlds.world import World, load_world, worlds_home

Progress = Callable[[str, float], None]
PCA_WIDTH = 16
LIFT = "lift that the log's exposures show; scenarios set theirs"
PACKAGES = ("torch", "torch-geometric", "transformers", "numpy", "pandas")


def build_world(
    recipe: Recipe, out: Path | None = None, log: Interactions | None = None, progress: Progress | None = None
) -> World:
    """Builds the world of ``recipe`` and returns it, loaded.

    Checkpoints lie under ``$RECGYM_HOME/builds``, by recipe and log: a build that was interrupted goes on from its
    last epoch, and a finished one is exported again without training.

    Args:
        recipe: what to build.
        out: the bundle's directory; ``$RECGYM_HOME/worlds/NAME`` where None.
        log: the log; the recipe's data set where None.
        progress: called with what is under way and the share done of it.

    Raises:
        WorldError: ``out`` holds something else. DataError: the log cannot be used. DivergedError: training met a
            loss that is not finite.
    """
    report = progress or (lambda what, share: None)
    target = out if out is not None else worlds_home() / recipe.name
    check_bundle_directory(target)
    report("reading the log", 0.0)
    processes = PartialState(cpu=True, timeout=LONGEST_WAIT)
    with processes.main_process_first():  # of several processes one fetches, tunes and encodes for all
        log = recipe.log() if log is None else log
        prepared = prepare(log, recipe)
        directory = build_directory(recipe, log)
        text, unseen_text = item_texts(prepared, recipe, directory / "text", report)
    data = training_data(prepared, recipe, text)
    trainer = Trainer(data, recipe.model, recipe.seed, directory, report)
    model = trainer.run()
    if not trainer.main:  # of several processes one exports and measures
        trainer.wait()
        return load_world(target)
    (directory / "history.json").write_text(json.dumps(trainer.history, indent=1), encoding="utf-8")
    report("exporting", 0.0)
    staging = directory / "bundle"  # nobody finds a world that is not measured, and the one of before stays meanwhile
    world = _measure(_export(staging, recipe, log, prepared, text, unseen_text, data, trainer, model), log, report)
    world = rewrite(replace(world, path=target))
    shutil.rmtree(staging)
    trainer.wait()
    return world


def item_texts(
    prepared: Prepared, recipe: Recipe, directory: Path, report: Progress
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Text embeddings of the items [N, width] and of those held out of all training, by the recipe's encoder.

    Where the recipe tunes the encoder, ``directory`` holds what that leaves behind.
    """
    texts = prepared.items["text"].tolist()
    encoder = tuned_encoder(
        *(texts, prepared.trips, recipe.encoder, recipe.tuning, recipe.seed, directory),
        pooling=recipe.pooling,
        progress=report,
    )
    encode = functools.partial(
        encode_texts,
        encoder=encoder,
        pooling=recipe.pooling,
        progress=lambda done, of: report("encoding texts", done / of),
    )
    known, unseen = encode(texts), None if prepared.unseen is None else encode(prepared.unseen.items["text"].tolist())
    if unseen is not None and unseen.shape[1] != known.shape[1]:  # one of the two holds no text at all
        unseen = known.new_zeros((len(unseen), known.shape[1]))
    if recipe.text_components is None:
        return known, unseen
    even = Evening.of(known, recipe.text_components)
    return even(known), None if unseen is None else even(unseen)


def build_directory(recipe: Recipe, log: Interactions, purpose: str = "") -> Path:
    """Where the checkpoints of a build lie, or of another ``purpose`` that trains by the recipe.

    Those of another version lie elsewhere: what was begun with them begins anew.
    """
    digest = hashlib.sha256(f"{VERSION}{recipe.model_dump_json()}{log.hash}".encode()).hexdigest()[:12]
    return recgym_home() / "builds" / "-".join(filter(None, (recipe.name, purpose, digest)))


def training_data(prepared: Prepared, recipe: Recipe, text: torch.Tensor) -> TrainingData:
    """The features that training reads."""
    knowledge = None
    if "knowledge" in recipe.model.graph.relations:
        knowledge = Knowledge.of(recipe.knowledge(), prepared.items["item_id"].tolist())
    levels = {name: tuple(binning.levels) for name, binning in recipe.attributes.items()}
    return TrainingData(
        trips=prepared.trips,
        text=text,
        item_attributes=item_attributes(prepared.items),
        user_attributes=attribute_columns(prepared.users, levels),
        item_statistics=item_statistics(prepared.items),
        ratings=recipe.kind == "rating",
        knowledge=knowledge,
    )


@torch.no_grad()
def _export(
    target: Path,
    recipe: Recipe,
    log: Interactions,
    prepared: Prepared,
    text: torch.Tensor,
    unseen_text: torch.Tensor | None,
    data: TrainingData,
    trainer: Trainer,
    model: PreferenceModel,
) -> World:
    model.eval()
    vectors, graph = trainer.item_tables()
    graph = graph.half().float()  # users fold in from the table that ships
    tensors, columns = user_side(prepared.trips, model.network, graph, recipe.model.graph.half_life_days, recipe.seed)
    users = prepared.users.assign(user_id=[str(i) for i in range(len(prepared.users))]).join(columns)
    pca = text_pca(text)
    summary = log.summary()
    lift, told = _lift(trainer, recipe)
    spec = WorldSpec(
        format_version=FORMAT_VERSION,
        name=recipe.name,
        title=recipe.title,
        kind=recipe.kind,
        responses=("watch", "rating") if recipe.kind == "rating" else ("purchase", "quantity"),
        reward="liked" if recipe.kind == "rating" else "purchase",
        currency=recipe.currency,
        num_users=prepared.trips.num_users,
        num_items=prepared.trips.num_items,
        attributes={name: tuple(binning.levels) for name, binning in recipe.attributes.items()},
        data={
            "name": log.name,
            "hash": log.hash,
            "source": summary["source"],
            "events": len(prepared.trips.item),
            "trips": len(prepared.trips.trip_user),
            "first_day": prepared.first_day,
            "time_origin": log.time_origin,
            "filters": [{"reason": f.reason, "count": f.count, "detail": f.detail} for f in prepared.filters],
        },
        config=recipe.model_dump(mode="json"),
        seeds={"build": recipe.seed},
        versions=_versions(),
        parameters=(*behaviour_parameters(recipe), *told),
        behaviour={"satisfaction_reference": 0.5, **lift},
        metrics={"training": _training_summary(trainer.history)},
        files={},
    )
    items = prepared.items.drop(columns="text")
    weights = {name: value.detach().clone() for name, value in model.network.state_dict().items()}
    tables = {"vectors": vectors, "text_pca": pca, "graph": graph}
    if unseen_text is not None:
        tables |= Neighbours.of(unseen_text, text).tensors()
    write_bundle(target, spec, items, users, tables, tensors, weights, card_files(spec))
    return load_world(target)


def text_pca(text: torch.Tensor) -> torch.Tensor:
    """What agents see of text embeddings [N, width]: ``PCA_WIDTH`` principal components of spread 0.33, [N, 16].

    Where texts have fewer, the rest is zero.
    """
    parts = text - text.mean(0)
    _, _, basis = torch.linalg.svd(parts, full_matrices=False)
    basis = basis[:PCA_WIDTH] * torch.sign(basis.gather(1, basis.abs().argmax(1, keepdim=True)))[:PCA_WIDTH]
    pca = parts @ basis.T
    pca = pca / pca.std(0, correction=min(1, len(text) - 1)).clamp(min=1e-6) * 0.33
    return torch.nn.functional.pad(pca, (0, PCA_WIDTH - pca.shape[1]))


def _lift(trainer: Trainer, recipe: Recipe) -> tuple[dict[str, float], tuple[Parameter, ...]]:
    """The lift as fitted on what was shown on the trips that calibrated q, and what the card says of it.

    Both are empty for a log without exposures; where the lift cannot be told, the card says so.
    """
    trips = trainer.data.trips
    if trips.exposures is None:
        return {}, ()
    targets = np.flatnonzero(trips.trip_user_remaining == 1)
    row, item, examined = trips.exposures.of(targets)
    logit = trainer.catalogue_logits(targets)[torch.from_numpy(row), torch.from_numpy(item)].double().numpy()
    keys = trips.trip * trips.num_items + trips.item
    bought = np.isin(targets[row] * trips.num_items + item, keys)
    found = fit_lift(logit, examined, bought)
    pairs = f"log {recipe.dataset!r}: likelihood of {len(row)} shown pairs"
    if found is None:
        said = f"{pairs}, {int(bought.sum())} of them bought, which has no maximum"
        return {}, (Parameter(name=LIFT, status="assumed", value="not identified", evidence=said),)
    lift, error = found
    return {"lift": round(lift, 3)}, (
        Parameter(
            name=LIFT,
            status="fitted",
            value=f"{lift:.3f}",
            evidence=f"{pairs}, standard error {error:.3f}, given that position p is examined with chance "
            f"{recipe.examination_decay} ** p",
        ),
    )


def _measure(world: World, log: Interactions, report: Progress) -> World:
    """Measures what ships, and writes the figures into the bundle."""
    report("measuring satisfaction under the reference policy", 0.0)
    behaviour = {**world.spec.behaviour, "satisfaction_reference": satisfaction_reference(world)}
    world = rewrite(replace(world, spec=world.spec.model_copy(update={"behaviour": behaviour})))
    metrics = {**world.spec.metrics, **validate(world, log, report)}
    return rewrite(replace(world, spec=world.spec.model_copy(update={"metrics": metrics})))


def rewrite(world: World) -> World:
    """Writes a world's bundle again after its spec changed, with its card."""
    write_bundle(
        world.path,
        world.spec,
        world.items,
        world.users,
        world.item_tensors,
        world.user_tensors,
        world.weights,
        card_files(world.spec),
        world.members,
    )
    return load_world(world.path)


def _versions() -> dict[str, str]:
    found = {name: importlib.metadata.version(name).split("+")[0] for name in PACKAGES}
    return {"recgym": importlib.metadata.version("recgym"), "python": platform.python_version(), **found}


def _training_summary(history: list[dict[str, Any]]) -> dict[str, Any]:
    """Epochs, seconds and the best validation NDCG@10 of each stage."""
    out: dict[str, Any] = {}
    for stage in ("pretrain", "finetune"):
        rows = [row for row in history if row["stage"] == stage]
        if rows:
            best = max(rows, key=lambda row: row["ndcg@10"])  # the first of the highest, as the training keeps it
            out[stage] = {
                "epochs": len(rows),
                "seconds": round(float(np.sum([row["seconds"] for row in rows])), 1),
                "best_epoch": best["epoch"],
                "validation_ndcg@10": round(best["ndcg@10"], 4),
            }
    return out
