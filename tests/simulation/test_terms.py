"""Terms, weights and constraints: known answers and refusals."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from recgym.envs.single import RecEnv
from recgym.envs.vector import RecVectorEnv
from recgym.errors import ScenarioError
from recgym.scenario import load_scenario
from recgym.simulation.simulator import Simulator
from recgym.worlds.world import World

HARM = {"items.harmful": {"attribute": "brand", "values": ["Private"]}, "items.provider": "brand"}


def simulator(world: World, *terms: str, **overrides: Any) -> Simulator:
    weights = {name: -1.0 if name in ("unfairness", "harm") else 1.0 for name in terms}
    return Simulator(world, load_scenario("default", {"objective": {"terms": weights}, **HARM, **overrides}))


def test_terms_of_a_slate_are_what_they_are_defined_as(world: World) -> None:
    core = simulator(world, "diversity", "novelty", "coverage", "unfairness", "harm")
    lanes = torch.arange(8)
    slate = torch.arange(10).repeat(8, 1)
    slate[:, 9] = 0  # a duplicate
    state, outcome = core.step(core.reset(lanes, lanes * 0), slate)
    items = slate[0].tolist()
    text = world.item_tensors["text_pca"][items].double()
    text = text / text.norm(dim=1, keepdim=True)
    pairs = [1 - float(text[i] @ text[j]) for i in range(10) for j in range(i)]
    assert outcome.terms["diversity"][0] == pytest.approx(sum(pairs) / len(pairs), abs=1e-5)
    popularity = world.items["popularity"].to_numpy() + 1.0
    information = [-math.log2(value / popularity.sum()) for value in popularity]
    assert outcome.terms["novelty"][0] == pytest.approx(sum(information[i] for i in items) / 10 / max(information))
    assert outcome.terms["coverage"][0] == pytest.approx(0.9)
    brands = world.items["brand"].to_numpy()
    assert outcome.terms["harm"][0] == sum(brands[i] == "Private" for i in items)
    weights = [0.9**place for place in range(10)]
    exposure = sum(w for w, i in zip(weights, items, strict=True) if brands[i] == "Private") / sum(weights)
    assert outcome.terms["unfairness"][0] == pytest.approx(abs(exposure - (brands == "Private").mean()), abs=1e-6)
    signs = {"unfairness": -1.0, "harm": -1.0}
    total = sum(signs.get(name, 1.0) * term for name, term in outcome.terms.items())
    torch.testing.assert_close(outcome.reward, total)
    stayed = ~(outcome.terminated | outcome.truncated)
    _, again = core.step(state, slate)
    assert stayed.any() and (again.terms["coverage"][stayed] == 0).all()


def test_a_return_visit_is_earned_where_the_user_comes_back_in_time(world: World) -> None:
    core = simulator(world, "return_visit", **{"episode.kind": "horizon", "episode.horizon_days": 20})
    lanes = torch.arange(40)
    state = core.reset(lanes, lanes * 0)
    total, alive = torch.zeros(40), torch.ones(40, dtype=torch.bool)
    for _ in range(300):
        trip = state.visit.trip.clone()
        state, outcome = core.step(state, state.candidates[:, :10].long())
        ended = outcome.terminated | outcome.truncated
        came = (state.visit.trip > trip) & ~ended
        assert torch.equal(outcome.reward[alive], came[alive].float())
        total += outcome.reward * alive
        alive &= ~ended
    assert not alive.any() and total.max() > 1


def test_ratings_and_what_greedy_expects_of_them(films: World) -> None:
    weights = {"rating": 1.0, "novelty": 2.0, "coverage": 1.0}
    core = Simulator(films, load_scenario("default", {"objective": {"terms": weights}}))
    lanes = torch.arange(400)
    state = core.reset(lanes, lanes * 0)
    slate = torch.arange(10).repeat(400, 1)
    expected = core.expected_reward(state, slate)
    extra = (2.0 * core.objective._terms.surprise[slate] + 1.0) / 10
    state, outcome = core.step(state, slate)
    assert torch.equal(outcome.terms["rating"], outcome.rating.sum(1).float())
    told = (outcome.rating * outcome.examined).sum().item()
    meant = ((expected - extra) * outcome.examined).sum().item()
    assert told == pytest.approx(meant, rel=0.1)


def test_costs_and_violations_are_in_info(world: World) -> None:
    constraints = [{"term": "harm", "at_most": 2.0}, {"term": "diversity", "at_least": 0.5, "at_most": 1.9}]
    scenario = load_scenario("default", {**HARM, "constraints": constraints})
    env = RecVectorEnv(world, scenario, num_envs=16, action_mode="catalogue")
    env.reset(seed=0)
    private = [i for i, brand in enumerate(world.items["brand"]) if brand == "Private"][:6]
    national = [i for i, brand in enumerate(world.items["brand"]) if brand == "National"][:10]
    _, reward, _, _, info = env.step([private + national[:4]] * 8 + [national] * 8)
    assert info["costs/harm"].tolist() == [4.0] * 8 + [0.0] * 8
    assert info["violations/harm"].tolist() == [True] * 8 + [False] * 8
    assert (info["costs/diversity"] == 0).all()
    assert torch.equal(torch.as_tensor(reward), torch.as_tensor(info["terms/purchase"]))
    single = RecEnv(world, scenario, action_mode="catalogue")
    single.reset(seed=0)
    info = single.step(private + national[:4])[4]
    assert info["costs/harm"] == 4.0 and info["violations/harm"] is True


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("objective: {terms: {liked: 1}}", "objective.terms.liked: term 'liked' does not apply to world 'tiny'"),
        ("objective: {terms: {unfairness: -1}}", "it needs items.provider"),
        ("objective: {terms: {return_visit: 1}}", "it needs episodes of several trips (episode.kind)"),
        ("constraints: [{term: harm, at_most: 1}]", "constraints: term 'harm' does not apply"),
    ],
)
def test_terms_that_a_world_lacks_are_refused(world: World, tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(f"name: mine\n{text}\n")
    with pytest.raises(ScenarioError) as caught:
        Simulator(world, load_scenario(path))
    assert str(caught.value).startswith(f"{path}:2: ") and message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("objective: {terms: {harm: 1}}", "terms.harm: a weight must be at most 0, for less of it is better, got 1"),
        ("objective: {terms: {purchase: -1}}", "terms.purchase: a weight must be at least 0"),
        ("constraints: [{term: harm}]", "a constraint on harm needs at_least or at_most"),
        ("constraints: [{term: harm, at_most: 1, at_least: 2}]", "contradiction: harm cannot be at least 2.0 and at"),
        (
            "constraints: [{term: diversity, at_least: 3}]",
            "contradiction: diversity is always in 0..2, never at least 3",
        ),
        ("constraints: [{term: harm, at_most: -1}]", "contradiction: harm is always 0 or more, never at most -1"),
        ("constraints: [{term: harm, at_most: 1}, {term: harm, at_least: 2}]", "contradiction: harm cannot be at"),
        ("constraints: [{term: harm, at_most: 1}, {term: harm, at_most: 2}]", "harm is bounded by both 1.0 and 2.0"),
    ],
)
def test_contradictions_are_refused_with_file_and_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(f"name: mine\n{text}\n")
    with pytest.raises(ScenarioError) as caught:
        load_scenario(path)
    assert str(caught.value).startswith(f"{path}:") and message in str(caught.value)
