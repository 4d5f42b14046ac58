"""Worlds for the reference users: items whose topic or clickbait score agents see, users without a history."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from recgym.scenario import Scenario, load_scenario
from recgym.worlds.planted import bare_world
from recgym.worlds.world import World

NUM_TOPICS = 12


def reference_world(num_users: int = 400, num_items: int = 600, seed: int = 0) -> World:
    """A world in memory for ``interest_evolution`` (topics) and ``long_term_satisfaction`` (clickbait), prices 1.

    The clickbait score is the first text component, the topic the category: both are features of a candidate.
    """
    rng = np.random.default_rng([seed, 1])
    text = torch.zeros(num_items, 16)
    text[:, 0] = torch.from_numpy(rng.uniform(-1, 1, num_items)).float()
    topics = [f"Topic {number:02d}" for number in rng.integers(0, NUM_TOPICS, num_items)]
    columns = {"title": topics, "category": topics, "brand": "none", "price": 1.0, "discount": 0.0, "popularity": 1}
    return bare_world("reference", "A world for reference users", num_users, columns, text, {"world": seed})


def stepwise(slate_size: int, num_candidates: int, terms: dict[str, float], slates: int = 1) -> Scenario:
    """``slates`` a trip, all of each examined, nothing but the users' own rules: as RecSim plays its users.

    What agents see of the past is pooled over the trip, so with one slate a trip they see nothing of it.
    """
    settings: dict[str, Any] = {
        "episode": {"kind": "horizon", "max_slates": slates, "horizon_days": 5000, "max_steps": 1000},
        "behaviour": {
            "lift": 0.0,
            "examination": {"decay": 1.0},
            "reexamination": 1.0,
            "patience": 0.0,
            "satisfaction": {"return_effect": 0.0},
        },
        "actions": {
            "slate_size": slate_size,
            "num_candidates": num_candidates,
            "candidates": {"own": 0, "popular": 0, "uniform": num_candidates},
        },
        "objective": {"terms": terms},
    }
    return load_scenario("default", settings)
