"""What a subclass changes is heard, wherever kernels would compute the plain version."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from recgym.scenario import load_scenario
from recgym.simulation.simulator import Simulator
from recgym.testing.worlds import tiny_world
from recgym.user_models.boredom import BoredUsers
from recgym.user_models.influence import InfluencedUsers
from recgym.user_models.preference.users import CompactPreferenceUsers, PreferenceUsers
from recgym.user_models.protocol import can_bind
from recgym.worlds.world import World

LANES = 16


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return tiny_world(tmp_path_factory.mktemp("world") / "tiny", num_users=50)


class Restless(PreferenceUsers):
    """Buys nothing, always wants five items, is back after five to seven days, and has no history."""

    def __init__(self, world: World, device: str = "cpu") -> None:
        super().__init__(world, device)

    def answer(self, *args: Any) -> Any:
        response, chance = super().answer(*args)
        return type(response)(response.consumed & False, response.quantity * 0, response.rating * 0), chance * 0

    def size_survival(self, state: Any) -> Tensor:
        return (torch.arange(super().size_survival(state).shape[1]) < 4).float().expand(len(state.user), -1)

    def gap_survival(self, state: Any) -> Tensor:
        return (torch.arange(super().gap_survival(state).shape[1]) < 6).float().expand(len(state.user), -1)

    def history_tokens(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        tokens, lengths = super().history_tokens(rows)
        return tokens * 0, lengths * 0


def one(base: type, name: str) -> type:
    return type("Own", (base,), {name: getattr(base, name)})


@pytest.mark.parametrize(
    "name",
    ["answer", "gap_survival", "gap_of", "size_survival", "starting_states", "history_tokens", "respond", "arrive"],
)
def test_users_with_a_method_of_their_own_are_not_bound(name: str) -> None:
    for base in (PreferenceUsers, CompactPreferenceUsers):
        plain, more = object.__new__(base), object.__new__(type("More", (base,), {"__init__": None, "mood": None}))
        assert can_bind(plain) and can_bind(more)
        assert not can_bind(object.__new__(one(base, name)))


def test_the_reference_users_are_bound_while_they_are_plain() -> None:
    assert can_bind(object.__new__(BoredUsers))
    assert not can_bind(object.__new__(InfluencedUsers))
    assert not can_bind(object.__new__(one(BoredUsers, "logits")))


def test_what_a_subclass_answers_is_what_happens(world: World) -> None:
    simulator = Simulator(world, load_scenario("default", {"episode.kind": "horizon"}), user_model=Restless(world))
    seeds = torch.arange(LANES)
    state = simulator.reset(seeds, seeds * 0)
    assert state.visit.intended.unique().tolist() == [5]
    assert set(state.visit.gap_days.tolist()) == {6}
    assert torch.equal(state.hidden.sequence, simulator.user_model.network.start.expand(LANES, -1))
    for _ in range(3):
        state, outcome = simulator.step(state, state.candidates[:, :10].long())
        assert not bool(outcome.response.consumed.any())


def test_the_pace_of_reference_users_is_that_of_their_class(world: World) -> None:
    rare = type("Rare", (BoredUsers,), {"mean_gap": 30.0, "mean_basket": 30.0})
    scenario, seeds = load_scenario("default", {"episode.kind": "horizon"}), torch.arange(400)
    plain, other = (
        Simulator(world, scenario, user_model=kind(world)).reset(seeds, seeds * 0) for kind in (BoredUsers, rare)
    )
    assert can_bind(rare(world))
    assert other.visit.gap_days.float().mean() > 2 * plain.visit.gap_days.float().mean()
    assert other.visit.intended.float().mean() > 2 * plain.visit.intended.float().mean()
