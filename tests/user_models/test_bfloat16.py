"""The compact users: bfloat16 as torch rounds it, half the memory, nearly the same answers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from recgym import compiled
from recgym.compiled import arithmetic
from recgym.registration import USER_MODELS
from recgym.scenario import load_scenario
from recgym.simulation.simulator import Simulator
from recgym.testing.worlds import tiny_world


@arithmetic.kernel
def _there_and_back(values, kept, out):
    for i in range(values.shape[0]):
        arithmetic.store(kept, i, values[i])
        out[i] = arithmetic.load(kept, i)


def test_kernels_round_as_torch_does() -> None:
    values = np.random.default_rng(0).standard_normal(10_000).astype(np.float32) * 100
    values[:3] = (0.0, 1.0 + 2**-8, 1.0 + 3 * 2**-8)  # the last two lie half-way
    kept, out = np.empty(len(values), np.uint16), np.empty_like(values)
    _there_and_back(values, kept, out)
    expected = torch.from_numpy(values).bfloat16()
    assert np.array_equal(kept, expected.view(torch.uint16).numpy())
    assert np.array_equal(out, expected.float().numpy())
    _there_and_back(values, same := np.empty_like(values), out)
    assert np.array_equal(same, values)
    assert np.array_equal(out, values)
    kept, out = np.empty(100, np.uint16), np.empty(100, np.float32)  # the same without compiling
    _there_and_back.py_func(values[:100], kept, out)
    assert np.array_equal(out, expected[:100].float().numpy())


def test_answers_are_nearly_those_of_float32_in_half_the_memory(tmp_path: Path) -> None:
    world = tiny_world(tmp_path / "world")
    scenario, lanes = load_scenario("default"), torch.arange(64)
    whole, half, plain = (
        Simulator(world, scenario, user_model=USER_MODELS.load(name)(world))
        for name in ("preference", "preference_bfloat16", "preference_bfloat16")
    )
    state, compact = whole.reset(lanes, lanes * 0), half.reset(lanes, lanes * 0)
    with compiled.reference():
        twin = plain.reset(lanes, lanes * 0)
    assert compact.hidden.cache.dtype == torch.bfloat16
    assert compact.hidden.cache.nbytes * 2 == state.hidden.cache.nbytes
    torch.testing.assert_close(compact.hidden.cache, state.hidden.cache.bfloat16(), atol=2e-2, rtol=2e-2)
    same = agree = total = 0
    for _ in range(8):
        slate = state.candidates[:, ::10].to(torch.int64)
        state, outcome = whole.step(state, slate)
        compact, answer = half.step(compact, slate)
        with compiled.reference():
            twin, expected = plain.step(twin, slate)
        same += int((answer.consumed == expected.consumed).sum())
        agree += int((answer.consumed == outcome.consumed).sum())
        total += slate.numel()
        assert torch.isfinite(compact.hidden.fused).all()
    assert same >= 0.998 * total
    assert agree >= 0.99 * total
    assert not torch.equal(compact.hidden.fused, state.hidden.fused)
