"""Measures a bundle against the held-out part of the log it was built from; the figures of the fidelity card."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recgym.data.interactions import Interactions
from recgym.errors import WorldError
from recgym.evaluation.statistics import mean
from recgym.random import derive_seeds
from recgym.scenario import Scenario, load_scenario
from recgym.user_models.preference.metrics import ndcg_and_recall
from recgym.user_models.preference.trips import Trips
from recgym.user_models.preference.users import PreferenceUsers
from recgym.worlds.prepare import prepare, trend_columns
from recgym.worlds.recipes import Recipe
from recgym.worlds.unaided import ks_distance, unaided_trips
from recgym.worlds.userside import user_side
from recgym.worlds.views import HeldOut, held_out_logits, rating_predictions
from recgym.worlds.world import World

Progress = Callable[[str, float], None]
NEGATIVES = 100  # per household and kind
REFERENCE_POLICY = "frequency"


def validate(world: World, log: Interactions, progress: Progress | None = None) -> dict[str, Any]:
    """Held-out metrics of a bundle, as JSON values; every mean comes with a 95% interval over users.

    Raises:
        WorldError: the log is not the one that the world was built from.
    """
    report = progress or (lambda what, share: None)
    if log.hash != world.spec.data["hash"]:
        raise WorldError(
            f"world {world.name!r} was built from a log with hash {world.spec.data['hash'][:12]}…, "
            f"this one has {log.hash[:12]}…; rebuild the world or fetch that log"
        )
    recipe = Recipe.model_validate(world.spec.config)
    trips = prepare(log, recipe).trips
    targets = np.flatnonzero(trips.trip_user_remaining == 0)
    report("validating: ranking held-out trips", 0.0)
    cut = cut_world(world, trips, recipe, held_out=1)
    logits = held_out_logits(cut, trips, targets)
    held = HeldOut.of(trips, targets)
    report("validating: ranking held-out trips", 0.5)
    out: dict[str, Any] = {
        "held_out": "each user's last trip; the one before it was used for early stopping and calibration",
        "users": len(targets),
        "next_trip": _ranking(logits, held, trips, targets),
        "auc": _auc(logits, held, trips, targets, recipe.seed),
        "purchase": _pointwise(logits, held, trips, targets),
    }
    if recipe.kind == "rating":
        out["rating"] = _ratings(cut, trips, targets)
    report("validating: unaided trips", 0.7)
    before = cut_world(world, trips, recipe, held_out=2)
    sizes, gaps = unaided_trips(before, number=2, seed=recipe.seed)
    real = trips.trip_user_remaining < 2
    out["unaided"] = {
        "trips": int(real.sum()),
        "size_ks": round(ks_distance(sizes, trips.size[real]), 4),
        "gap_ks": round(ks_distance(gaps, trips.gap[real]), 4),
        "size_mean": [round(float(sizes.mean()), 3), round(float(trips.size[real].mean()), 3)],
        "gap_mean": [round(float(gaps.mean()), 3), round(float(trips.gap[real].mean()), 3)],
    }
    report("validating: done", 1.0)
    return out


def cut_world(world: World, trips: Trips, recipe: Recipe, held_out: int) -> World:
    """The world as it stood before each user's last ``held_out`` trips."""
    network = PreferenceUsers(world).network
    history = trips.select(trips.before_last(held_out))
    half_life = recipe.model.graph.half_life_days
    tensors, columns = user_side(history, network, world.item_tensors["graph"], half_life, recipe.seed)
    trends = trend_columns(history, world.items["popularity"].to_numpy())
    users, items = world.users.assign(**dict(columns.items())), world.items.assign(**trends)
    return replace(world, user_tensors=tensors, users=users, items=items)


def _summary(values: Tensor | np.ndarray, users: np.ndarray) -> list[float]:
    """[mean, low, high] with a bootstrap 95% interval over users."""
    estimate = mean(np.asarray(values, dtype=np.float64), users, np.random.default_rng(0))
    return [round(estimate.value, 4), round(estimate.low, 4), round(estimate.high, 4)]


def _ranking(logits: Tensor, held: HeldOut, trips: Trips, targets: np.ndarray) -> dict[str, Any]:
    users = trips.trip_user[targets]
    out = {}
    frequency = held.own_counts + held.popularity / (held.popularity.max() + 1)  # ties by popularity
    for name, scores in (
        ("model", logits),
        ("popularity", held.popularity.expand_as(logits)),
        ("personal_frequency", frequency),
    ):
        ndcg, recall = ndcg_and_recall(scores, trips, targets)
        out[name] = {"ndcg@10": _summary(ndcg, users), "recall@10": _summary(recall, users)}
    ndcg_model, _ = ndcg_and_recall(logits, trips, targets)
    ndcg_frequency, _ = ndcg_and_recall(frequency, trips, targets)
    out["model"]["ndcg@10 above personal_frequency"] = _summary(ndcg_model - ndcg_frequency, users)
    return out


def _auc(logits: Tensor, held: HeldOut, trips: Trips, targets: np.ndarray, seed: int) -> dict[str, Any]:
    """Mean over users of the chance that a bought item scores above a negative (ties count half)."""
    rng = np.random.default_rng([seed, 17])
    chance = (held.popularity / held.popularity.sum()).numpy()
    users = trips.trip_user[targets]
    out: dict[str, Any] = {"negatives_per_user": NEGATIVES}
    for kind, weights in (("uniform", None), ("popularity", chance)):
        areas = {"model": np.empty(len(targets)), "own_frequency": np.empty(len(targets))}
        for row in range(len(targets)):
            basket = held.baskets[row]
            drawn = rng.choice(trips.num_items, NEGATIVES + len(basket), p=weights)
            negative = torch.from_numpy(drawn[~np.isin(drawn, basket.numpy())][:NEGATIVES])
            for name, scores in (("model", logits[row]), ("own_frequency", held.own_counts[row])):
                above = scores[basket][:, None] - scores[negative][None, :]
                areas[name][row] = float(((above > 0).float() + 0.5 * (above == 0).float()).mean())
        out[kind] = {name: _summary(values, users) for name, values in areas.items()}
    return out


def _pointwise(logits: Tensor, held: HeldOut, trips: Trips, targets: np.ndarray) -> dict[str, Any]:
    """Log loss over the catalogue, and calibration on each user's 100 items of highest q."""
    users = trips.trip_user[targets]
    labels = torch.zeros_like(logits)
    for row, basket in enumerate(held.baskets):
        labels[row, basket] = 1.0
    loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, labels, reduction="none").sum(1)
    rate = (held.popularity / held.num_trips).clamp(1e-9, 1 - 1e-6)
    base = -(labels * rate.log() + (1 - labels) * (1 - rate).log()).sum(1)
    top = logits.topk(min(100, logits.shape[1]), dim=1)
    p, y = torch.sigmoid(top.values).flatten(), labels.gather(1, top.indices).flatten()
    order = p.argsort()
    bins = [
        [round(float(p[part].mean()), 5), round(float(y[part].mean()), 5), len(part)] for part in order.tensor_split(10)
    ]
    return {
        "log_loss": {"model": _summary(loss, users), "base_rate": _summary(base, users)},
        "brier_top_100": round(float(((p - y) ** 2).mean()), 5),
        "calibration_top_100": bins,  # [mean predicted, observed rate, pairs] in ten equal-mass bins
        "expected_and_real_size": [
            round(float(torch.sigmoid(logits).sum(1).mean()), 3),
            round(float(labels.sum(1).mean()), 3),
        ],
    }


def _ratings(cut: World, trips: Trips, targets: np.ndarray) -> dict[str, Any]:
    """Error of the expected rating on the held-out trips, beside user and item means known before."""
    predicted, real, baseline, users = rating_predictions(cut, trips, targets)
    out: dict[str, Any] = {"ratings": len(real)}
    for name, values in (("model", predicted), ("user_item_means", baseline)):
        out[name] = {
            "rmse": round(float(np.sqrt(np.mean((values - real) ** 2))), 4),
            "mae": _summary(np.abs(values - real), users),
        }
    return out


def default_scenario(num_items: int) -> Scenario:
    """The default scenario, with as many candidates as there are items where the catalogue is smaller than that."""
    scenario = load_scenario("default")
    actions = scenario.actions
    if num_items >= actions.num_candidates:
        return scenario
    own, popular = (
        num_items * part // actions.num_candidates for part in (actions.candidates.own, actions.candidates.popular)
    )
    return load_scenario(
        scenario,
        {
            "actions.num_candidates": num_items,
            "actions.slate_size": min(actions.slate_size, num_items),
            "actions.candidates.own": own,
            "actions.candidates.popular": popular,
            "actions.candidates.uniform": num_items - own - popular,
        },
    )


def satisfaction_reference(world: World) -> float:
    """Mean satisfaction under the reference policy: the share of its slates on which something was bought.

    Personal frequency plays one episode of the default scenario with every user of the world. At this satisfaction the
    fitted distribution of gaps holds as it is.
    """
    from recgym.agents.protocol import make_agent
    from recgym.evaluation.rollout import Catalogue, play
    from recgym.simulation.simulator import Simulator

    simulator = Simulator(world, default_scenario(world.num_items))
    users = np.arange(world.num_users)
    seeds = derive_seeds(0, torch.from_numpy(users)).numpy()
    rows = play(make_agent(REFERENCE_POLICY, world), simulator, users, seeds, catalogue=Catalogue.of(world)).episodes
    return round(float(rows["num_hits"].sum() / rows["num_steps"].sum()), 4)
