"""A platform whose users are planted, and the log that it writes while a known policy recommends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from recgym.data.interactions import Interactions, SourceInfo
from recgym.errors import RecGymError
from recgym.random import Purpose, derive_seeds, fold, uniform
from recgym.scenario import Scenario, load_scenario
from recgym.simulation.choice import shown_before
from recgym.simulation.draws import draw, step_key
from recgym.simulation.kernels import sigmoid
from recgym.simulation.simulator import Simulator
from recgym.simulation.state import Outcome, State
from recgym.user_models.planted import PlantedUsers
from recgym.worlds.spec import FORMAT_VERSION, WorldSpec
from recgym.worlds.world import World

CATEGORIES = ("Bakery", "Cheese", "Coffee", "Fish", "Fruit", "Garden", "Household", "Meat", "Pets", "Snacks", "Wine")
FIRST_DAY = np.datetime64("2020-01-01", "ns")
LOGGING_POWER = 0.5  # the logging policy draws items in proportion to popularity to this power


def planted_platform(num_users: int, num_items: int, seed: int = 0) -> World:
    """A platform on its first day, in memory: items with categories, prices and popularity, users without history.

    It is simulated with planted users alone: it holds no weights. ``popularity`` is an attraction that enters the truth
    (its logarithm is normal), not a count.
    """
    rng = np.random.default_rng([seed, 0])
    category = rng.choice(CATEGORIES, num_items)
    columns = {
        "title": [f"{name} {i}" for i, name in enumerate(category)],
        "category": category,
        "brand": rng.choice(["National", "Private"], num_items),
        "price": np.exp(rng.normal(1.2, 0.7, num_items)).clip(0.3).round(2),
        "discount": rng.uniform(0.0, 0.3, num_items).round(2),
        "popularity": np.exp(rng.normal(3.0, 1.0, num_items)).round().astype(np.int64),
    }
    text = torch.zeros(num_items, 16)
    return bare_world("planted", "A platform with planted users", num_users, columns, text, {"platform": seed})


def bare_world(
    name: str, title: str, num_users: int, columns: dict[str, Any], text: Tensor, seeds: dict[str, int]
) -> World:
    """A world in memory without weights, for hand-written users: purchases, and users without history.

    Args:
        name: the world's name.
        title: one line on it.
        num_users: U.
        columns: of the items but for their ids.
        text: text vectors, float32 [N, 16].
        seeds: what it was made with.
    """
    num_items = len(text)
    items = pd.DataFrame({"item_id": [str(i) for i in range(num_items)], **columns})
    items = items.assign(subcategory="unknown", interval_days=30.0)
    zero = ("num_trips", "num_events", "last_day", "last_gap", "last_size")
    users = pd.DataFrame({"user_id": [str(i) for i in range(num_users)], **dict.fromkeys(zero, 0)})
    users = users.assign(mean_log_size=0.0, mean_log_gap=0.0)
    nothing = torch.zeros(num_users + 1, dtype=torch.int64)
    repeats = {"items": torch.int32, "counts": torch.int16, "last_days": torch.int16}
    spec = WorldSpec(
        format_version=FORMAT_VERSION,
        name=name,
        title=title,
        kind="purchase",
        responses=("purchase", "quantity"),
        reward="purchase",
        currency="USD",
        num_users=num_users,
        num_items=num_items,
        attributes={},
        data={"name": "generated"},
        config={},
        seeds=seeds,
        versions={"torch": torch.__version__},
        parameters=(),
        behaviour={"satisfaction_reference": 0.5},
        metrics={},
        files={},
    )
    return World(
        path=Path(name),
        spec=spec,
        items=items,
        users=users,
        item_tensors={"text_pca": text},
        user_tensors={
            "repeat_offsets": nothing,
            **{f"repeat_{part}": torch.zeros(0, dtype=dtype) for part, dtype in repeats.items()},
        },
        weights={},
    )


def planted_log(platform: World, users: PlantedUsers, scenario: Scenario, days: int, seed: int = 0) -> Interactions:
    """What the platform writes down while every user lives through ``days`` days.

    The simulator plays the users. The logging policy fills each slate from the items that the trip has not shown yet,
    one after another, in proportion to popularity ** 0.5: it is stochastic, looks at nothing that users want, and every
    item has a chance. What a user wants unaided (its draw lies below q) is in the basket of the trip whether it was
    shown or not, so the log holds both what q and what the lift says: of items that were not shown, the chance of being
    bought is q; of items that were examined, it is ``sigmoid(logit q + lift)``.

    Args:
        platform: the platform, see ``planted_platform``.
        users: its users.
        scenario: behaviour, limit of slates and slate size; episode and candidates are set here.
        days: length of the log.
        seed: of the luck of all users.

    Returns:
        One event an item shown (exposure, position, propensity: the chance of the item in its slot given those above,
        purchase) and one an item bought without being shown (exposure False, position 0, propensity 1).

    Raises:
        RecGymError: a trip may show more items than the platform has.
    """
    slate, slates = scenario.actions.slate_size, scenario.episode.max_slates
    if slate * slates >= platform.num_items:
        raise RecGymError(
            f"{slates} slates of {slate} items cannot be filled from {platform.num_items} without repeats"
        )
    candidates = {"own": 0, "popular": 0, "uniform": slate}
    played = load_scenario(
        scenario,
        {
            "episode": {"kind": "horizon", "horizon_days": days, "max_steps": (days + 1) * 100},
            "actions": {"num_candidates": slate, "candidates": candidates},
        },
    )
    simulator = Simulator(platform, played, user_model=users, draws_candidates=False)
    lanes = torch.arange(platform.num_users)
    state = simulator.reset(derive_seeds(seed, lanes), torch.zeros_like(lanes), lanes)
    weight = torch.from_numpy(platform.items["popularity"].to_numpy(np.float64)).clamp(min=1.0) ** LOGGING_POWER
    alive = state.visit.day < days
    events: list[pd.DataFrame] = []
    while bool(alive.any()):
        shown, propensity = _logging_slate(state, weight, slate)
        wanted = _wanted_unaided(simulator, state)
        trip, day = state.visit.trip.clone(), state.visit.day.clone()
        state, outcome = simulator.step(state, shown, alive)
        events.append(_shown_events(alive, trip, day, shown, propensity, outcome, wanted))
        ended = (outcome.trip_ended | outcome.truncated | outcome.terminated) & alive
        events.append(_other_events(ended, trip, day, wanted))
        alive = alive & ~outcome.terminated & ~outcome.truncated & (state.visit.day < days)
    return _as_log(platform, events)


def _logging_slate(state: State, weight: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Slates int64 [B, K] drawn one item after another in proportion to ``weight`` [N], and propensities [B, K]."""
    items = torch.arange(len(weight), dtype=torch.int32).repeat(len(state.user), 1)
    free = torch.where(shown_before(state.memory, items), 0.0, weight)  # [B, N] float64
    key = step_key(state.luck, state.visit, Purpose.AGENT)
    race = -uniform(fold(key[:, None], items)).double().log() / free  # exponential races: smallest first
    chosen = race.argsort(dim=1, stable=True)[:, :size]
    taken = free.gather(1, chosen)
    left = free.sum(1, keepdim=True) - (taken.cumsum(1) - taken)
    return chosen, taken / left


def _wanted_unaided(simulator: Simulator, state: State) -> Tensor:
    """Whether each user wants each item on this trip when nobody recommends, bool [B, N]."""
    items = torch.arange(simulator.world.num_items).repeat(len(state.user), 1)
    zero = torch.zeros(items.shape)
    q = sigmoid(simulator.user_model.appraise(state.hidden, items, zero, zero, state.visit).logit)
    return draw(state.luck, state.visit, items).want < q


def _shown_events(
    alive: Tensor, trip: Tensor, day: Tensor, shown: Tensor, propensity: Tensor, outcome: Outcome, wanted: Tensor
) -> pd.DataFrame:
    """One event a slot of every slate that was shown; what was not examined may still be bought, unaided."""
    lanes = alive.nonzero().squeeze(1)
    bought = outcome.response.consumed | wanted.gather(1, shown)
    width = shown.shape[1]
    position = torch.arange(width).repeat(len(lanes))
    return _events(
        lanes.repeat_interleave(width),
        trip[lanes].repeat_interleave(width),
        day[lanes].repeat_interleave(width),
        item=shown[lanes].flatten(),
        exposure=torch.ones_like(position, dtype=torch.bool),
        position=position,
        propensity=propensity[lanes].flatten(),
        purchase=bought[lanes].flatten(),
    )


def _other_events(ended: Tensor, trip: Tensor, day: Tensor, wanted: Tensor) -> pd.DataFrame:
    """One event an item wanted by the lanes whose trip ``ended``; those that were shown are told by other events."""
    lane, item = (wanted & ended[:, None]).nonzero().unbind(1)
    return _events(
        lane,
        trip[lane],
        day[lane],
        item=item,
        exposure=torch.zeros_like(lane, dtype=torch.bool),
        position=torch.zeros_like(lane),
        propensity=torch.ones(len(lane), dtype=torch.float64),
        purchase=torch.ones_like(lane, dtype=torch.bool),
    )


def _events(user: Tensor, trip: Tensor, day: Tensor, **columns: Tensor) -> pd.DataFrame:
    values: dict[str, Any] = {name: column.numpy() for name, column in columns.items()}
    return pd.DataFrame({"user": user.numpy(), "trip": trip.numpy(), "day": day.numpy(), **values})


def _as_log(platform: World, pieces: list[pd.DataFrame]) -> Interactions:
    events = pd.concat(pieces, ignore_index=True)
    # An item that was shown is told of by the event of its slot, bought or not.
    events = events.sort_values("exposure", ascending=False, kind="stable")
    events = events.drop_duplicates(["user", "trip", "item"]).sort_index()
    number = events.pop("trip").to_numpy(np.int64)
    events["basket"] = events["user"].to_numpy() * (int(number.max()) + 1) + number
    events["time"] = FIRST_DAY + events.pop("day").to_numpy(np.int64) * np.timedelta64(86_400_000_000_000, "ns")
    rows = events["item"].to_numpy()
    for name in ("price", "discount"):
        events[name] = platform.items[name].to_numpy()[rows]
    described = platform.items[["title", "category", "brand"]].rename_axis("item").reset_index()
    source = SourceInfo(name="planted", origin="generated")
    return Interactions.from_frame(events, items=described, name="planted", source=source)
