"""Planted users do what their truth says, and no lane depends on another."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import recgym
from recgym.scenario import load_scenario
from recgym.simulation.simulator import Simulator
from recgym.testing.worlds import tiny_world
from recgym.types import Record, Visit
from recgym.user_models.planted import LONGEST_GAP, MEAN_BASKET, RETURN_EFFECT, PlantedState, PlantedUsers, Truth
from recgym.worlds.planted import planted_log, planted_platform
from recgym.worlds.world import World

NO_RECORD: Any = None


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return tiny_world(tmp_path_factory.mktemp("worlds") / "tiny", num_items=300, num_users=80)


@pytest.fixture(scope="module")
def users(world: World) -> PlantedUsers:
    return PlantedUsers(world)


def visit_on(day: int, lanes: int) -> Visit:
    zero = torch.zeros(lanes, dtype=torch.int32)
    return Visit(day=zero + day, gap_days=zero, trip=zero, step=zero, bought=zero, intended=zero)


def logits(users: PlantedUsers, day: int) -> Tensor:
    rows = torch.arange(len(users.truth.taste))
    items = torch.arange(len(users.truth.appeal)).repeat(len(rows), 1)
    visit = visit_on(day, len(rows))
    state = users.init(rows, NO_RECORD, visit)
    zero = torch.zeros(items.shape)
    return users.appraise(state, items, zero, zero, visit).logit


def test_wants_are_what_the_truth_says(users: PlantedUsers) -> None:
    truth, rows = users.truth, torch.arange(80)
    for day in (0, 200):
        assert torch.allclose(logits(users, day), truth.logits(rows, day), atol=1e-4)
    assert torch.sigmoid(logits(users, 0)).sum(1).mean() == pytest.approx(MEAN_BASKET, rel=1e-3)
    assert torch.allclose(torch.sigmoid(logits(users, 0)).sum(1), truth.need, rtol=1e-3)
    # By hand, for one user and item.
    taste = truth.taste[3] + 200 * truth.drift[3]
    by_hand = truth.appeal[7] + taste @ truth.factors[7] - truth.sensitivity[3] * truth.price[7]
    assert float(logits(users, 200)[3, 7]) == pytest.approx(float(by_hand), abs=1e-4)


def test_each_part_of_the_truth_matters(users: PlantedUsers, world: World) -> None:
    q = logits(users, 0)
    assert torch.corrcoef(torch.stack((q.mean(0), users.truth.price)))[0, 1] < -0.2  # dear items sell less
    popularity = torch.from_numpy(np.log1p(world.items["popularity"].to_numpy(np.float32)))
    assert torch.corrcoef(torch.stack((q.mean(0), popularity)))[0, 1] > 0.4
    assert q.std(0).mean() > 1.0  # users differ
    change = (logits(users, 365) - q).std()
    assert 0.3 < change < 1.5  # and drift


def test_selected_rows_and_a_later_start_are_the_same_truth(users: PlantedUsers, world: World) -> None:
    items, rows = torch.tensor([5, 2, 200]), torch.tensor([7, 1])
    later = users.truth.select(items, rows, day=30)
    assert torch.allclose(later.logits(torch.arange(2), 10.0), users.truth.logits(rows, 40.0)[:, items], atol=1e-5)
    assert torch.equal(Truth.of(world).factors, users.truth.factors)
    assert not torch.equal(Truth.of(world, seed=1).factors, users.truth.factors)


def test_needs_are_poisson_and_returns_depend_on_satisfaction(users: PlantedUsers) -> None:
    lanes = 40_000
    row = int(users.truth.need.argsort()[40])
    same = torch.full((lanes,), row)
    uniforms = (torch.arange(lanes) + 0.5) / lanes
    taste = users.truth.taste[same]
    state = PlantedState(same, taste, torch.full((lanes,), 0.5))
    sizes, need = users.intend(state, uniforms).double(), float(users.truth.need[row])
    assert sizes.mean() == pytest.approx(need + np.exp(-need), rel=0.01)  # at least one
    assert sizes.min() == 1
    mean, one = float(users.truth.gap[row]), torch.ones(lanes)
    days, gone = users.away(state, NO_RECORD, uniforms, one)
    assert days.float().mean() == pytest.approx(mean - 0.5, rel=0.03)  # whole days, rounded down
    assert gone.float().mean() == pytest.approx(np.exp(-LONGEST_GAP / mean), abs=1e-3)
    happy = PlantedState(same, taste, torch.full((lanes,), 1.0))
    sooner, _ = users.away(happy, NO_RECORD, uniforms, one)
    later, _ = users.away(happy, NO_RECORD, uniforms, one * np.exp(-RETURN_EFFECT / 2).item())
    assert (sooner < days).float().mean() > 0.5
    assert (later - days).abs().max() <= 1  # the hazard of the core and satisfaction multiply


def test_satisfaction_follows_what_slates_sell(world: World, users: PlantedUsers) -> None:
    simulator = Simulator(world, load_scenario("default", {"episode.kind": "horizon"}), user_model=users)
    lanes = torch.arange(200)
    for wanted, higher in ((True, True), (False, False)):
        state = simulator.reset(lanes, lanes * 0)
        items = torch.arange(world.num_items).repeat(200, 1)
        score = simulator.expected_reward(state, items)
        slate = score.topk(10, largest=wanted).indices
        state, _ = simulator.step(state, slate)
        assert bool(state.hidden.satisfaction.mean() > 0.5) is higher


def test_environments_take_it_by_name(world: World) -> None:
    env = recgym.make_vec(world=world, num_envs=64, user_model="planted", action_mode="catalogue")
    env.reset(seed=1)
    env.action_space.seed(0)
    assert sum(float(env.step(env.action_space.sample())[1].sum()) for _ in range(5)) > 0
    alone = recgym.make(world=world, user_model="planted", action_mode="catalogue")
    alone.reset(seed=3)
    alone.step(np.arange(10))


def test_the_record_is_never_read(users: PlantedUsers) -> None:
    record: Record = NO_RECORD  # every call above would fail if it were
    state = users.init(torch.arange(3), record, visit_on(4, 3))
    assert torch.equal(users.arrive(state, record, visit_on(4, 3)).taste, state.taste)


# ---------------------------------------------------------------------- the platform and its log


@pytest.fixture(scope="module")
def platform() -> World:
    return planted_platform(60, 120, seed=3)


def write(platform: World, seed: int = 0) -> Any:
    scenario = load_scenario("default", {"episode.max_slates": 3})
    return planted_log(platform, PlantedUsers(platform), scenario, days=60, seed=seed)


def test_a_log_says_what_was_shown_and_what_was_wanted(platform: World) -> None:
    log = write(platform)
    events = log.to_frame()
    shown, other = events[events["exposure"]], events[~events["exposure"]]
    assert write(platform).hash == log.hash != write(platform, seed=1).hash
    assert not events.duplicated(["basket", "item"]).any()  # a trip shows nothing twice and tells of nothing twice
    assert other["purchase"].all()
    assert 0.02 < shown["purchase"].mean() < 0.5
    assert (shown.groupby(["basket", "position"]).size() <= 3).all()
    assert 40 < log.days.max() < 60
    users = PlantedUsers(platform)
    # What was not shown was bought with chance q: expected and observed purchases agree, over all trips.
    q = torch.sigmoid(users.truth.logits(torch.arange(60), 30.0)).double().numpy()
    trips = events.groupby("basket")["user"].first()
    seen = np.zeros((len(trips), 120), bool)
    seen[trips.index.searchsorted(shown["basket"]), shown["item"]] = True
    expected = (q[trips] * ~seen).sum()
    assert len(other) == pytest.approx(expected, rel=0.1)
    # What was shown at the top of a slate was bought with chance sigmoid(logit q + lift).
    top = shown[shown["position"] == 0]
    chance = q[top["user"], top["item"]]
    lifted = 1 / (1 + np.exp(-np.log(chance / (1 - chance)) - 0.7))
    spread = np.sqrt((lifted * (1 - lifted)).sum())
    assert abs(top["purchase"].sum() - lifted.sum()) < 4 * spread
    assert top["purchase"].sum() > chance.sum() + 4 * spread


def test_propensities_are_those_of_the_logging_policy(platform: World) -> None:
    shown = write(platform).to_frame().query("exposure")
    first = shown[(shown["position"] == 0)].drop_duplicates("basket")
    weight = np.sqrt(platform.items["popularity"].to_numpy(np.float64).clip(1))
    assert np.allclose(first["propensity"], (weight / weight.sum())[first["item"]])
    counts = np.bincount(first["item"], minlength=120)
    expected = len(first) * weight / weight.sum()
    assert ((counts - expected) ** 2 / expected).sum() < 119 + 5 * np.sqrt(2 * 119)
