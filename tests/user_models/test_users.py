"""Simulated users: fitted distributions come back as fitted, and nobody depends on who else is there."""

import threading
import time

import numpy as np
import pytest
import torch

from recgym import compiled
from recgym.simulation.record import Records
from recgym.testing.worlds import tiny_world
from recgym.types import Noise, Slate, Visit
from recgym.user_models.preference.network import GAP_BINS, SIZE_BINS
from recgym.user_models.preference.users import PreferenceUsers


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return tiny_world(tmp_path_factory.mktemp("world") / "tiny", num_users=150)


def start(world, users, rows):
    record, _ = Records(world, torch.device("cpu")).start(rows)
    zero = torch.zeros(len(rows), dtype=torch.int32)
    visit = Visit(day=zero + 300, gap_days=zero + 3, trip=zero, step=zero, bought=zero, intended=zero + 5)
    return users.init(rows, record, visit), record, visit


def test_gaps_follow_the_fitted_distribution_at_hazard_one(world):
    users = PreferenceUsers(world)
    rows = torch.full((20_000,), 7)
    state, record, _ = start(world, users, rows)
    uniforms = (torch.arange(20_000) + 0.5) / 20_000
    gaps, gone = users.away(state, record, uniforms, torch.ones(20_000))
    survival = users.gap_survival(state)[0]
    for index, edge in enumerate(GAP_BINS[1:]):
        assert float((gaps >= edge).float().mean()) == pytest.approx(float(survival[index]), abs=2e-3)
    assert float(gone.float().mean()) == pytest.approx(float(survival[-2]), abs=2e-3)
    # A multiplied hazard raises survival to that power.
    slower, _ = users.away(state, record, uniforms, torch.full((20_000,), 0.5))
    for index, edge in enumerate(GAP_BINS[1:]):
        assert float((slower >= edge).float().mean()) == pytest.approx(float(survival[index]) ** 0.5, abs=2e-3)


def test_sizes_follow_the_fitted_distribution(world):
    users = PreferenceUsers(world)
    rows = torch.full((20_000,), 9)
    state, _, _ = start(world, users, rows)
    sizes = users.intend(state, (torch.arange(20_000) + 0.5) / 20_000)
    survival = users.size_survival(state)[0]
    assert int(sizes.min()) >= SIZE_BINS[0]
    assert int(sizes.max()) < SIZE_BINS[-1]
    for index, edge in enumerate(SIZE_BINS[1:-1]):
        assert float((sizes >= edge).float().mean()) == pytest.approx(float(survival[index]), abs=2e-3)


def test_quantities_are_geometric(world):
    users = PreferenceUsers(world)
    rows = torch.full((5_000,), 11)
    state, _, visit = start(world, users, rows)
    items = torch.full((5_000, 1), 4)
    nothing = torch.zeros(5_000, 1)
    yes = torch.ones(5_000, 1, dtype=torch.bool)
    slate = Slate(items, yes, nothing, nothing, nothing, yes[:, 0])
    draw = ((torch.arange(5_000) + 0.5) / 5_000)[:, None]
    response, _ = users.respond(state, slate, visit, Noise(want=nothing, quantity=draw, rating=draw))
    one = torch.tensor([0])
    view = users.appraise(state.select(one), items[:1], nothing[:1], nothing[:1], visit.select(one))
    stop = float(view.quantity_stop)
    assert bool(response.consumed.all())
    for count in (1, 2, 3):
        expected = stop * (1 - stop) ** (count - 1)
        assert float((response.quantity == count).float().mean()) == pytest.approx(expected, abs=5e-3)


def test_starting_states_do_not_depend_on_who_else_starts(world):
    alone, together = PreferenceUsers(world), PreferenceUsers(world)
    everyone, _, _ = start(world, together, torch.arange(150))
    for row in (0, 3, 64, 149):
        single, _, _ = start(world, alone, torch.tensor([row]))
        assert torch.equal(single.cache[0], everyone.cache[row])
        assert torch.equal(single.query[0], everyone.query[row])


@pytest.mark.parametrize("enter", ["bound", "compiled", "torch"])
def test_threads_that_start_the_same_users_compute_them_once(world, monkeypatch, enter):
    """A starting cache that is there is read, and must never be written again."""
    users, meet, started = PreferenceUsers(world), threading.Barrier(2), []
    name = "_prefill" if enter == "torch" else "_replay"
    compute = getattr(users, name)

    def slowly(rows: torch.Tensor) -> None:
        time.sleep(0.1)
        started.extend(rows.tolist())
        compute(rows)

    def start_both() -> None:
        with torch.no_grad():
            meet.wait()
            users._start_rows(np.array([3, 70, 3])) if enter == "bound" else users._start(torch.tensor([3, 70, 3]))

    monkeypatch.setattr(users, name, slowly)
    monkeypatch.setattr(compiled, "enabled", lambda: enter != "torch")
    threads = [threading.Thread(target=start_both) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(started) == [3, 70]


def test_chunks_leave_the_users_that_are_there_as_they_are(world):
    users = PreferenceUsers(world)
    users._start_rows(np.array([5]))
    before = users._caches[5].clone()
    with compiled.reference():
        users.starting_states(torch.tensor([6]))  # of the same chunk, by the other arithmetic
    assert torch.equal(users._caches[5], before)
    assert bool(users._ready[:64].all())


def test_building_users_leaves_the_global_generator_alone(world):
    before = torch.get_rng_state()
    PreferenceUsers(world)
    assert torch.equal(torch.get_rng_state(), before)


def test_an_item_bought_before_is_scored_with_the_repeat_term(world):
    users = PreferenceUsers(world)
    state, _, visit = start(world, users, torch.tensor([5]))
    items = torch.tensor([[3, 3]])
    view = users.appraise(state, items, torch.tensor([[0.0, 6.0]]), torch.tensor([[0.0, 9.0]]), visit)
    assert float(view.logit[0, 0]) != float(view.logit[0, 1])


def test_ratings_are_ordered(tmp_path):
    world = tiny_world(tmp_path / "films", kind="rating")
    users = PreferenceUsers(world)
    state, _, visit = start(world, users, torch.arange(40))
    items = torch.arange(10).expand(40, -1)
    nothing = torch.zeros(40, 10)
    cdf = users.appraise(state, items, nothing, nothing, visit).rating_cdf
    assert bool((cdf.diff(dim=-1) >= 0).all())
    slate = Slate(items, torch.ones_like(nothing, dtype=torch.bool), nothing + 50, nothing, nothing, nothing[:, 0] == 0)
    draw = torch.rand(40, 10, generator=torch.Generator().manual_seed(0))
    response, _ = users.respond(state, slate, visit, Noise(want=nothing + 0.5, quantity=draw, rating=draw))
    assert set(response.rating.unique().tolist()) <= {1, 2, 3, 4, 5}
    assert bool(response.consumed.all())
