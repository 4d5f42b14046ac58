"""Who takes part, resolved against a world: groups of users, whom the platform knows, new items and providers."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from recgym.errors import ScenarioError, nearest
from recgym.random import fold, integers, uniform
from recgym.scenario import Scenario
from recgym.scenario.population import LEVELS
from recgym.worlds.world import World

Ints = NDArray[np.int64]
UNKNOWN = "unknown"  # the level of users whose attribute is missing; reported, but part of no gap
PLATFORM = "platform"  # marks the files of a world as cut
_USERS, _ITEMS = 101, 102  # families of keys: who is cut, which items are new
_ENDLESS = np.iinfo(np.int64).max


@dataclass(frozen=True, eq=False)
class Labels:
    """A label for each user or item."""

    levels: tuple[str, ...]
    codes: Ints  # [U] or [N], places in ``levels``


@dataclass(frozen=True, eq=False)
class Population:
    """Users and items of a world as a scenario sees them."""

    history: Labels  # [U] the levels of ``users.history``
    known: Ints  # [U] how many of their purchases the platform knows at most
    groups: dict[str, Labels]  # by attribute, [U]; the last level is ``UNKNOWN``
    provider: Labels | None  # [N]
    new: NDArray[np.bool_]  # [N] items that no log has seen
    harmful: NDArray[np.bool_]  # [N]

    @classmethod
    def of(cls, world: World, scenario: Scenario) -> Population:
        """Resolves the sections ``users`` and ``items`` of ``scenario``.

        Raises:
            ScenarioError: an attribute that the world lacks, a group that is too small, no item that is harmful; the
                message names file and key.
        """
        level, known = _history(world, scenario)
        items = scenario.items
        harmful = np.zeros(world.num_items, bool)
        if items.harmful is not None:
            key = "items.harmful"
            column = _item_column(world, scenario, f"{key}.attribute", items.harmful.attribute)
            harmful = column.isin(items.harmful.values).to_numpy(copy=True)
            if not harmful.any():
                raise ScenarioError(
                    f"{scenario.at(f'{key}.values')}: no item of world {world.name!r} has {items.harmful.attribute} in "
                    f"{list(items.harmful.values)}"
                )
        provider = None
        if items.provider is not None:
            names = _item_column(world, scenario, "items.provider", items.provider)
            levels, codes = np.unique(names.to_numpy(), return_inverse=True)
            provider = Labels(tuple(map(str, levels)), codes.astype(np.int64))
        draws = uniform(_keys(_ITEMS, world.num_items)).numpy()
        groups = {name: _group(world, scenario, name) for name in scenario.users.group_by}
        return cls(level, known, groups, provider, draws < items.arrivals.share, harmful)

    @property
    def cut(self) -> bool:
        """Whether the platform knows less than the log holds."""
        return bool((self.known < _ENDLESS).any() or self.new.any())


def _history(world: World, scenario: Scenario) -> tuple[Labels, Ints]:
    """The level [U] of each user's history, and how many purchases the platform knows of at most."""
    shares = scenario.users.history
    levels = [name for name in LEVELS if shares.get(name)]
    keys = _keys(_USERS, world.num_users)
    edges = np.cumsum([shares[name] for name in levels])[:-1]
    codes = np.searchsorted(edges, uniform(fold(keys, 0)).numpy(), side="right").astype(np.int64)
    known = np.full(world.num_users, _ENDLESS)
    for code, name in enumerate(levels):
        bounds = LEVELS[name]
        if bounds is not None:
            count = bounds[0] + integers(fold(keys, 1), bounds[1] - bounds[0] + 1).numpy()
            known = np.where(codes == code, count, known)
    return Labels(tuple(levels), codes), known


def _group(world: World, scenario: Scenario, name: str) -> Labels:
    place = f"{scenario.at('users.group_by')}"
    if name not in world.spec.attributes:
        raise ScenarioError(f"{place}: {_missing('users', world, name, list(world.spec.attributes))}")
    levels = (*world.spec.attributes[name], UNKNOWN)
    number = {level: code for code, level in enumerate(levels)}
    values = world.users[name].astype("object")
    codes = np.array([number.get(str(value), len(levels) - 1) for value in values], np.int64)
    sizes, least = np.bincount(codes, minlength=len(levels)), scenario.users.min_group
    for level, size in zip(levels[:-1], sizes, strict=False):
        if size < least:
            raise ScenarioError(
                f"{place}: level {level!r} of {name!r} has {size} users in world {world.name!r}, fewer than "
                f"users.min_group {least}: too few to compare"
            )
    return Labels(levels, codes)


def _item_column(world: World, scenario: Scenario, key: str, name: str) -> pd.Series:
    texts = [str(column) for column in world.items if not pd.api.types.is_numeric_dtype(world.items[column])]
    options = [column for column in texts if column not in ("item_id", "title")]
    if name not in options:
        raise ScenarioError(f"{scenario.at(key)}: {_missing('items', world, name, options)}")
    return world.items[name].fillna(UNKNOWN).astype(str)


def _missing(what: str, world: World, name: str, valid: list[str]) -> str:
    guess = nearest(name, valid)
    hint = f" Did you mean {guess!r}?" if guess else ""
    return f"{what} of world {world.name!r} have no attribute {name!r}.{hint} Valid: {', '.join(valid) or 'none'}."


def _keys(family: int, count: int) -> torch.Tensor:
    return fold(torch.tensor(family), torch.arange(count))


def platform_world(world: World, scenario: Scenario, population: Population | None = None) -> World:
    """The world as the platform knows it, which is what agents are made for: logs cut to what the scenario leaves.

    Users whose history is cut keep their latest purchases, each counted once; new items are in nobody's log. Text,
    prices and users' attributes stay. The preference model has no part in this: users are who they are.
    """
    population = Population.of(world, scenario) if population is None else population
    if not population.cut:
        return world
    known, new = population.known, population.new
    before = world.interactions()
    offsets = world.repeats.offsets.numpy()
    user, item, day = (before[name].to_numpy() for name in ("user", "item", "last_day"))
    sold = ~new[item]
    order = np.lexsort((-item, -day, ~sold, user))  # of each user the latest first
    rank = np.empty(len(user), np.int64)
    rank[order] = np.arange(len(user)) - offsets[user]
    kept = sold & (rank < known[user])
    cut_users = known < _ENDLESS
    counts = np.where(cut_users[user], 1, before["count"].to_numpy())[kept]
    user, item, day = user[kept], item[kept], day[kept]
    tensors = {**world.user_tensors, **_tokens(world, known, new)}
    for name, values in (("items", item), ("counts", counts), ("last_days", day)):
        tensors[f"repeat_{name}"] = torch.from_numpy(values.astype(world.repeats.values[name].numpy().dtype))
    lengths = np.bincount(user, minlength=world.num_users)
    tensors["repeat_offsets"] = torch.from_numpy(np.concatenate(([0], np.cumsum(lengths))).astype(np.int64))
    was = np.bincount(before["item"], weights=before["count"], minlength=world.num_items)
    left = np.bincount(item, weights=counts, minlength=world.num_items) / np.maximum(was, 1.0)
    popularity = np.round(world.items["popularity"].to_numpy(np.float64) * left).astype(np.int64)
    files = {**world.spec.files, PLATFORM: _digest(scenario)}  # another hash: what was learned elsewhere is not this
    return replace(
        world,
        spec=world.spec.model_copy(update={"files": files}),
        items=world.items.assign(popularity=popularity),
        users=_columns(world.users, cut_users, user, day, lengths),
        user_tensors=tensors,
    )


def _columns(users: pd.DataFrame, cut: NDArray[np.bool_], user: Any, day: Any, lengths: Any) -> pd.DataFrame:
    """The columns about users' trips, of cut users from the purchases of ``user`` [E] on ``day`` [E] that are left."""
    trips = pd.DataFrame({"user": user, "day": day}).groupby(["user", "day"]).size().rename("size").reset_index()
    trips["log_size"] = np.log(trips["size"])
    trips["log_gap"] = np.log1p(trips.groupby("user")["day"].diff())
    of = trips.groupby("user").agg(num_trips=("day", "size"), mean_log_size=("log_size", "mean"))
    of["mean_log_gap"] = trips.groupby("user")["log_gap"].mean()
    found = of.reindex(range(len(users))).fillna(0.0).assign(num_events=lengths)
    changes = {name: np.where(cut, found[name], users[name]).astype(users[name].dtype) for name in found.columns}
    return users.assign(**changes)


def _tokens(world: World, known: Ints, new: NDArray[np.bool_]) -> dict[str, torch.Tensor]:
    """The tokens of the log without new items, and of each user the latest that hold what is known."""
    offsets, values = world.tokens.offsets.numpy(), {name: t.numpy() for name, t in world.tokens.values.items()}
    owner = np.repeat(np.arange(world.num_users), np.diff(offsets))
    hidden = (values["items"] < 0) | new[values["items"].clip(min=0)]
    items, feedback = np.where(hidden, -1, values["items"]), np.where(hidden, 0, values["feedback"])
    total = np.concatenate(([0], np.cumsum((~hidden).sum(axis=1))))
    since = total[offsets[owner + 1]] - total[:-1]  # purchases from this token on
    kept = since <= known[owner]
    lengths = np.bincount(owner[kept], minlength=world.num_users)
    cut = {"items": items[kept], "feedback": feedback[kept], "gap": values["gap"][kept]}
    out = {f"token_{name}": torch.from_numpy(array.astype(values[name].dtype)) for name, array in cut.items()}
    return {**out, "token_offsets": torch.from_numpy(np.concatenate(([0], np.cumsum(lengths))).astype(np.int64))}


def _digest(scenario: Scenario) -> str:
    """Of what is cut, in hexadecimal."""
    text = f"{sorted(scenario.users.history.items())} {scenario.items.arrivals.share}"
    return hashlib.sha256(text.encode()).hexdigest()
