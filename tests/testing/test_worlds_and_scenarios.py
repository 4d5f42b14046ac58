"""Worlds and scenarios with a fault are told what it is; sound ones pass, by the command too."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from recgym.cli import app
from recgym.registration import SCENARIOS
from recgym.scenario import load_scenario
from recgym.simulation.observation import Observer
from recgym.testing import ConformanceError, check_scenario, check_world
from recgym.testing.worlds import tiny_world
from recgym.worlds.world import World, available_worlds


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return tiny_world(tmp_path_factory.mktemp("worlds") / "tiny")


def items(world: World, **columns: Any) -> World:
    return dataclasses.replace(world, items=world.items.assign(**columns))


def tensors(world: World, kind: str, **changed: Any) -> World:
    return dataclasses.replace(world, **{kind: {**getattr(world, kind), **changed}})


BROKEN = [
    (lambda w: items(w, item_id="i0"), "[items] item_id 'i0' stands twice"),
    (lambda w: dataclasses.replace(w, items=w.items.drop(columns="brand")), "[items] items lack the columns brand"),
    (lambda w: dataclasses.replace(w, items=w.items[:-1]), "[items] world.json says 300 items, the table holds 299"),
    (lambda w: items(w, price=-1.0), "[ranges] items have price -1.0"),
    (lambda w: items(w, discount=1.5), "[ranges] items have discount 1.5"),
    (
        lambda w: tensors(w, "item_tensors", text_pca=torch.zeros(300, 3)),
        "[items] item tensor 'text_pca' is missing or",
    ),
    (lambda w: tensors(w, "item_tensors", vectors=w.item_tensors["vectors"] / 0), "or values that are not finite"),
    (lambda w: dataclasses.replace(w, users=w.users.assign(user_id="1")), "[users] user_id '1' stands twice"),
    (
        lambda w: dataclasses.replace(w, users=w.users.assign(age="old")),
        "[users] attribute 'age' has the values ['old']",
    ),
    (
        lambda w: tensors(w, "user_tensors", repeat_offsets=w.user_tensors["repeat_offsets"].flip(0)),
        "[records] repeat_offsets do not cut repeat_items",
    ),
    (
        lambda w: tensors(w, "user_tensors", repeat_items=w.user_tensors["repeat_items"] + 300),
        "[records] repeat_items hold rows that are no items",
    ),
    (
        lambda w: tensors(w, "user_tensors", repeat_items=w.user_tensors["repeat_items"].flip(0)),
        "[records] the record of a user names an item twice, or items out of order",
    ),
    (lambda w: tensors(w, "user_tensors", basket_times=torch.zeros(3)), "[privacy] it holds basket_times"),
]


@pytest.mark.parametrize(("spoil", "problem"), BROKEN, ids=[problem for _, problem in BROKEN])
def test_a_broken_world_is_told_what_is_wrong(spoil: Any, problem: str, world: World) -> None:
    with pytest.raises(ConformanceError) as caught:
        check_world(spoil(world), processes=False)
    assert problem in str(caught.value), str(caught.value)


def test_a_sound_world_passes(world: World) -> None:
    report = check_world(world, user_model="boredom", processes=False)
    assert {"items", "users", "records", "privacy", "hidden state", "probabilities"} <= set(report.rules)
    told = CliRunner().invoke(app, ["check", "world", str(world.path), "--no-processes"])
    assert told.exit_code == 0 and "conforms" in told.output, told.output


def test_an_observation_of_what_is_hidden_is_found(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    observe = Observer.observe

    def leaking(self: Observer, state: Any, keys: Any, views: Any = None) -> Any:
        seen = observe(self, state, keys, views)
        seen["user"] = seen["user"] + state.hidden.seen.sum(1, keepdim=True)
        return seen

    monkeypatch.setattr(Observer, "observe", leaking)
    with pytest.raises(ConformanceError, match=r"\[hidden state\] observation 'user' changes with the hidden state"):
        check_world(world, user_model="boredom", processes=False)


@pytest.mark.parametrize("name", SCENARIOS.names())
def test_every_shipped_scenario_conforms(name: str) -> None:
    if load_scenario(name).env.world not in (None, *available_worlds()):
        pytest.skip("its world is not built here")
    check_scenario(name, processes=False)


def test_scenarios_with_a_fault_are_told_what_it_is(world: World, tmp_path: Path) -> None:
    with pytest.raises(ConformanceError, match=r"\[description\] it has none"):
        check_scenario(load_scenario("default", {"description": ""}), world, processes=False)
    with pytest.raises(
        ConformanceError, match=r"\[environments\] making it raised ScenarioError: .*num_candidates is 400"
    ):
        big = {"num_candidates": 400, "candidates": {"own": 0, "popular": 0, "uniform": 400}}
        check_scenario(load_scenario("default", {"actions": big}), world, processes=False)
    quiet = load_scenario("default", {"objective": {"terms": {"purchase": 0.0}}, "episode.max_slates": 3})
    assert any("earned nothing" in hint for hint in check_scenario(quiet, world, processes=False).hints)
    (tmp_path / "mine.yaml").write_text("name: mine\ndescription: Mine.\nbehaviour: {liftt: 1}\n")
    told = CliRunner().invoke(app, ["check", "scenario", str(tmp_path / "mine.yaml")])
    assert told.exit_code == 2 and "Did you mean 'lift'" in told.output
