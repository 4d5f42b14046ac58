"""What simulated users hold after many slates is what the network computes from the whole history at once."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from recgym.scenario import load_scenario
from recgym.simulation.simulator import Simulator
from recgym.testing.worlds import tiny_world
from recgym.user_models.preference.network import MAX_FEEDBACK, gap_levels
from recgym.user_models.preference.users import PreferenceUsers
from recgym.worlds.world import World

SCENARIO = load_scenario("default", {"episode.kind": "horizon", "behaviour.patience": 0.3})


@pytest.fixture(scope="module", params=["purchase", "rating"])
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> World:
    """Histories of 0 to 29 tokens, of which attention sees the last 4 a layer."""
    return tiny_world(tmp_path_factory.mktemp("worlds") / "tiny", kind=request.param, window=4, num_items=120)


def shipped(users: PreferenceUsers, rows: Tensor) -> list[Tensor]:
    """The tokens [T, d] of each user's log."""
    tokens, lengths = users.history_tokens(rows.cpu())
    return [tokens[lane, :length] for lane, length in enumerate(lengths.tolist())]


def told(users: PreferenceUsers, outcome: Any, gap_level: Tensor) -> Tensor:
    """The token [B, d] of a slate, computed as in training."""
    net, vectors = users.network, users.item_vectors
    rated = "rating" in users.world.spec.responses
    feedback = (outcome.rating if rated else outcome.quantity).clamp(0, MAX_FEEDBACK).long()
    pooled, count = net.pool(vectors, outcome.slate.masked_fill(~outcome.consumed, -1), feedback)
    passed = outcome.examined & ~outcome.consumed
    ignored = (net.item_ignored(vectors)[outcome.slate] * passed[..., None]).sum(1)
    return net.token(pooled, ignored, count, passed.sum(1).float(), gap_level)


def test_users_are_what_full_recomputation_says(world: World, device: torch.device) -> None:
    @settings(max_examples=6, deadline=None)
    @given(lanes=st.integers(1, 6), steps=st.integers(6, 16), seed=st.integers(0, 2**31 - 1))
    def hold(lanes: int, steps: int, seed: int) -> None:
        check(world, device, lanes, steps, seed)

    hold()


def check(world: World, device: torch.device, lanes: int, steps: int, seed: int) -> None:
    """Some lanes take random slates, wrap around their caches and start again."""
    users = PreferenceUsers(world, device)
    simulator = Simulator(world, SCENARIO, device, users)
    generator = torch.Generator().manual_seed(seed)
    seeds = torch.arange(lanes, device=device) + seed
    episodes = torch.zeros_like(seeds)
    state = simulator.reset(seeds, episodes)
    histories = shipped(users, state.user)
    for step in range(steps):
        if step % 5 == 4:  # some lanes start again as other users; the others must not notice
            order = torch.randperm(lanes, generator=generator)
            again = order[: lanes // 2 + 1].sort().values.to(device)
            episodes[again] += 1
            simulator.restart(state, again, seeds[again], episodes[again])
            for lane, history in zip(again.tolist(), shipped(users, state.user[again]), strict=True):
                histories[lane] = history
        level = torch.where(state.visit.step == 0, gap_levels(state.visit.gap_days), 0)
        slate = torch.randint(world.num_items, (lanes, 10), generator=generator).to(device)
        state, outcome = simulator.step(state, slate)
        token = told(users, outcome, level)
        histories = [torch.cat((history, token[lane : lane + 1])) for lane, history in enumerate(histories)]
        full = torch.stack([users.network.encode(history[None])[0, -1] for history in histories])
        torch.testing.assert_close(state.hidden.sequence, full, atol=1e-4, rtol=0)
    assert state.hidden.position.tolist() == [len(history) for history in histories]
