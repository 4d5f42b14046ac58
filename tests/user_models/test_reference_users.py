"""The reference users follow the published equations, by hand on a few numbers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from recgym.simulation.simulator import Simulator
from recgym.testing.worlds import tiny_world
from recgym.types import Noise, Response, Slate
from recgym.user_models.boredom import BoredState
from recgym.user_models.influence import OMEGA, InfluencedUsers
from recgym.user_models.interest_evolution import BUDGET, LENGTH, InterestEvolutionUsers, Interests
from recgym.user_models.long_term_satisfaction import Exposure, LongTermSatisfactionUsers
from recgym.user_models.replay import Asked, ReplayUsers
from recgym.worlds.reference import reference_world, stepwise

NOTHING: Any = None


def slate_of(items: list[int], lanes: int) -> Slate:
    rows = torch.tensor([items]).repeat(lanes, 1)
    zero = torch.zeros(rows.shape)
    return Slate(rows, rows >= 0, zero, zero, zero, torch.ones(lanes, dtype=torch.bool))


def taken(slate: Slate, slot: int | None) -> Response:
    consumed = torch.zeros_like(slate.examined)
    if slot is not None:
        consumed[:, slot] = True
    return Response(consumed, consumed.int(), torch.zeros_like(consumed, dtype=torch.int32))


def luck(shape: torch.Size) -> Noise:
    generator = torch.Generator().manual_seed(0)
    return Noise(*(torch.rand(shape, generator=generator).clamp(1e-6, 1 - 1e-6) for _ in range(3)))


def test_one_click_a_slate_in_proportion_to_interest() -> None:
    users = InterestEvolutionUsers(reference_world(50, 60))
    items = [int((users.topic == topic).nonzero()[0]) for topic in (0, 5, 11)]
    interest = torch.zeros(20_000, 12)
    interest[:, 0], interest[:, 5], interest[:, 11] = 1.0, 0.0, -0.5  # masses 2, 1 and 1/2, and 1 for none
    state = Interests(interest, torch.full((20_000,), BUDGET))
    slate = slate_of(items, 20_000)
    response, probability = users.respond(state, slate, NOTHING, luck(slate.items.shape))
    expected = torch.tensor([2, 1, 0.5]) / 4.5
    assert torch.allclose(probability[0], expected, atol=1e-5)
    assert response.consumed.sum(1).max() == 1
    assert torch.allclose(response.consumed.float().mean(0), expected, atol=0.015)


def test_budgets_and_interests_move_as_published() -> None:
    users = InterestEvolutionUsers(reference_world(50, 60))
    item = int(users.quality.argmax())
    topic, quality = int(users.topic[item]), float(users.quality[item])
    state = Interests(torch.full((1, 12), 0.5), torch.tensor([10.0]))
    slate = slate_of([item], 1)
    clicked = users.transition(state, slate, taken(slate, 0), NOTHING)
    assert float(clicked.budget) == pytest.approx(10 - LENGTH + 0.9 / 3.4 * LENGTH * quality, rel=1e-5)
    assert float(clicked.interest[0, topic]) == pytest.approx(0.5 + 0.5 * 0.3 * 0.5 * 0.5)
    assert float(clicked.interest.sum()) - float(clicked.interest[0, topic]) == pytest.approx(5.5)
    passed = users.transition(state, slate, taken(slate, None), NOTHING)
    assert float(passed.budget) == 9.5 and torch.equal(passed.interest, state.interest)
    one = torch.ones(2)
    through = replace(state.select(torch.tensor([0, 0])), budget=torch.tensor([0.1, 0.0]))
    assert users.away(through, NOTHING, one * 0.5, one)[1].tolist() == [False, True]


def test_choc_engages_now_and_kale_later() -> None:
    users = LongTermSatisfactionUsers(reference_world(50, 60))
    choc, kale = int(users.clickbait.argmax()), int(users.clickbait.argmin())
    state = Exposure(torch.zeros(1), torch.tensor([60], dtype=torch.int32))
    both = torch.tensor([[choc, kale]])
    zero = torch.zeros(both.shape)
    mean = 1 / users.appraise(state, both, zero, zero, NOTHING).quantity_stop[0]
    c = float(users.clickbait[choc])
    assert float(mean[0]) == pytest.approx(torch.tensor((5 * c + 4 * (1 - c)) / 2 + 0.5).exp().item(), rel=1e-4)
    assert mean[0] > 1.5 * mean[1]
    ends = {}
    for item in (choc, kale):
        after = state
        for _ in range(30):
            after = users.transition(after, slate_of([item], 1), taken(slate_of([item], 1), 0), NOTHING)
        score = float(users.clickbait[item])
        assert float(after.net) == pytest.approx(-2 * (score - 0.5) / 0.3, rel=1e-3)
        ends[item] = 1 / users.appraise(after, both[:, :1] * 0 + item, zero, zero, NOTHING).quantity_stop[0, 0]
    assert ends[kale] > 2 * ends[choc]


@pytest.mark.parametrize(
    ("model", "size", "slates"),
    [(LongTermSatisfactionUsers, 1, 1), (LongTermSatisfactionUsers, 1, 6), (InterestEvolutionUsers, 3, 1)],
)
def test_episodes_last_as_long_as_the_budget(model: Any, size: int, slates: int) -> None:
    world = reference_world(50, 60)
    scenario = stepwise(size, 10, {"purchase": 1.0}, slates)
    simulator = Simulator(world, scenario, user_model=model(world))
    state = simulator.reset(torch.arange(8), torch.zeros(8, dtype=torch.int64))
    ended = torch.zeros(8, dtype=torch.int64)
    for step in range(1, 400):
        state, outcome = simulator.step(state, state.candidates[:, :size].to(torch.int64))
        assert not outcome.truncated.any()
        ended = torch.where((ended == 0) & outcome.terminated, step, ended)
        if (ended > 0).all():
            break
    assert (ended > 0).all()
    if size == 1:
        assert (ended == 60).all()
    else:
        assert 40 < ended.float().mean() < 200 and len(ended.unique()) > 3


def test_influence_moves_affinities_towards_what_was_taken(tmp_path: Any) -> None:
    users = InfluencedUsers(tiny_world(tmp_path / "tiny"))
    state = BoredState(users.affinities[:2].clone(), torch.zeros(2, 10))
    slate = slate_of([3, 9], 2)
    moved = users.transition(state, slate, taken(slate, 1), NOTHING)
    assert torch.allclose(moved.affinity, OMEGA * state.affinity + (1 - OMEGA) * users.vectors[9])
    assert torch.equal(users.transition(state, slate, taken(slate, None), NOTHING).affinity, state.affinity)


def test_replay_answers_from_the_log_and_counts_what_it_cannot(tmp_path: Any) -> None:
    world = tiny_world(tmp_path / "tiny")
    users, log = ReplayUsers(world), world.interactions()
    row = log.iloc[50]
    known, user = int(row["item"]), int(row["user"])
    unknown = next(item for item in range(300) if item not in set(log.loc[log["user"] == user, "item"]))
    state = users.init(torch.tensor([user]), NOTHING, NOTHING)
    chance = users.logits(state, torch.tensor([[known, unknown]]), NOTHING).sigmoid()[0]
    share = min(row["count"] / (world.users["num_trips"][user] + 1), 0.999)
    assert float(chance[0]) == pytest.approx(share, rel=1e-4) and float(chance[1]) < 1e-5
    assert users.knows(torch.tensor([user]), torch.tensor([[known, unknown]])).tolist() == [[True, False]]
    slate = slate_of([known, unknown], 1)
    after: Asked = users.transition(state, slate, taken(slate, None), NOTHING)
    assert (int(after.answered), int(after.unanswered)) == (1, 1)
