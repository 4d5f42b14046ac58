"""A lane has bitwise the same outcomes alone, in any batch, in any order, and after a branch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from recgym.scenario import load_scenario
from recgym.simulation.simulator import Simulator
from recgym.simulation.state import State
from recgym.worlds.world import World

Simulate = Callable[..., Simulator]
KEYS = ("user", "candidates", "candidate_items", "user_id", "history")
UNKNOWN_USERS: dict[str, Any] = {
    "episode.kind": "horizon",
    "users.history": {"0": 0.3, "1-5": 0.3, "6-20": 0.2, "all": 0.2},
    "items.arrivals": {"share": 0.2, "day": 5},
    "actions.candidates": {"own": 30, "popular": 40, "uniform": 20, "new": 10},
}
MOODS: dict[str, Any] = {
    "episode.kind": "horizon",
    "behaviour": {
        "topics": "subcategory",
        "boredom": {"strength": 0.7},
        "drift": {"strength": 1.0},
        "shift": {"strength": 1.0, "day": 5},
    },
}
AIMS: dict[str, Any] = {
    "episode.kind": "horizon",
    "items": {"provider": "brand", "harmful": {"attribute": "category", "values": ["Category 1"]}},
    "behaviour.delay": {"share": 0.4},
    "objective.terms": {
        **{name: 1.0 for name in ("purchase", "click", "return_visit", "diversity", "novelty", "coverage")},
        **{name: -1.0 for name in ("unfairness", "harm")},
    },
    "constraints": [{"term": "diversity", "at_least": 0.9}],
}
OVERRIDES: list[dict[str, Any]] = [
    {"episode.kind": "horizon"},
    {"behaviour.examination.model": "cascade"},
    UNKNOWN_USERS,
    MOODS,
    AIMS,
]


def play(simulator: Simulator, state: State, steps: int) -> tuple[list[dict[str, Tensor]], dict[str, Tensor]]:
    """Everything that comes out of ``steps`` slates with repeats and duplicates, and the state at the end."""
    seen = []
    places = torch.arange(10, device=state.seed.device) * 7
    slate = state.candidates[:, places].to(torch.int64)
    for step in range(steps):
        out = simulator.observe(state, KEYS)
        out["expected"] = simulator.expected_reward(state, state.candidates.to(torch.int64))
        kept = slate[:, :3]
        slate = state.candidates[:, places].to(torch.int64)
        if step % 2:
            slate[:, :3], slate[:, 9] = kept, slate[:, 5]
        state, outcome = simulator.step(state, slate)
        for name in ("examined", "consumed", "quantity", "rating", "reward", "terminated", "truncated", "gap_days"):
            out[name] = getattr(outcome, name)
        seen.append({name: value.cpu().clone() for name, value in out.items()})
    return seen, {name: value.cpu().clone() for name, value in state.flatten().items()}


def subsets() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    alone = [torch.tensor([lane]) for lane in (0, 17, 32)]
    ranges = [torch.arange(n) + offset for n, offset in ((2, 0), (3, 5), (5, 1), (7, 20), (16, 17))]
    return [*alone, *ranges, torch.randperm(33, generator=generator)]


@pytest.mark.parametrize("overrides", OVERRIDES, ids=["horizon", "cascade", "unknown users", "moods", "aims"])
@pytest.mark.parametrize("kind", ["purchase", "rating"])
def test_lanes_are_the_same_in_any_batch(
    kind: str, overrides: dict[str, Any], world: World, films: World, device: torch.device
) -> None:
    if overrides is MOODS and kind == "purchase":  # nothing is paid for films
        overrides = {**MOODS, "behaviour": {**MOODS["behaviour"], "price_image": {"effect": 2.0}}}
    simulator = Simulator(world if kind == "purchase" else films, load_scenario("default", overrides), device)
    seeds = torch.arange(33, device=device) * 7 + 5
    episodes = seeds % 3
    whole, end = play(simulator, simulator.reset(seeds, episodes), 12)
    assert sum(int(step["consumed"].sum()) for step in whole) > 100
    for lanes in subsets():
        here = lanes.to(device)
        part, part_end = play(simulator, simulator.reset(seeds[here], episodes[here]), 12)
        for step, (all_of_it, some) in enumerate(zip(whole, part, strict=True)):
            for name, value in all_of_it.items():
                assert torch.equal(value[lanes], some[name]), (name, step, len(lanes))
        for name, value in end.items():
            assert torch.equal(value[lanes], part_end[name]), (name, len(lanes))


def test_a_branch_with_the_same_luck_replays(world: World, device: torch.device) -> None:
    simulator = Simulator(world, load_scenario("default", {"episode.kind": "horizon"}), device)
    state = simulator.reset(torch.arange(6, device=device), torch.zeros(6, dtype=torch.int64, device=device))
    for _ in range(3):
        state, _ = simulator.step(state, state.candidates[:, :10].to(torch.int64))
    twin = simulator.branch(state, 3, "same")
    whole, _ = play(simulator, state, 8)
    copies, _ = play(simulator, twin, 8)
    for a, b in zip(whole, copies, strict=True):
        for name, value in a.items():
            assert torch.equal(value.repeat_interleave(3, dim=0), b[name]), name


def test_a_branch_with_fresh_luck_redraws_only_what_is_open(simulate: Simulate, wants: Any) -> None:

    attentive = {"behaviour.examination.decay": 1.0, "behaviour.reexamination": 1.0, "behaviour.patience": 0.0}
    simulator = simulate(attentive, wants(torch.zeros(300), drift=1.0))
    state = simulator.reset(torch.arange(400), torch.zeros(400, dtype=torch.int64))
    slate = torch.arange(10).repeat(400, 1)
    state, first = simulator.step(state, slate)
    fresh = simulator.branch(state, 5, "fresh")
    again = slate.repeat_interleave(5, dim=0)
    expected = simulator.expected_reward(fresh, again)
    _, other = simulator.step(fresh, again + 10)
    assert other.consumed.view(400, 5, 10).float().var(dim=1).mean() > 0.05  # open questions are drawn anew
    fresh = simulator.branch(state, 5, "fresh")
    _, outcome = simulator.step(fresh, again)
    assert not (outcome.consumed & first.consumed.repeat_interleave(5, dim=0)).any()
    # What was declined at p0 is bought at p1 with the posterior chance, not with p1.
    assert abs(float(outcome.reward.mean() - expected.sum(1).mean())) < 0.05


def test_the_seed_and_the_episode_change_the_luck(world: World) -> None:
    simulator = Simulator(world, load_scenario("default"))
    zero = torch.zeros(40, dtype=torch.int64)
    users = torch.arange(40)
    a, _ = play(simulator, simulator.reset(zero, zero, users), 3)
    b, _ = play(simulator, simulator.reset(zero + 1, zero, users), 3)
    c, _ = play(simulator, simulator.reset(zero, zero + 1, users), 3)
    for other in (b, c):
        assert not torch.equal(a[0]["candidate_items"], other[0]["candidate_items"])
        assert not torch.equal(a[0]["examined"], other[0]["examined"])
    drawn = simulator.reset(torch.arange(4000), torch.zeros(4000, dtype=torch.int64)).user
    assert len(drawn.unique()) == world.num_users


@pytest.mark.parametrize("kind", ["session", "horizon"])
def test_chunks_do_not_show(simulate: Simulate, monkeypatch: pytest.MonkeyPatch, kind: str, wants: Any) -> None:
    simulator = simulate({"episode.kind": kind}, wants(intended=6))
    seeds = torch.arange(37)
    whole, end = play(simulator, simulator.reset(seeds, seeds * 0), 12)
    monkeypatch.setattr("recgym.simulation.simulator.CHUNK", 8)
    chunked, chunked_end = play(simulator, simulator.reset(seeds, seeds * 0), 12)
    for a, b in zip(whole, chunked, strict=True):
        for name, value in a.items():
            assert torch.equal(value, b[name]), name
    for name, value in end.items():
        assert torch.equal(value, chunked_end[name]), name


def test_an_exception_in_a_later_chunk_leaves_all_lanes_alone(
    simulate: Simulate, monkeypatch: pytest.MonkeyPatch, wants: Any
) -> None:
    class Broken(wants):
        broken = False

        def away(self, state: Any, *args: Any) -> Any:
            if self.broken and int(state.user.min()) < 0:
                raise RuntimeError("broken")
            return super().away(state, *args)

    users = Broken(torch.full((300,), 40.0), intended=1)
    simulator = simulate({"episode.kind": "horizon"}, users)
    monkeypatch.setattr("recgym.simulation.simulator.CHUNK", 8)
    state = simulator.reset(torch.arange(20), torch.zeros(20, dtype=torch.int64))
    state.hidden.user[18] = -1  # the third chunk fails
    before = state.clone().flatten()
    users.broken = True
    with pytest.raises(RuntimeError, match="broken"):
        simulator.step(state, state.candidates[:, :10].to(torch.int64))
    after = state.flatten()
    assert all(torch.equal(before[name], after[name]) for name in before)
