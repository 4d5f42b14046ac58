"""Compiled kernels compute what torch computes: integers and draws bit for bit, floats to rounding."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from recgym import compiled
from recgym.compiled import arithmetic
from recgym.compiled.products import affine, packed
from recgym.random import fold, integers, uniform
from recgym.registration import USER_MODELS
from recgym.scenario import load_scenario
from recgym.simulation.simulator import Simulator
from recgym.testing.worlds import tiny_world

CHANGED = {
    "episode.kind": "horizon",
    "users.history": {"0": 0.3, "1-5": 0.3, "6-20": 0.2, "all": 0.2},
    "items": {
        "arrivals": {"share": 0.2, "day": 5},
        "provider": "brand",
        "harmful": {"attribute": "category", "values": ["Category 1"]},
    },
    "actions.candidates": {"own": 30, "popular": 40, "uniform": 20, "new": 10},
    "behaviour.topics": "subcategory",
    "behaviour.boredom.strength": 0.7,
    "behaviour.drift.strength": 1.0,
    "behaviour.shift": {"strength": 1.0, "day": 5},
    "behaviour.delay": {"share": 0.3, "trips": 1.5},
    "objective.terms": {
        **{name: 1.0 for name in ("purchase", "click", "return_visit", "diversity", "novelty", "coverage")},
        **{name: -1.0 for name in ("unfairness", "harm")},
    },
    "constraints": [{"term": "diversity", "at_least": 0.9}],
}


@arithmetic.kernel
def _draws(keys, counters, folded, uniforms, whole):
    for i in range(keys.shape[0]):
        folded[i] = arithmetic.fold(keys[i], counters[i])
        uniforms[i] = arithmetic.uniform(folded[i])
        whole[i] = arithmetic.integer(folded[i], np.uint64(1000))


@arithmetic.summing_kernel
def _functions(x, out):
    for i in range(x.shape[0]):
        out[0, i] = arithmetic.exp(x[i])
        out[1, i] = arithmetic.log(abs(x[i]) + np.float32(1e-6))
        out[2, i] = arithmetic.log1p(abs(x[i]))
        out[3, i] = arithmetic.sigmoid(x[i])


def test_draws_are_those_of_recgym_random() -> None:
    rng = np.random.default_rng(0)
    keys, counters = rng.integers(-(2**63), 2**63 - 1, 5000), np.arange(5000)
    folded, uniforms, whole = np.empty(5000, np.uint64), np.empty(5000, np.float32), np.empty(5000, np.int64)
    _draws(keys.view(np.uint64), counters.view(np.uint64), folded, uniforms, whole)
    expected = fold(torch.from_numpy(keys), torch.from_numpy(counters))
    assert np.array_equal(folded.view(np.int64), expected.numpy())
    assert np.array_equal(uniforms, uniform(expected).numpy())
    assert np.array_equal(whole, integers(expected, 1000).numpy())


def test_elementary_functions_are_right_to_rounding() -> None:
    x = (np.random.default_rng(0).standard_normal(4096) * 20).astype(np.float32)
    x[:200] *= 1e-4
    out = np.empty((4, len(x)), np.float32)
    _functions(x, out)
    exact = x.astype(np.float64)
    expected = (np.exp(exact), np.log(np.abs(x) + np.float32(1e-6)), np.log1p(np.abs(exact)), 1 / (1 + np.exp(-exact)))
    for got, want in zip(out, expected, strict=True):
        np.testing.assert_allclose(got, want, rtol=5e-7, atol=1e-37)


@pytest.mark.parametrize(("width", "out"), [(64, 192), (9, 40), (16, 7)])
def test_products_do_not_depend_on_the_rows_beside(width: int, out: int) -> None:
    generator = torch.Generator().manual_seed(0)
    weight, bias = torch.randn(out, width, generator=generator), torch.randn(out, generator=generator)
    x = torch.randn(33, width, generator=generator)
    table = packed(weight, bias)
    whole = np.empty((33, table.shape[1]), np.float32)
    affine(x.numpy(), 33, table, whole)
    np.testing.assert_allclose(whole[:, :out], (x @ weight.T + bias).numpy(), atol=2e-5)
    for rows in (1, 2, 3, 5, 7):
        part = np.empty((rows, table.shape[1]), np.float32)
        affine(np.ascontiguousarray(x.numpy()[11 : 11 + rows]), rows, table, part)
        assert np.array_equal(part, whole[11 : 11 + rows])


@pytest.mark.parametrize("users", ["preference", "boredom"])
@pytest.mark.parametrize("kind", ["purchase", "rating"])
@pytest.mark.parametrize("model", ["position", "cascade"])
@pytest.mark.parametrize("episode", ["session", "horizon", "changed"])
def test_a_step_is_the_same_with_torch_alone(kind: str, model: str, episode: str, users: str, tmp_path: Path) -> None:
    world = tiny_world(tmp_path / kind, kind=kind)  # type: ignore[arg-type]
    overrides = CHANGED if episode == "changed" else {"episode.kind": episode}
    scenario = load_scenario("default", {"behaviour.examination.model": model, **overrides})
    simulator, plain = (Simulator(world, scenario, user_model=USER_MODELS.load(users)(world)) for _ in range(2))
    seeds = torch.arange(48)
    state = simulator.reset(seeds, seeds * 0)
    with compiled.reference():
        twin = plain.reset(seeds, seeds * 0)
    consumed = 0
    for step in range(12):
        slate = state.candidates[:, torch.arange(10) * 9].to(torch.int64)
        if step % 3 == 2:
            slate[:, 1] = slate[:, 0]
        seen = simulator.observe(state, ("user", "candidates"))
        state, outcome = simulator.step(state, slate)
        with compiled.reference():
            twin_seen = plain.observe(twin, ("user", "candidates"))
            twin, expected = plain.step(twin, slate)
        for key in seen:
            torch.testing.assert_close(seen[key], twin_seen[key], atol=2e-6, rtol=0)
        for name in ("examined", "consumed", "quantity", "rating", "reward", "terminated", "truncated", "gap_days"):
            assert torch.equal(getattr(outcome, name), getattr(expected, name)), (name, step)
        consumed += int(outcome.consumed.sum())
        for name, value in state.flatten().items():
            other = twin.flatten()[name]
            if value.is_floating_point():
                torch.testing.assert_close(value, other, atol=1e-4, rtol=1e-5, msg=lambda text, name=name: name + text)
            else:
                assert torch.equal(value, other), (name, step)
    assert consumed > 50
