"""Items that no training has met, told by their text alone: is a household's next new product among them known?

python benchmarks/cold_items.py --tuning frozen lora --seeds 0 1 --work runs/cold --out runs/cold.json

A tenth of the items (those the seed draws) is removed before anything is trained: text encoder, graph and preference
model. A household's positives are what it bought of them at any time; its negatives are others of them, sampled
uniformly or by popularity. Each kind of text encoder (frozen; tuned with LoRA; tuned as a whole) trains its own
preference model, on the same budget, the same seed and the same households, so that their AUCs are paired.

Four scorers. ``text`` is the preference model by text alone: the mean of its q over the known items with the nearest
texts (``recgym.worlds.unseen.Neighbours``). ``encoder`` is q of the vector that the model's item encoder makes of the
item's text, category, brand, price and discount. Two know no preference model: ``nearest`` is the mean of the three
highest cosines of the item's text with texts of what the household bought in training, ``similarity`` the cosine with
the mean of those. Households stand before their last trip. How many neighbours there are and how their weights fall was
chosen on the items of seed 1; nothing else was chosen on these figures.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

import recgym.data
from recgym.benchmark.options import at_least, share
from recgym.data.interactions import Interactions
from recgym.errors import RecGymError
from recgym.evaluation.statistics import mean
from recgym.user_models.preference.attributes import new_item_attributes
from recgym.user_models.preference.config import Method, TuningConfig
from recgym.user_models.preference.network import TREND_DAYS
from recgym.user_models.preference.scoring import OwnHistory, score_catalogue
from recgym.user_models.preference.training import Trainer, fold_in
from recgym.worlds.build import item_texts, training_data
from recgym.worlds.pointwise import numbers
from recgym.worlds.prepare import Prepared, prepare, training_part
from recgym.worlds.recipes import Recipe, ecommerce
from recgym.worlds.unseen import Neighbours, unseen_areas

NEGATIVES = ("uniform", "popularity")


@dataclass(frozen=True, eq=False)
class Arm:
    """One kind of encoder with one seed."""

    users: np.ndarray  # [R] households that were measured
    areas: dict[tuple[str, str], np.ndarray]  # (scorer, negatives) -> AUC of each household [R]
    validation: float  # NDCG@10 on the validation trips
    seconds: dict[str, float]


def measure(log: Interactions, recipe: Recipe, directory: Path) -> Arm:
    """Trains the text encoder and the preference model, and scores the removed items."""
    prepared, last = prepare(log, recipe), ""

    def report(what: str, share: float) -> None:
        nonlocal last
        if what != last or share >= 1:
            print(f"seed {recipe.seed}, {recipe.tuning.method}: {what}: {share:.0%}", file=sys.stderr, flush=True)
            last = what

    started = time.perf_counter()
    text, unseen_text = item_texts(prepared, recipe, directory / "text", report)
    encoded = time.perf_counter()
    assert prepared.unseen is not None and unseen_text is not None
    trainer = Trainer(training_data(prepared, recipe, text), recipe.model, recipe.seed, directory / "model", report)
    trainer.run()
    trained = time.perf_counter()
    targets = np.flatnonzero(prepared.trips.trip_user_remaining == 0)
    users = prepared.trips.trip_user[targets]
    scores = {
        "text": Neighbours.of(unseen_text, text).logits(trainer.catalogue_logits(targets)),
        "encoder": encoded_logits(trainer, prepared, unseen_text, targets),
        "nearest": nearest(prepared, text, unseen_text)[users],
        "similarity": similarity(prepared, text, unseen_text, recipe.model.graph.half_life_days)[users],
    }
    areas = {}
    for name, of_items in scores.items():
        measured, found = unseen_areas(of_items, users, prepared.unseen, recipe.seed)
        areas |= {(name, negatives): found[negatives] for negatives in NEGATIVES}
    seconds = {"text": round(encoded - started, 1), "model": round(trained - encoded, 1)}
    return Arm(measured, areas, trainer.evaluate()["ndcg@10"], seconds)


@torch.no_grad()
def encoded_logits(trainer: Trainer, prepared: Prepared, unseen_text: Tensor, targets: np.ndarray) -> Tensor:
    """Logits of q [P, M] by the vectors that the item encoder makes of the removed items."""
    assert prepared.unseen is not None
    _, moments, _, fused = trainer.encode_at(targets)
    vectors = trainer.model.items.new(unseen_text, new_item_attributes(prepared.unseen.items, prepared.items))
    pairs, flat = torch.zeros(0), torch.zeros(0, len(TREND_DAYS))
    nobody = OwnHistory(pairs.long(), pairs.long(), pairs, pairs, flat)  # has bought any of them
    statistics = torch.zeros(len(vectors), 3)  # of repeats, of which there are none
    return score_catalogue(trainer.model.network, fused, vectors, statistics, moments, nobody).logits()


def nearest(prepared: Prepared, text: Tensor, unseen_text: Tensor, count: int = 3) -> Tensor:
    """Mean of the ``count`` highest cosines of each removed item with each user's training purchases, [U, M]."""
    trips = training_part(prepared.trips)
    cosine = F.normalize(text, dim=1) @ F.normalize(unseen_text, dim=1).T
    bought = np.split(trips.item, trips.events[trips.users[1:-1]])
    distinct = [cosine[np.unique(items)] for items in bought]
    return torch.stack([own.topk(min(count, len(own)), dim=0).values.mean(0) for own in distinct])


def similarity(prepared: Prepared, text: Tensor, unseen_text: Tensor, half_life_days: float) -> Tensor:
    """Cosine of the mean text of each user's training purchases and the text of each removed item, [U, M]."""
    history = fold_in(training_part(prepared.trips), text, half_life_days)
    return F.normalize(history, dim=1) @ F.normalize(unseen_text, dim=1).T  # evened texts have lengths of their own


def summary(values: list[np.ndarray], users: list[np.ndarray]) -> list[float | None]:
    """[mean, low, high] over households, each of which brings its figures of all seeds."""
    return numbers(mean(np.concatenate(values), np.concatenate(users), np.random.default_rng(0)))


def compare(arms: dict[str, dict[int, Arm]]) -> dict[str, Any]:
    """Every kind's AUC by scorer and negatives, and its paired difference to the first kind."""
    first = next(iter(arms))
    out: dict[str, Any] = {}
    for kind, seeds in arms.items():
        users = [arm.users for arm in seeds.values()]
        for key in next(iter(seeds.values())).areas:
            row = out.setdefault(" / ".join(key), {})
            row[kind] = summary([arm.areas[key] for arm in seeds.values()], users)
            if kind != first:
                above = [arm.areas[key] - arms[first][seed].areas[key] for seed, arm in seeds.items()]
                row[f"{kind} above {first}"] = summary(above, users)
                parts = [summary([part], [who]) for part, who in zip(above, users, strict=True)]
                row[f"{kind} above {first}, by seed"] = parts
        out.setdefault("validation NDCG@10", {})[kind] = [round(arm.validation, 4) for arm in seeds.values()]
        out.setdefault("seconds", {})[kind] = [arm.seconds for arm in seeds.values()]
    return out


def run(arguments: argparse.Namespace, log: Interactions, base: Recipe) -> dict[str, Any]:
    """The whole benchmark; returns what is printed last."""
    epochs = {"pretrain_epochs": arguments.pretrain_epochs, "finetune_epochs": arguments.finetune_epochs}
    training = base.model.training.model_copy(update=epochs)
    components = arguments.components or None
    changes = {
        "held_out_items": arguments.share,
        "text_components": components,
        "model": base.model.model_copy(update={"training": training}),
    }
    settings = {"steps": arguments.steps} if arguments.steps else {}
    arms: dict[str, dict[int, Arm]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        for seed in arguments.seeds:
            for method in arguments.tuning:
                tuning = TuningConfig(method=method, **settings)
                recipe = base.model_copy(update={**changes, "seed": seed, "tuning": tuning})
                directory = (arguments.work or Path(temporary)) / f"{method}-{seed}"
                arm = measure(log, recipe, directory)
                print(f"seed {seed}, {method}: {compare({method: {seed: arm}})}", file=sys.stderr, flush=True)
                arms.setdefault(method, {})[seed] = arm
    households = len(set(np.concatenate([arm.users for seeds in arms.values() for arm in seeds.values()])))
    told = {
        "share": arguments.share,
        "components": components,
        "seeds": arguments.seeds,
        **epochs,
        "households": households,
    }
    return {**told, "auc": compare(arms)}


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tuning", nargs="+", choices=get_args(Method), default=["frozen", "lora"])
    parser.add_argument("--seeds", nargs="+", type=at_least(0), default=[0, 1], help="each removes items of its own")
    parser.add_argument("--share", type=share, default=0.1, help="of the items, removed: above 0, up to 0.5")
    parser.add_argument("--components", type=at_least(0), default=256, help="of texts, evened out; 0: as they are")
    parser.add_argument("--steps", type=at_least(1), help="of tuning; the recipe's number by default")
    parser.add_argument("--pretrain-epochs", type=at_least(0), default=3)
    parser.add_argument("--finetune-epochs", type=at_least(1), default=2)
    parser.add_argument("--work", type=Path, help="directory of checkpoints; goes on from those that lie there")
    parser.add_argument("--out", type=Path, help="file for the result, JSON")
    options = parser.parse_args(arguments)
    recipe = ecommerce()
    try:
        result = json.dumps(run(options, recgym.data.load(recipe.dataset), recipe))
    except RecGymError as error:
        raise SystemExit(f"error: {error}") from error
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(result + "\n", encoding="utf-8")
    print(result)


if __name__ == "__main__":
    main()
