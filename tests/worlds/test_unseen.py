"""Items held out of all training: gone from the world, known by their text, measured on the card."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

from recgym import cli
from recgym.data import Interactions
from recgym.errors import WorldError
from recgym.testing import check_world
from recgym.user_models.preference.attributes import item_attributes, new_item_attributes
from recgym.user_models.preference.config import GraphConfig, ModelConfig, NetworkConfig, TrainingConfig
from recgym.user_models.preference.items import ItemEncoder, normalised_adjacency
from recgym.worlds.build import build_world
from recgym.worlds.prepare import prepare
from recgym.worlds.recipes import Recipe
from recgym.worlds.unseen import Neighbours, choose_unseen
from recgym.worlds.validate import validate

RECIPE = Recipe(
    name="shop",
    title="Shop",
    dataset="shop",
    kind="purchase",
    min_item_users=3,
    held_out_items=0.2,
    model=ModelConfig(
        network=NetworkConfig(dim=16, layers=1, heads=2, feedforward=32, window=8, hidden=16, repeat_hidden=8),
        training=TrainingConfig(pretrain_epochs=3, finetune_epochs=2, own_negatives=8, other_negatives=8),
    ),
)
ANIMALS = ("dog", "cat", "horse", "rabbit", "hamster", "parrot")
TOOLS = ("hammer", "screwdriver", "saw", "drill", "wrench", "chisel")


def shop() -> Interactions:
    """Half of the users buy food for animals, half buy tools; the titles say which is which."""
    titles = [f"{word} {kind}" for word in ANIMALS for kind in ("food", "biscuits", "bowl", "collar", "toy")]
    titles += [f"{word} {kind}" for word in TOOLS for kind in ("steel", "electric", "set", "handle", "case")]
    rng = np.random.default_rng(0)
    rows = []
    for user in range(80):
        own = np.arange(30) + 30 * (user % 2)
        moment = pd.Timestamp("2024-01-01")
        for trip in range(10):
            moment += pd.Timedelta(days=int(rng.integers(1, 8)))
            for item in rng.choice(own, rng.integers(2, 6), replace=False):
                rows.append((f"u{user}", f"i{item}", moment, f"{user}-{trip}", int(rng.integers(1, 4))))
    frame = pd.DataFrame(rows, columns=["user", "item", "time", "basket", "quantity"])
    items = pd.DataFrame({"item": [f"i{i}" for i in range(60)], "title": titles, "text": titles})
    return Interactions.from_frame(frame, items=items, name="shop")


def test_held_out_items_are_gone_from_the_world_and_counted() -> None:
    log = shop()
    whole, part = prepare(log, RECIPE.model_copy(update={"held_out_items": 0.0})), prepare(log, RECIPE)
    assert whole.unseen is None
    assert part.unseen is not None
    assert len(part.unseen.items) == 12
    assert len(part.items) == 48
    assert set(part.items["item_id"]) | set(part.unseen.items["item_id"]) == set(whole.items["item_id"])
    assert not set(part.items["item_id"]) & set(part.unseen.items["item_id"])
    dropped = {f.reason: f.count for f in part.filters}
    assert dropped["12 items held out of the world and all training"] == len(whole.trips.item) - len(part.trips.item)
    assert "popularity" not in part.unseen.items
    bought = {
        (user, item)
        for user, item in zip(log.users.index[log.user_rows], log.items.index[log.item_rows], strict=True)
        if item in set(part.unseen.items["item_id"])
    }
    found = {
        (part.users["user_id"].iloc[user], part.unseen.items["item_id"].iloc[item])
        for user, item in zip(part.unseen.user, part.unseen.item, strict=True)
    }
    assert found == bought
    assert part.unseen.popularity.sum() == len(bought)


def test_the_choice_follows_the_seed() -> None:
    items = np.arange(0, 200, 2)
    assert len(choose_unseen(items, 0.1, 0)) == 10
    assert (choose_unseen(items, 0.1, 0) == choose_unseen(items, 0.1, 0)).all()
    assert (choose_unseen(items, 0.1, 0) != choose_unseen(items, 0.1, 1)).any()


def test_the_q_of_a_new_item_is_the_mean_q_of_the_items_whose_texts_are_near() -> None:
    known = torch.tensor([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]])
    near = Neighbours.of(torch.tensor([[3.0, 0.0], [0.5, 0.5]]), known)
    assert near.items.tolist()[0] == [0, 2, 1]  # by angle and not by length
    weights = np.exp(np.array([1.0, np.sqrt(0.5), 0.0]) / 0.1)
    assert np.allclose(near.shares[0].numpy(), weights / weights.sum())
    chances = np.array([[0.2, 0.9, 0.4], [0.05, 0.1, 0.9]])
    logits = near.logits(torch.from_numpy(np.log(chances / (1 - chances))).float())
    expected = chances[:, [0, 2, 1]] @ (weights / weights.sum())
    assert np.allclose(torch.sigmoid(logits[:, 0]).numpy(), expected, atol=1e-6)
    certain = near.logits(torch.tensor([[100.0, 100.0, 100.0], [-100.0, -100.0, -100.0]]))
    assert torch.isfinite(certain).all()
    assert torch.equal(Neighbours.load(near.tensors()).items, near.items)
    with pytest.raises(WorldError, match=r"unseen_neighbours, unseen_shares: build the world again"):
        Neighbours.load({"unseen_vectors": known})  # as it was before there were neighbours


@pytest.mark.parametrize("convolution", ["lightgcn", "gcn"])
def test_a_new_item_is_encoded_as_one_that_passed_for_new_in_training(convolution: str) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = NetworkConfig(dim=8, layers=1, heads=1)
        encoder = ItemEncoder(network, GraphConfig(convolution=convolution), 5, 6, 3)  # type: ignore[arg-type]
        torch.nn.init.normal_(encoder.unknown)
        text, attributes = torch.randn(5, 6), torch.randn(5, 3)
    one = torch.ones(3)
    adjacency = normalised_adjacency(torch.tensor([0, 1, 1]), torch.tensor([0, 2, 3]), one, 2, 5)
    hidden = torch.tensor([False, False, False, True, True])
    with torch.no_grad():
        known, _ = encoder(text, attributes, adjacency, hidden)
        new = encoder.new(text[3:], attributes[3:])
    assert torch.allclose(known[3:], new, atol=1e-6)


def test_attributes_of_new_items_fit_the_columns_of_the_known() -> None:
    known = pd.DataFrame(
        {
            "category": ["a", "b", "b"],
            "subcategory": ["x", "y", "z"],
            "brand": ["own", "own", "other"],
            "price": [1.0, 2.0, 4.0],
            "discount": [0.0, 0.1, 0.2],
            "popularity": [5, 9, 20],
            "interval_days": [4.0, 9.0, 30.0],
        }
    )
    columns = item_attributes(known)
    new = new_item_attributes(known.drop(columns=["popularity", "interval_days"]), known)
    assert torch.equal(new[:, :-2], columns[:, :-2])
    assert (new[:, -2:] == 0).all()
    strange = known.iloc[:1].assign(category="never met")
    assert new_item_attributes(strange, known)[0, :2].tolist() == [0, 0]


@pytest.mark.slow
def test_a_world_tells_by_text_who_buys_items_it_never_met(recgym_home: Path, tmp_path: Path) -> None:
    log = shop()
    world = build_world(RECIPE, out=tmp_path / "part", log=log)
    assert world.num_items == 48
    assert world.item_tensors["unseen_neighbours"].shape == world.item_tensors["unseen_shares"].shape == (12, 30)
    unseen = world.spec.metrics["unseen_items"]
    assert unseen["num_items"] == 12
    assert unseen["users"] == 80
    assert unseen["uniform"]["model"][1] > 0.6  # the lower end of the interval
    assert "12 items were held out of all training" in (world.path / "card.md").read_text()
    assert validate(world, log)["unseen_items"] == unseen
    check_world(world, processes=False)


def test_the_command_asks_for_a_place_of_its_own() -> None:
    result = CliRunner().invoke(cli.app, ["world", "build", "ecommerce", "--held-out-items", "0.1"])
    assert result.exit_code == 2
    assert "--out" in result.output
