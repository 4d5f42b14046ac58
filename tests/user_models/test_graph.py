"""Relations of the item graph: what may be an edge, who stays reachable, and that they are learned."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch

from recgym.errors import DataError
from recgym.user_models.preference.config import GraphConfig, ModelConfig
from recgym.user_models.preference.graph import MIN_TOGETHER, Knowledge, co_purchases, fold_in
from recgym.user_models.preference.items import ItemGraph, normalised_adjacency
from recgym.user_models.preference.training import Trainer
from recgym.user_models.preference.trips import Trips
from tests.user_models.test_training import CONFIG, small_data
from tests.user_models.test_trips import random_trips

FACTS = pd.DataFrame(
    [
        ("i0", "genre", "drama", None),
        ("i1", "genre", "drama", None),
        ("i2", "genre", "comedy", None),  # ties nothing together
        ("i2", "sequel", "e0", "i0"),  # the entity is an item itself
        ("i3", "director", "someone", None),
        ("i4", "director", "someone", None),
        ("i4", "director", "someone", None),
        ("nowhere", "director", "someone", None),
    ],
    columns=["item", "relation", "entity", "other_item"],
)


def knowledge(num_items: int) -> Knowledge:
    return Knowledge.of(FACTS, [f"i{number}" for number in range(num_items)])


def related(*relations: str, convolution: str = "lightgcn") -> ModelConfig:
    graph = GraphConfig(relations=relations, convolution=convolution, fraction=0.6)
    return CONFIG.model_copy(update={"graph": graph})


def trainer(tmp_path, *relations: str, trips: Trips | None = None, convolution: str = "lightgcn") -> Trainer:
    data = small_data(trips)
    data = dataclasses.replace(data, knowledge=knowledge(data.trips.num_items))
    return Trainer(data, related(*relations, convolution=convolution), 0, tmp_path)


def test_facts_become_edges_of_items_and_entities():
    found = knowledge(6)
    assert found.relations == ("director", "genre", "sequel")
    assert found.num_entities == 2  # drama and someone: comedy is known of one item alone
    facts = {(found.relations[r], i, n) for r, i, n in zip(found.relation, found.item, found.node, strict=True)}
    assert facts == {("genre", 0, 6), ("genre", 1, 6), ("sequel", 2, 0), ("director", 3, 7), ("director", 4, 7)}
    genre = found.adjacencies()[1].to_dense()
    assert genre.shape == (8, 8)
    torch.testing.assert_close(genre, genre.T)
    assert genre[0, 6] == pytest.approx(1 / np.sqrt(2))
    assert (genre > 0).sum() == 4
    with pytest.raises(DataError, match="ties no two of the items together"):
        Knowledge.of(FACTS, ["i2", "i5"])


def test_items_bought_together_are_tied_by_their_cosine():
    baskets = [[0, 1], [0, 1], [0, 1, 2], [0, 2], [2, 3]]
    item = np.concatenate(baskets)
    trip = np.repeat(np.arange(5), [len(b) for b in baskets])
    trips = Trips(item, np.ones_like(item), trip, np.zeros(5, np.int64), np.arange(5), 1, 5)
    one, other, weight = co_purchases(trips, neighbours=3)
    assert MIN_TOGETHER == 3
    assert (one.tolist(), other.tolist()) == ([0], [1])
    assert float(weight) == pytest.approx(3 / np.sqrt(4 * 3))


def test_each_item_keeps_its_nearest_neighbours():
    trips = random_trips(3, users=60)
    one, other, _ = co_purchases(trips, neighbours=10_000)
    few = co_purchases(trips, neighbours=2)
    assert 0 < len(few[0]) < len(one)
    kept = torch.bincount(torch.cat(few[:2]), minlength=trips.num_items)
    tied = torch.bincount(torch.cat((one, other)), minlength=trips.num_items)
    assert (kept >= tied.clamp(max=2)).all()
    assert (one < other).all()


def test_no_held_out_or_scored_edge_is_in_a_relation(tmp_path):
    trips = random_trips(5, users=60)
    made = trainer(tmp_path, "co_purchase", "knowledge", trips=trips)
    *facts, together = (relation.to_dense() for relation in made.graph.relations)
    train = made.train_trips
    shared = np.zeros((trips.num_items, trips.num_items), np.int64)
    for user in range(trips.num_users):
        for trip in range(train.users[user], made.graph.first_response_trip[user]):
            basket = train.item[train.events[trip] : train.events[trip + 1]]
            shared[np.ix_(basket, basket)] += 1
    tied = together[: trips.num_items, : trips.num_items].numpy() > 0
    assert tied.any()
    # Two items are tied by what was bought in the first part of the training histories, by nothing after it.
    assert (shared[tied] >= MIN_TOGETHER).all()
    # Facts tie items to entities and to items that the knowledge graph names, whatever anybody bought.
    again = [relation.to_dense() for relation in knowledge(trips.num_items).adjacencies()]
    assert len(facts) == len(again) == 3
    assert all(torch.equal(a, b) for a, b in zip(facts, again, strict=True))


@pytest.mark.parametrize("convolution", ["lightgcn", "gcn"])
@pytest.mark.parametrize("relation", ["co_purchase", "knowledge"])
def test_a_relation_changes_the_result_and_is_trained(tmp_path, relation, convolution):
    trips = random_trips(5, users=60)
    plain = trainer(tmp_path / "plain", trips=trips, convolution=convolution)
    made = trainer(tmp_path / "related", relation, trips=trips, convolution=convolution)
    before = made.model.items.graph.strength.detach().clone()
    vectors, graph = made.item_tables()
    assert not torch.allclose(vectors, plain.item_tables()[0])
    assert graph.shape == (trips.num_items, CONFIG.network.dim)
    made.run()
    assert not torch.allclose(made.model.items.graph.strength, before)
    assert all(np.isfinite(row["log_loss"]) for row in made.history)


def test_cold_items_and_cold_users_still_work(tmp_path):
    trips = random_trips(5, users=60)
    made = trainer(tmp_path, "co_purchase", "knowledge", trips=trips)
    graph = made.item_tables()[1]
    nobody = trips.select(trips.trip_user != 7)
    folded = fold_in(nobody, graph, 90.0)
    assert torch.isfinite(folded).all()
    assert (folded[7] == 0).all()
    # An item that nobody bought hears from others through what is known of it, and of nothing through no edge.
    network = ItemGraph(GraphConfig(relations=("knowledge",)), dim=4, num_relations=1)
    base = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    empty = torch.zeros(0, dtype=torch.int64)
    adjacency = normalised_adjacency(empty, empty, torch.zeros(0), 2, 3)
    facts = pd.DataFrame([("a", "r", "e", None), ("b", "r", "e", None)], columns=FACTS.columns)
    relations = Knowledge.of(facts, ["a", "b", "c"]).adjacencies()
    alone, tied = network(base, adjacency), network(base, adjacency, relations)
    assert torch.equal(alone[2], tied[2])
    assert not torch.allclose(alone[0], tied[0])


def test_a_graph_without_knowledge_is_named(tmp_path):
    with pytest.raises(DataError, match="brings no knowledge graph"):
        Trainer(small_data(), related("knowledge"), 0, tmp_path)
