"""The world that ships: small enough, complete, true to its card, and with a ladder of agents that makes sense."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import recgym
from recgym.agents.protocol import make_agent
from recgym.evaluation import statistics
from recgym.evaluation.catalogue import Catalogue
from recgym.evaluation.rollout import play
from recgym.random import derive_seeds
from recgym.scenario import load_scenario
from recgym.simulation.session import Session
from recgym.simulation.simulator import Simulator
from recgym.worlds.card import card_files
from recgym.worlds.world import World, load_world


@pytest.fixture(scope="module")
def world() -> World:
    return load_world("ecommerce")


def test_the_bundle_is_small_and_holds_no_transactions(world: World) -> None:
    sizes = {path.name: path.stat().st_size for path in world.path.iterdir()}
    assert sum(sizes.values()) <= 15e6, sizes
    assert set(sizes) == {"world.json", *world.spec.files}
    assert {path.suffix for path in world.path.iterdir()} == {".json", ".parquet", ".safetensors", ".md", ".png"}
    # Ids are renumbered, and a user's purchases are aggregated: one line an item.
    assert world.users["user_id"].tolist() == [str(row) for row in range(world.num_users)]
    assert not world.interactions().duplicated(["user", "item"]).any()


def test_the_card_is_that_of_the_spec_and_complete(world: World) -> None:
    for name, content in card_files(world.spec).items():
        if not name.endswith(".png"):  # whose bytes depend on the version of matplotlib
            assert (world.path / name).read_bytes() == content, name
        assert name in world.spec.files
    metrics = world.spec.metrics
    for name in ("model", "popularity", "personal_frequency"):
        mean, low, high = metrics["next_trip"][name]["ndcg@10"]
        assert low < mean < high
    assert metrics["next_trip"]["model"]["ndcg@10 above personal_frequency"][1] > 0
    uniform, popular = metrics["auc"]["uniform"], metrics["auc"]["popularity"]
    assert uniform["model"][1] > uniform["own_frequency"][2]
    assert popular["model"][0] > popular["own_frequency"][0]
    purchase = metrics["purchase"]
    for losses in (purchase["log_loss"], purchase["top"]["log_loss"], purchase["popular"]["log_loss"]):
        assert losses["model"][0] < losses["personal_frequency"][0] < losses["base_rate"][0]
    assert purchase["top"]["equal_pairs"]["bins_within_0.8_and_1.25"] >= 9
    marginals = {row["name"]: row for row in metrics["marginals"]["rows"]}
    assert marginals["basket size"]["model"]["ks"] <= 0.1
    assert marginals["days between trips"]["model"]["ks"] <= 0.1
    told = metrics["sequences"]
    for classifier in ("logistic", "network"):
        assert told["model"][classifier][0] <= told["popularity"][classifier][0] - 0.1
        assert told["real_halves"][classifier][1] < 0.55
    assert [row["group"] for row in metrics["history"]] == ["0, history hidden", "1-5", "6-20", ">20"]
    assert {parameter.status for parameter in world.spec.parameters} == {"fitted", "assumed"}
    ensemble = metrics["ensemble"]
    assert len(ensemble["members"]) == 1 + len(world.members) == 3
    assert ensemble["mean"]["log_loss"][0] < max(member["log_loss"][0] for member in ensemble["members"])
    assert ensemble["disagreement"] > 0
    left_out = {row["name"] for row in metrics["ablations"]["rows"]}
    parts = {f"without {part}" for part in ("text", "graph", "sequence", "repeat head", "pre-training")}
    assert left_out >= {"full model", *parts}
    assert world.spec.data["source"]["files"]
    assert world.spec.versions["torch"]


def test_a_thousand_random_steps() -> None:
    env = recgym.make("ecommerce-v0")
    env.reset(seed=0)
    env.action_space.seed(0)
    ended = 0
    for _ in range(1000):
        observation, reward, terminated, truncated, _ = env.step(env.action_space.sample())
        assert env.observation_space.contains(observation)
        assert 0 <= reward <= 10
        if terminated or truncated:
            ended += 1
            env.reset()
    assert 50 < ended < 500


def test_the_fitted_gaps_return_at_the_reference_satisfaction(world: World) -> None:
    reference = world.spec.behaviour["satisfaction_reference"]
    session = Session(load_scenario("default"), reference)
    assert session.hazard(torch.tensor([reference])).tolist() == [1.0]
    assert float(session.hazard(torch.tensor([reference + 0.2]))) > 1


def test_better_informed_agents_earn_more(world: World) -> None:
    scenario = load_scenario("default")
    simulator = Simulator(world, scenario)
    catalogue = Catalogue.of(simulator)
    users = np.random.default_rng(0).permutation(world.num_users)[:400]
    seeds = derive_seeds(0, torch.from_numpy(users)).numpy()
    reward = {
        name: play(make_agent(name, world), simulator, users, seeds, catalogue=catalogue).episodes["reward"].to_numpy()
        for name in ("random", "popularity", "frequency", "greedy")
    }
    ladder = list(reward)
    for lower, higher in zip(ladder, ladder[1:], strict=False):
        gain = statistics.mean(reward[higher] - reward[lower], users, np.random.default_rng(0))
        assert gain.low > 0, f"{higher} - {lower}: {gain}"


def test_all_worlds_that_ship_are_small_together(world: World) -> None:
    sizes = [path.stat().st_size for path in world.path.parent.rglob("*") if path.is_file()]
    assert sum(sizes) <= 40e6


@pytest.mark.parametrize("half", ["ecommerce-a", "ecommerce-b"])
def test_a_half_is_a_world_of_the_same_items(world: World, half: str) -> None:
    """An agent that was trained in one half acts in the other: items, attributes and observations are alike."""
    part = load_world(half)
    assert set(card_files(part.spec)) < set(part.spec.files)
    same = ["title", "category", "subcategory", "brand", "price"]
    assert part.items[same].equals(world.items[same])
    assert part.spec.attributes == world.spec.attributes
    metrics = part.spec.metrics["next_trip"]["model"]
    assert metrics["ndcg@10 above personal_frequency"][1] > 0
    env = recgym.make(world=half)
    whole = recgym.make("ecommerce-v0")
    assert env.observation_space == whole.observation_space
    env.reset(seed=0)
    env.action_space.seed(0)
    env.step(env.action_space.sample())


def test_the_halves_make_up_the_whole(world: World) -> None:
    first, second = (load_world(name) for name in ("ecommerce-a", "ecommerce-b"))
    assert first.num_users + second.num_users == world.num_users
    sold = first.items["popularity"] + second.items["popularity"]
    assert sold.tolist() == world.items["popularity"].tolist()
