"""The graph that training reads: user-item edges, relations of items and the fold-in of users."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from recgym.errors import DataError
from recgym.user_models.preference.config import GraphConfig
from recgym.user_models.preference.items import edge_weights, normalised_adjacency, symmetric_adjacency
from recgym.user_models.preference.trips import Trips

MIN_TOGETHER = 3  # trips that two items must share to be tied by co-purchase


@dataclass(frozen=True, eq=False)
class Knowledge:
    """F facts that tie N items to entities, or to each other, each of one of R relations."""

    relations: tuple[str, ...]  # R names
    relation: np.ndarray  # [F] int64
    item: np.ndarray  # [F] int64 item row
    node: np.ndarray  # [F] int64: below N an item row, from N on an entity
    num_items: int
    num_entities: int

    @classmethod
    def of(cls, facts: pd.DataFrame, item_ids: Sequence[str]) -> Knowledge:
        """The facts about items ``item_ids`` [N].

        An entity that is tied to one item alone joins it to nothing and is left out.

        Args:
            facts: columns item, relation and entity (names), and other_item: the id of the item that the entity is, or
                None; see ``recgym.data.sources.recbole.read_knowledge``.
            item_ids: of the rows.

        Raises:
            DataError: no fact is left.
        """
        row = {name: number for number, name in enumerate(item_ids)}
        known = facts[facts["item"].isin(row)].drop_duplicates(["item", "relation", "entity"])
        other = known["other_item"].map(row)
        itself = other.notna()
        entities = known["entity"][~itself]
        degree = known[~itself].groupby("entity")["item"].nunique()
        names = degree.index[degree >= 2]
        number = pd.Series(np.arange(len(names)) + len(item_ids), index=names)
        node = other.where(itself, entities.map(number).reindex(known.index))
        kept = known[node.notna()]
        if kept.empty:
            raise DataError("the knowledge graph ties no two of the items together")
        relations = tuple(sorted(kept["relation"].unique()))
        return cls(
            relations=relations,
            relation=kept["relation"].map({name: i for i, name in enumerate(relations)}).to_numpy(np.int64),
            item=kept["item"].map(row).to_numpy(np.int64),
            node=node[kept.index].to_numpy(np.int64),
            num_items=len(item_ids),
            num_entities=len(names),
        )

    def adjacencies(self) -> tuple[Tensor, ...]:
        """The normalised adjacency of each relation, [N + entities, N + entities]."""
        size = self.num_items + self.num_entities
        found = []
        for number in range(len(self.relations)):
            rows = self.relation == number
            item, node = torch.from_numpy(self.item[rows]), torch.from_numpy(self.node[rows])
            found.append(symmetric_adjacency(item, node, torch.ones(len(item)), size))
        return tuple(found)


def graph_edges(trips: Trips, half_life_days: float) -> tuple[Tensor, Tensor, Tensor]:
    """User rows, item rows and weights of the user-item edges of a log; ages count to each user's last trip in it."""
    user = trips.trip_user[trips.trip]
    pair, inverse, counts = np.unique(user * trips.num_items + trips.item, return_inverse=True, return_counts=True)
    last = np.zeros(len(pair), np.int64)
    np.maximum.at(last, inverse, trips.trip_day[trips.trip])
    users, items = pair // trips.num_items, pair % trips.num_items
    newest = np.zeros(trips.num_users, np.int64)
    np.maximum.at(newest, trips.trip_user, trips.trip_day)
    weights = edge_weights(torch.from_numpy(counts), torch.from_numpy(newest[users] - last), half_life_days)
    return torch.from_numpy(users), torch.from_numpy(items), weights


def co_purchases(trips: Trips, neighbours: int) -> tuple[Tensor, Tensor, Tensor]:
    """Pairs of items bought on the same trips, each pair once, and their cosines over trips, [Q] each.

    Each item keeps its ``neighbours`` of highest cosine among those it shares at least ``MIN_TOGETHER`` trips with.
    """
    ones = torch.ones(len(trips.item))
    place = torch.from_numpy(np.stack((trips.item, trips.trip)))
    bought = torch.sparse_coo_tensor(place, ones, (trips.num_items, len(trips.trip_user)), check_invariants=False)
    together = torch.sparse.mm(bought, bought.t()).coalesce()
    (one, other), shared = together.indices(), together.values()
    counts = torch.bincount(place[0], minlength=trips.num_items).float()
    cosine = shared / (counts[one] * counts[other]).sqrt()
    tied = (one != other) & (shared >= MIN_TOGETHER)
    one, other, cosine = one[tied], other[tied], cosine[tied]
    order = cosine.argsort(descending=True, stable=True)
    order = order[one[order].argsort(stable=True)]
    first = torch.searchsorted(one[order], one[order])  # where the edges of the item begin
    order = order[torch.arange(len(order)) - first < neighbours]
    pair = torch.minimum(one, other)[order] * trips.num_items + torch.maximum(one, other)[order]
    pair, inverse = pair.unique(return_inverse=True)
    weights = torch.zeros(len(pair)).index_copy_(0, inverse, cosine[order])
    return pair // trips.num_items, pair % trips.num_items, weights


def fold_in(trips: Trips, graph: Tensor, half_life_days: float) -> Tensor:
    """User graph embeddings [U, d]: the weighted mean of the graph embeddings [N, d] of what each user bought."""
    return fold_matrix(trips, half_life_days) @ graph


def fold_matrix(trips: Trips, half_life_days: float) -> Tensor:
    """The fold-in as a sparse matrix [U, N] whose rows sum to one (zero for users without history)."""
    users, items, weights = graph_edges(trips, half_life_days)
    total = torch.zeros(trips.num_users).index_add_(0, users, weights)
    values = weights / total[users].clamp(min=1e-12)
    size = (trips.num_users, trips.num_items)
    return torch.sparse_coo_tensor(torch.stack((users, items)), values, size, check_invariants=False).coalesce()


def num_relations(config: GraphConfig, knowledge: Knowledge | None) -> int:
    """How many relations ``relation_adjacencies`` gives.

    Raises:
        DataError: the configuration names knowledge and there is none.
    """
    if "knowledge" in config.relations and knowledge is None:
        raise DataError("graph.relations names 'knowledge', but the data set brings no knowledge graph")
    facts = len(knowledge.relations) if knowledge is not None and "knowledge" in config.relations else 0
    return facts + ("co_purchase" in config.relations)


def relation_adjacencies(config: GraphConfig, trips: Trips, knowledge: Knowledge | None) -> tuple[Tensor, ...]:
    """The normalised adjacencies of the relations of items, over items and entities.

    Args:
        config: which relations.
        trips: those that may be edges, and no others.
        knowledge: facts about the items; they hold no purchase.
    """
    found: list[Tensor] = []
    size = trips.num_items
    if "knowledge" in config.relations and knowledge is not None:
        found += knowledge.adjacencies()
        size += knowledge.num_entities
    if "co_purchase" in config.relations:
        found.append(symmetric_adjacency(*co_purchases(trips, config.co_purchase_neighbours), size))
    return tuple(found)


@dataclass(frozen=True, eq=False)
class TrainingGraph:
    """The first part of each training history as a graph, and the trips after it, which responses are trained on."""

    adjacency: Tensor  # [U + N, U + N] user-item edges, sparse
    relations: tuple[Tensor, ...]  # [N + entities, N + entities] each, sparse
    folding: Tensor  # [U, N] the fold-in, sparse
    first_response_trip: np.ndarray  # [U] int64 each user's first trip that is no edge

    @classmethod
    def of(cls, trips: Trips, config: GraphConfig, knowledge: Knowledge | None) -> TrainingGraph:
        """The graph of training trips ``trips``."""
        counts = np.diff(trips.users)
        cut = np.floor(counts * config.fraction).astype(np.int64)
        early = trips.select(trips.number < cut[trips.trip_user])
        edges = graph_edges(early, config.half_life_days)
        return cls(
            adjacency=normalised_adjacency(*edges, trips.num_users, trips.num_items),
            relations=relation_adjacencies(config, early, knowledge),
            folding=fold_matrix(early, config.half_life_days),
            first_response_trip=trips.users[:-1] + cut,
        )
