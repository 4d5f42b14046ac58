"""An ensemble answers with the mean of its members' chances and knows how they differ."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import recgym
from recgym.errors import UnknownNameError, WorldError
from recgym.registration import USER_MODELS
from recgym.scenario import load_scenario
from recgym.simulation.simulator import Simulator
from recgym.testing.worlds import tiny_world
from recgym.user_models.ensemble import EnsembleUsers
from recgym.user_models.preference.users import PreferenceUsers
from recgym.worlds.world import World, load_world


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return tiny_world(tmp_path_factory.mktemp("ensemble") / "tiny", num_items=300, num_users=40)


def played(world: World, model: object) -> tuple[Simulator, object]:
    simulator = Simulator(world, load_scenario("default"), user_model=model)  # type: ignore[arg-type]
    state = simulator.reset(torch.arange(12), torch.arange(12))
    for _ in range(3):
        state, _ = simulator.step(state, state.candidates[:, :10].to(torch.int64))
    return simulator, state


def test_the_bundle_keeps_the_members(world: World) -> None:
    again = load_world(world.path)
    assert len(again.members) == 2
    assert again.members[0].keys() == again.weights.keys()
    assert not torch.equal(again.members[0]["match.weight"], again.members[1]["match.weight"])


def test_chances_are_the_mean_of_the_members_and_the_spread_their_deviation(world: World) -> None:
    users = EnsembleUsers(world)
    simulator, state = played(world, users)
    items = state.candidates[:, :7].to(torch.int64)  # type: ignore[attr-defined]
    nothing = torch.zeros(items.shape)
    hidden, visit = state.hidden, state.visit  # type: ignore[attr-defined]
    each = [m.appraise(own, items, nothing, nothing, visit) for m, own in zip(users.members, hidden, strict=True)]
    chances = torch.stack([view.logit.sigmoid() for view in each])
    view = users.appraise(hidden, items, nothing, nothing, visit)
    assert torch.allclose(view.logit.sigmoid(), chances.mean(0), atol=1e-6)
    assert torch.allclose(view.quantity_stop, torch.stack([v.quantity_stop for v in each]).mean(0), atol=1e-6)
    spread = users.disagreement(hidden, items, nothing, nothing, visit)
    assert torch.allclose(spread, chances.std(0, correction=0), atol=1e-6)
    assert float(spread.mean()) > 0.001
    assert simulator.disagreement(state, items).shape == items.shape  # type: ignore[union-attr, arg-type]


def test_members_alike_answer_as_the_world_does(world: World) -> None:
    alike = replace(world, members=(world.weights, world.weights))
    one, first = played(world, PreferenceUsers(world))
    three, second = played(world, EnsembleUsers(alike))
    items = first.candidates[:, :10].to(torch.int64)  # type: ignore[attr-defined]
    assert torch.equal(first.candidates, second.candidates)  # type: ignore[attr-defined]
    assert torch.allclose(one.expected_reward(first, items), three.expected_reward(second, items), atol=1e-5)  # type: ignore[arg-type]
    assert float(three.disagreement(second, items).max()) < 1e-6  # type: ignore[union-attr, arg-type]
    assert one.disagreement(first, items) is None  # type: ignore[arg-type]


def test_a_world_without_members_says_how_to_get_them(world: World) -> None:
    with pytest.raises(WorldError, match="recgym world ensemble tiny"):
        USER_MODELS.load("ensemble")(replace(world, members=()))


def test_evaluation_reads_the_disagreement_and_agents_play_in_it(world: World) -> None:
    both = {
        name: recgym.evaluate(world, agents=["random"], users=20, seeds=1, progress=False, user_model=name)
        for name in ("preference", "ensemble")
    }
    assert both["preference"]["disagreement"].isna().all()
    told = both["ensemble"]["disagreement"].to_numpy(np.float64)
    assert ((told > 0) & (told < 0.5)).all()
    with pytest.raises(UnknownNameError, match="ensemble"):
        recgym.evaluate(world, agents=["random"], users=2, seeds=1, progress=False, user_model="ensembel")
