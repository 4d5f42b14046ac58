"""Measures a bundle against the held-out part of the log it was built from; the figures of the fidelity card."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from recgym.data.interactions import Interactions
from recgym.errors import WorldError
from recgym.random import derive_seeds
from recgym.scenario import Scenario, load_scenario
from recgym.user_models.preference.trips import Trips
from recgym.user_models.preference.users import PreferenceUsers
from recgym.worlds import pointwise
from recgym.worlds.agreement import measure_members
from recgym.worlds.graded import measure_graded
from recgym.worlds.marginals import compare, quantities
from recgym.worlds.prepare import prepare, trend_columns
from recgym.worlds.recipes import Recipe
from recgym.worlds.sequences import compare_sequences
from recgym.worlds.unaided import popularity_trips, unaided_trips
from recgym.worlds.unseen import Neighbours, Unseen, measure_unseen
from recgym.worlds.userside import user_side
from recgym.worlds.views import CutView, HeldOut
from recgym.worlds.world import World

Progress = Callable[[str, float], None]
REFERENCE_POLICY = "frequency"
UNAIDED = 2  # trips that the model makes by itself: as many of each user are held out


def validate(world: World, log: Interactions, progress: Progress | None = None) -> dict[str, Any]:
    """Held-out metrics of a bundle, as JSON values; every mean comes with a 95% interval over users.

    Raises:
        WorldError: the log is not the one that the world was built from.
    """
    report = progress or (lambda what, share: None)
    require_log(world, log)
    recipe = Recipe.model_validate(world.spec.config)
    prepared = prepare(log, recipe)
    trips = prepared.trips
    return {
        "held_out": "each user's last trip; the one before it was used for early stopping and calibration",
        "users": trips.num_users,
        **_pointwise(world, trips, recipe, prepared.unseen, report),
        **_unaided(world, trips, recipe, report),
    }


def require_log(world: World, log: Interactions) -> None:
    """Makes sure that ``world`` was built from ``log``.

    Raises:
        WorldError: it was not.
    """
    if log.hash != world.spec.data["hash"]:
        raise WorldError(
            f"world {world.name!r} was built from a log with hash {world.spec.data['hash'][:12]}…, "
            f"this one has {log.hash[:12]}…; rebuild the world or fetch that log"
        )


def _pointwise(world: World, trips: Trips, recipe: Recipe, unseen: Unseen | None, report: Progress) -> dict[str, Any]:
    """Each user's last trip, item by item."""
    stage = "validating: held-out trips"
    report(stage, 0.0)
    targets = np.flatnonzero(trips.trip_user_remaining == 0)
    users = trips.trip_user[targets]
    pseudo_trips = pointwise.choose_pseudo_trips(trips.select(trips.before_last(1)))
    report(stage, 0.2)
    cut = cut_world(world, trips, recipe, held_out=1)
    view, held = CutView(cut, trips, targets), HeldOut.of(trips, targets)
    logits = view.logits()
    report(stage, 0.4)
    predictors = pointwise.Predictors(logits, held, trips.number[targets], pseudo_trips)
    losses = pointwise.catalogue_losses(predictors)
    found = pointwise.areas(logits, held, trips.num_items, recipe.seed)
    probes = pointwise.probe(predictors, recipe.seed)
    report(stage, 0.6)
    sizes = (torch.sigmoid(logits).sum(1).mean(), trips.size[targets].mean())
    groups = pointwise.attribute_groups(cut.users, cut.spec.attributes)
    out: dict[str, Any] = {
        "next_trip": pointwise.ranking(logits, held, trips, targets),
        "auc": {
            "negatives_per_user": pointwise.NEGATIVES,
            **{kind: pointwise.summaries(scorers, users) for kind, scorers in found.items()},
        },
        "purchase": {
            "log_loss": pointwise.summaries(losses, users),
            "pseudo_trips": pseudo_trips,
            "expected_and_real_size": [round(float(size), 3) for size in sizes],
            **{name: pointwise.summarise_probes(part, users, recipe.seed) for name, part in probes.items()},
        },
        "groups": pointwise.by_group(groups, found, losses, probes["top"], users),
        "history": pointwise.by_group(
            pointwise.history_groups(trips.number[targets]), found, losses, probes["top"], users
        ),
    }
    report(stage, 0.8)
    out["history"].insert(0, _without_history(world, trips, recipe, held))
    graded = measure_graded(view.answers(), trips, targets, 4 if recipe.kind == "rating" else 2, recipe.seed)
    out["rating" if recipe.kind == "rating" else "quantity"] = graded
    if unseen is not None:
        unknown = Neighbours.load(world.item_tensors).logits(logits)
        out["unseen_items"] = measure_unseen(unknown, users, unseen, recipe.seed)
    if world.members:
        out["ensemble"] = measure_members(lambda member: CutView(member, trips, targets), cut, held, trips, targets)
    report(stage, 1.0)
    return out


def _without_history(world: World, trips: Trips, recipe: Recipe, held: HeldOut) -> dict[str, Any]:
    """The pointwise figures where every user's history is hidden: all that is known are the observable attributes."""
    alone = trips.select(trips.trip_user_remaining == 0)
    targets = np.arange(len(alone.trip_user))
    logits = CutView(cut_world(world, alone, recipe, held_out=1), alone, targets).logits()
    hidden = replace(held, own_counts=torch.zeros_like(held.own_counts))
    predictors = pointwise.Predictors(logits, hidden, np.zeros(len(targets)), pseudo_trips=1.0)
    return pointwise.by_group(
        {"0, history hidden": np.ones(len(targets), bool)},
        pointwise.areas(logits, hidden, trips.num_items, recipe.seed),
        pointwise.catalogue_losses(predictors),
        pointwise.probe(predictors, recipe.seed, samples=1)["top"],
        alone.trip_user,
    )[0]


def _unaided(world: World, trips: Trips, recipe: Recipe, report: Progress) -> dict[str, Any]:
    """The last trips as the model makes them by itself, beside the real ones and those of the controls."""
    stage = "validating: unaided trips"
    report(stage, 0.0)
    history = trips.select(trips.before_last(UNAIDED))
    cut = cut_world(world, trips, recipe, held_out=UNAIDED)
    model = unaided_trips(cut, history, UNAIDED, recipe.seed, lambda share: report(stage, 0.9 * share))
    popularity = popularity_trips(history, UNAIDED, recipe.seed)
    report(stage, 1.0)

    def described(source: Trips, users: np.ndarray | None = None) -> list[Any]:
        rows = source.trip_user_remaining < UNAIDED
        if users is not None:
            rows &= users[source.trip_user]
        return quantities(source, rows, world.items, recipe.kind, recipe.currency)

    half = np.random.default_rng([recipe.seed, 37]).permutation(trips.num_users) % 2 == 0
    report("validating: two-sample tests", 0.0)
    out = {
        "marginals": {
            "trips": trips.num_users * UNAIDED,
            "trips_per_user": UNAIDED,
            "rows": compare(
                described(trips),
                {"model": described(model), "popularity": described(popularity)},
                (described(trips, half), described(trips, ~half)),
            ),
        },
        "sequences": compare_sequences(world, trips, model, popularity, UNAIDED, recipe.seed),
    }
    report("validating: two-sample tests", 1.0)
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
    from recgym.evaluation.catalogue import Catalogue
    from recgym.evaluation.rollout import play
    from recgym.simulation.simulator import Simulator

    simulator = Simulator(world, default_scenario(world.num_items))
    users = np.arange(world.num_users)
    seeds = derive_seeds(0, torch.from_numpy(users)).numpy()
    agent, catalogue = make_agent(REFERENCE_POLICY, world), Catalogue.of(simulator)
    rows = play(agent, simulator, users, seeds, catalogue=catalogue).episodes
    return round(float(rows["num_hits"].sum() / rows["num_steps"].sum()), 4)
