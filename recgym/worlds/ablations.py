"""Ablations: what each part of the preference model is worth, by training without it at one reduced budget."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from recgym.data.interactions import Interactions
from recgym.errors import WorldError, unknown_name
from recgym.user_models.preference.config import ModelConfig
from recgym.user_models.preference.metrics import ranking_metrics
from recgym.user_models.preference.model import TrainingData
from recgym.user_models.preference.training import Trainer
from recgym.worlds import pointwise
from recgym.worlds.build import build_directory, item_texts, training_data
from recgym.worlds.prepare import prepare
from recgym.worlds.recipes import Recipe
from recgym.worlds.validate import require_log
from recgym.worlds.views import HeldOut
from recgym.worlds.world import World

Progress = Callable[[str, float], None]
Changes = dict[str, Any]  # of a recipe, nested as it is

FULL = "full model"
# What is trained: the parts left out, and what might be added. A new choice of the recipe is a line here.
VARIANTS: dict[str, Changes] = {
    FULL: {},
    "without text": {"model": {"without": ["text"]}},
    "without graph": {"model": {"without": ["graph"]}},
    "without sequence": {"model": {"without": ["sequence"]}},
    "without repeat head": {"model": {"without": ["repeat"]}},
    "without pre-training": {"model": {"training": {"pretrain_epochs": 0}}},
    "with text frozen": {"tuning": {"method": "frozen"}},
    "with text tuned by LoRA": {"tuning": {"method": "lora"}},
    "with masked items in pre-training": {"model": {"training": {"masked_item": 0.5}}},
    "with contrastive pre-training": {"model": {"training": {"contrastive": 0.1}}},
    "with co-purchase edges": {"model": {"graph": {"relations": ["co_purchase"]}}},
}
# Of each measure: label, digits, whether more of it is better.
MEASURES = {"ndcg@10": ("NDCG@10", 4, True), "log_loss": ("log loss", 2, False), "auc": ("AUC", 4, True)}
_TRAINING = ("pretrain_epochs", "finetune_epochs", "batch_segments")  # of a budget
STUDENT = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}  # 97.5% quantiles


class Budget(NamedTuple):
    """What every run of an ablation gets."""

    users: int = 300
    pretrain_epochs: int = 2
    finetune_epochs: int = 2
    batch_segments: int = 4  # small batches: a few users make steps enough
    seeds: int = 3


def ablate(
    world: World,
    log: Interactions,
    budget: Budget | None = None,
    names: Iterable[str] = VARIANTS,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Trains the full model and each variant with every seed on a sample of the users, and compares them.

    Each finished run is kept under ``$RECGYM_HOME/builds``: an interrupted ablation goes on with the next one.

    Args:
        world: whose recipe is varied.
        log: that it was built from.
        budget: of a run.
        names: of ``VARIANTS``; the full model is always trained.
        progress: called with what is under way and the share done.

    Returns:
        JSON values: the budget, the variants that the full model already is, a row for each of the others (see
        ``compare``) and what was found, in sentences.

    Raises:
        WorldError: the log is another one, there are too few or too many seeds, or too few users.
        UnknownNameError: there is no such variant.
    """
    report, budget = progress or (lambda what, share: None), budget or Budget()
    require_log(world, log)
    names = list(names)
    for name in names:
        if name not in VARIANTS:
            raise unknown_name("ablation", name, VARIANTS)
    recipe = Recipe.model_validate(world.spec.config)
    chosen = [FULL, *(name for name in names if name != FULL and recipe.changed(VARIANTS[name]) != recipe)]
    if not 2 <= budget.seeds <= len(STUDENT) + 1:
        raise WorldError(f"an interval needs 2 to {len(STUDENT) + 1} seeds, got {budget.seeds}")
    prepared = prepare(log, recipe)
    if not 2 <= budget.users <= prepared.trips.num_users:
        raise WorldError(f"the log has {prepared.trips.num_users} users to draw from, not {budget.users}")
    reduced = recipe.changed(_reduction(budget))
    directory = build_directory(reduced, log, f"ablations-{budget.users}")
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in chosen}
    total = len(chosen) * budget.seeds
    for number in range(total):
        seed, place = divmod(number, len(chosen))  # seed by seed: what is there early compares all variants
        variant = chosen[place]
        changes = VARIANTS[variant]
        report(f"{variant}, seed {seed}", number / total)
        file = directory / f"{_key(changes)}-{seed}.json"
        if not file.is_file():
            varied = reduced.changed(changes)
            tuned = directory / f"text-{_key(varied.tuning.model_dump(mode='json'))}"  # one for all seeds
            text, _ = item_texts(prepared, varied, tuned, report)
            data = sample(training_data(prepared, varied, text), budget.users)
            _write(file, run(data, varied.model, seed, file.with_suffix("")))
        runs[variant].append(json.loads(file.read_text(encoding="utf-8")))
    report("ablations", 1.0)
    rows = compare(runs)
    same = [name for name in names if name not in chosen]
    items = prepared.trips.num_items
    return {**budget._asdict(), "items": items, "same": same, "rows": rows, "findings": findings(rows)}


def run(data: TrainingData, config: ModelConfig, seed: int, directory: Path) -> dict[str, float]:
    """Trains one model; NDCG@10 of its best epoch on validation trips, log loss and AUC on each user's last trip."""
    started = time.process_time()
    trainer = Trainer(data, config, seed, directory)
    trainer.run()
    seconds = time.process_time() - started
    targets = np.flatnonzero(data.trips.trip_user_remaining == 0)
    logits = trainer.catalogue_logits(targets)
    held = HeldOut.of(data.trips, targets)
    area = pointwise.areas(logits, held, data.trips.num_items, seed=0)["uniform"]["model"]
    shutil.rmtree(directory)
    return {
        "ndcg@10": max(float(row["ndcg@10"]) for row in trainer.history if row["stage"] == "finetune"),
        "log_loss": ranking_metrics(logits, data.trips, targets)["log_loss"],
        "auc": float(area.mean()),
        "seconds": seconds,
    }


def sample(data: TrainingData, count: int) -> TrainingData:
    """The data of ``count`` users, always the same ones; what is known of the items stays that of the whole log."""
    users = np.sort(np.random.default_rng(0).permutation(data.trips.num_users)[:count])
    return replace(
        data, trips=data.trips.of_users(users), user_attributes=data.user_attributes[torch.from_numpy(users)]
    )


def compare(runs: dict[str, list[dict[str, float]]]) -> list[dict[str, Any]]:
    """A row a variant: each measure's mean and 95% interval over seeds, and its difference to the full model's.

    Differences are paired by seed; the intervals are Student's.
    """
    rows = []
    for name, found in runs.items():
        row: dict[str, Any] = {"name": name, "seconds": round(float(np.mean([r["seconds"] for r in found])), 1)}
        for measure in MEASURES:
            values, full = (np.array([r[measure] for r in part]) for part in (found, runs[FULL]))
            row[measure] = _interval(values)
            if name != FULL:
                row[f"{measure} above full"] = _interval(values - full)
        rows.append(row)
    return rows


def findings(rows: list[dict[str, Any]]) -> list[str]:
    """What the table says, a sentence a variant: which measures a part improves, which it worsens, which neither.

    Each with the mean improvement and its interval: above zero is better, for the log loss too.
    """
    told = []
    for row in rows:
        if row["name"] == FULL:
            continue
        kind, _, part = row["name"].partition(" ")
        found: dict[str, list[str]] = {"improves": [], "worsens": [], "no effect shown on": []}
        for measure, (label, digits, higher_is_better) in MEASURES.items():
            value, low, high = row[f"{measure} above full"]
            # Of a part that is left out, the loss is what it is worth.
            if higher_is_better == (kind == "without"):
                value, low, high = -value, -high, -low
            verdict = "improves" if low > 0 else "worsens" if high < 0 else "no effect shown on"
            found[verdict].append(f"{label} ({value:+.{digits}f} [{low:+.{digits}f}, {high:+.{digits}f}])")
        said = "; ".join(f"{verdict} {', '.join(names)}" for verdict, names in found.items() if names)
        told.append(f"{part[0].upper()}{part[1:]}: {said}.")
    return told


def _interval(values: np.ndarray) -> list[float]:
    """The mean of values [n] and its 95% interval (Student's)."""
    mean = float(values.mean())
    half = STUDENT[len(values) - 1] * float(values.std(ddof=1)) / math.sqrt(len(values))
    return [round(mean, 5), round(mean - half, 5), round(mean + half, 5)]


def _reduction(budget: Budget) -> Changes:
    """What the reduced budget changes of a recipe."""
    training = budget._asdict()
    return {"model": {"training": {name: training[name] for name in _TRAINING}}}


def _key(changes: Changes) -> str:
    return hashlib.sha256(json.dumps(changes, sort_keys=True).encode()).hexdigest()[:8]


def _write(path: Path, values: dict[str, float]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(values), encoding="utf-8")
    partial.rename(path)
