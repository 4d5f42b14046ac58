"""What rows need to know of a world's items and users, looked up once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from recgym.evaluation.metrics.arrays import Bools, Floats, Ints
from recgym.evaluation.metrics.beyond_accuracy import information, long_tail
from recgym.scenario import Scenario
from recgym.simulation.population import UNKNOWN, Population, platform_world
from recgym.simulation.simulator import Simulator
from recgym.worlds.world import World

MAX_PROVIDERS = 12  # more groups than this are no groups of providers to compare one by one


@dataclass(frozen=True)
class Providers:
    """Items by who provides them.

    Attributes:
        attribute: what tells the groups apart.
        labels: [G] of the groups.
        codes: [N] group of each item.
    """

    attribute: str
    labels: tuple[str, ...]
    codes: Ints


@dataclass(frozen=True)
class Catalogue:
    """A world's items [N] and users [U] as the rows need them."""

    prices: Floats | None  # [N] currency units, discount taken off; None where items have no price
    popularity: Floats  # [N] logged purchases
    owned: Ints  # sorted keys user * N + item of the pairs in the log
    history_trips: Ints  # [U]
    history_events: Ints  # [U] purchases (watches)
    unseen: Bools  # [N] items that no log has seen
    categories: Ints  # [N]
    num_categories: int
    providers: tuple[Providers, ...]
    attributes: pd.DataFrame  # [U] label of each user by attribute; ``unknown`` where the log has none

    @classmethod
    def seen_by(cls, world: World, scenario: Scenario) -> Catalogue:
        """The catalogue of ``world`` as the platform of ``scenario`` knows it."""
        population = Population.of(world, scenario)
        return cls._of(platform_world(world, scenario, population), scenario, population)

    @classmethod
    def of(cls, simulator: Simulator) -> Catalogue:
        """The catalogue of a simulator's world as its platform knows it."""
        return cls._of(simulator.platform, simulator.scenario, simulator.population)

    @classmethod
    def _of(cls, world: World, scenario: Scenario, population: Population) -> Catalogue:
        """The catalogue of ``world``, which is the platform's.

        Args:
            world: as the platform knows it.
            scenario: names the attributes that groups are formed by; where it does not, all of the users' are taken,
                and the items' brand.
            population: of the scenario, resolved against the world.
        """
        log = world.interactions()
        owned = log["user"].to_numpy(np.int64) * world.num_items + log["item"].to_numpy(np.int64)
        names = world.items["category"].fillna("") if "category" in world.items else pd.Series([""] * world.num_items)
        codes, kinds = pd.factorize(names, sort=True)
        known = scenario.users.group_by or [name for name in world.spec.attributes if name in world.users]
        popularity = world.items["popularity"].to_numpy(np.float64)
        return cls(
            prices=world.prices,
            popularity=popularity,
            owned=np.sort(owned),
            history_trips=world.users["num_trips"].to_numpy(np.int64),
            history_events=world.users["num_events"].to_numpy(np.int64),
            unseen=population.new,
            categories=codes.astype(np.int64),
            num_categories=len(kinds),
            providers=tuple(_providers(world.items, popularity, population)),
            attributes=world.users[list(known)].astype(object).fillna(UNKNOWN).astype(str).reset_index(drop=True),
        )

    @property
    def num_items(self) -> int:
        """N."""
        return len(self.popularity)

    @cached_property
    def tail(self) -> Bools:
        """[N] whether an item is of the long tail."""
        return long_tail(self.popularity)

    @cached_property
    def information(self) -> Floats:
        """[N] bits of surprise at meeting an item; see ``novelty``."""
        return information(self.popularity)

    def is_new(self, users: Ints, items: Ints) -> Bools:
        """[B, K] whether the log never saw ``users`` [B] with ``items`` [B, K]."""
        keys = users[:, None] * self.num_items + items
        at = np.searchsorted(self.owned, keys).clip(max=max(len(self.owned) - 1, 0))
        return self.owned[at] != keys if len(self.owned) else np.ones(items.shape, bool)

    def histories(self, users: Ints) -> Floats:
        """[B, C] how many different items of each category the log holds of ``users`` [B]."""
        starts = np.searchsorted(self.owned, users * self.num_items)
        sizes = np.searchsorted(self.owned, (users + 1) * self.num_items) - starts
        owner = np.repeat(np.arange(len(users)), sizes)
        at = np.arange(sizes.sum()) + np.repeat(starts - (np.cumsum(sizes) - sizes), sizes)
        kinds = self.categories[self.owned[at] % self.num_items]
        counts = np.bincount(owner * self.num_categories + kinds, minlength=len(users) * self.num_categories)
        table: Floats = counts.reshape(len(users), self.num_categories).astype(np.float64)
        return table

    def provider_sizes(self) -> dict[str, dict[str, int]]:
        """Items of each group of providers, by attribute and label."""
        return {
            one.attribute: {
                label: int(size)
                for label, size in zip(one.labels, np.bincount(one.codes, minlength=len(one.labels)), strict=True)
            }
            for one in self.providers
        }

    def user_table(self, users: Ints) -> pd.DataFrame:
        """What a report knows of ``users``: row, and the label of each attribute."""
        table = self.attributes.iloc[users].reset_index(drop=True)
        table.insert(0, "user", users)
        return table


def _providers(items: pd.DataFrame, popularity: Floats, population: Population) -> Iterator[Providers]:
    """By the scenario's provider, else by brand where there are few; by popularity; and what is new, if anything is."""
    if population.provider is not None:
        labels, codes = population.provider.levels, population.provider.codes
        yield Providers("provider", labels, codes)
    elif "brand" in items:
        codes, labels = pd.factorize(items["brand"].fillna(UNKNOWN).astype(str), sort=True)
        if 2 <= len(labels) <= MAX_PROVIDERS:
            yield Providers("brand", tuple(labels), codes.astype(np.int64))
    for attribute, names, marked in (
        ("popularity", ("head", "tail"), long_tail(popularity)),
        ("arrival", ("known", "new"), population.new),
    ):
        if marked.any() and not marked.all():
            yield Providers(attribute, names, marked.astype(np.int64))
