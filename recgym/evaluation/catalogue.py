"""What rows need to know of a world's items and users, looked up once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from recgym.evaluation.metrics.arrays import Bools, Floats, Ints
from recgym.evaluation.metrics.beyond_accuracy import information, long_tail
from recgym.evaluation.metrics.user_fairness import UNKNOWN
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
    categories: Ints  # [N]
    num_categories: int
    providers: tuple[Providers, ...]
    attributes: pd.DataFrame  # [U] label of each user by attribute; ``unknown`` where the log has none

    @classmethod
    def of(cls, world: World) -> Catalogue:
        """The catalogue of ``world``."""
        log = world.interactions()
        owned = log["user"].to_numpy(np.int64) * world.num_items + log["item"].to_numpy(np.int64)
        prices = None
        if "price" in world.items and bool(world.items["price"].notna().any()):
            columns = world.items.reindex(columns=["price", "discount"]).fillna(0.0)
            prices = (columns["price"] * (1 - columns["discount"])).to_numpy(np.float64)
        names = world.items["category"].fillna("") if "category" in world.items else pd.Series([""] * world.num_items)
        codes, kinds = pd.factorize(names, sort=True)
        known = [name for name in world.spec.attributes if name in world.users]
        popularity = world.items["popularity"].to_numpy(np.float64)
        return cls(
            prices=prices,
            popularity=popularity,
            owned=np.sort(owned),
            history_trips=world.users["num_trips"].to_numpy(np.int64),
            categories=codes.astype(np.int64),
            num_categories=len(kinds),
            providers=_providers(world.items, popularity),
            attributes=world.users[known].astype(object).fillna(UNKNOWN).astype(str).reset_index(drop=True),
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
        """What a report knows of ``users``: row, history_trips, and the label of each attribute."""
        table = self.attributes.iloc[users].reset_index(drop=True)
        table.insert(0, "user", users)
        table.insert(1, "history_trips", self.history_trips[users])
        return table


def _providers(items: pd.DataFrame, popularity: Floats) -> tuple[Providers, ...]:
    """By brand, where there are few of them; and by popularity in any case."""
    found = []
    if "brand" in items:
        codes, labels = pd.factorize(items["brand"].fillna(UNKNOWN).astype(str), sort=True)
        if 2 <= len(labels) <= MAX_PROVIDERS:
            found.append(Providers("brand", tuple(labels), codes.astype(np.int64)))
    tail = long_tail(popularity)
    if tail.any() and not tail.all():
        found.append(Providers("popularity", ("head", "tail"), tail.astype(np.int64)))
    return tuple(found)
