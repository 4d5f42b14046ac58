from __future__ import annotations

import pytest
import torch
from torch import Tensor

from recgym.random import Purpose, _signed, derive_seeds, episode_key, fold, integers, mix, uniform


def _chi_square(values: Tensor, bins: int) -> float:
    """Normalised chi-square of uniforms: about standard normal under uniformity."""
    counts = torch.histc(values, bins, 0, 1).double()
    expected = len(values) / bins
    chi = float(((counts - expected) ** 2 / expected).sum())
    return (chi - (bins - 1)) / (2 * (bins - 1)) ** 0.5


def _trip(seed: int, episode: int, trip: int) -> Tensor:
    return fold(episode_key(torch.tensor([seed]), episode), trip)


def _streams() -> dict[str, Tensor]:
    """Long sequences of draws that differ in one part of the address only."""
    n = torch.arange(200_000)
    one = torch.ones(1, dtype=torch.int64)
    return {
        "seeds": fold(episode_key(n, 0), 0, Purpose.WANT, 7),
        "episodes": fold(episode_key(one * 5, n), 0, Purpose.WANT, 7),
        "trips": fold(episode_key(one * 5, 0), n, Purpose.WANT, 7),
        "items": fold(episode_key(one * 5, 0), 0, Purpose.WANT, n),
        "purposes": fold(
            fold(episode_key(one * 5, 0), 0)[:, None], torch.tensor(list(Purpose)), n[:15_000, None]
        ).flatten(),
    }


@pytest.mark.parametrize("name", list(_streams()))
def test_draws_are_uniform_and_neighbours_independent(name: str) -> None:
    draws = uniform(_streams()[name])
    assert draws.min() > 0 and draws.max() < 1
    assert abs(_chi_square(draws, 256)) < 5
    for lag in (1, 2, 16):
        a, b = draws[:-lag].double(), draws[lag:].double()
        correlation = float(torch.corrcoef(torch.stack((a, b)))[0, 1])
        assert abs(correlation) < 5 / len(a) ** 0.5
        joint = (a * 16).floor() * 16 + (b * 16).floor()
        assert abs(_chi_square((joint + 0.5) / 256, 256)) < 5


def test_streams_that_differ_in_purpose_or_seed_are_independent() -> None:
    items = torch.arange(100_000)
    base = _trip(3, 0, 0)
    pairs = [
        (fold(base, Purpose.WANT, items), fold(base, Purpose.EXAMINE, items)),
        (fold(base, Purpose.WANT, items), fold(_trip(4, 0, 0), Purpose.WANT, items)),
        (fold(base, Purpose.WANT, items), fold(_trip(3, 1, 0), Purpose.WANT, items)),
        (fold(base, Purpose.WANT, items), fold(_trip(3, 0, 1), Purpose.WANT, items)),
    ]
    for a, b in pairs:
        x, y = uniform(a).double(), uniform(b).double()
        assert abs(float(torch.corrcoef(torch.stack((x, y)))[0, 1])) < 5 / len(x) ** 0.5
        joint = (x * 16).floor() * 16 + (y * 16).floor()
        assert abs(_chi_square((joint + 0.5) / 256, 256)) < 5


def test_mix_is_splitmix64() -> None:
    """The first output of splitmix64 seeded with 0 is 0xE220A8397B1DCDAF."""
    golden = torch.tensor([0x9E3779B97F4A7C15 - (1 << 64)])
    assert mix(golden).item() == 0xE220A8397B1DCDAF - (1 << 64)


def test_a_draw_does_not_depend_on_the_batch() -> None:
    seeds = torch.arange(100)
    together = uniform(fold(seeds, 3, Purpose.LEAVE))
    alone = torch.cat([uniform(fold(seeds[i : i + 1], 3, Purpose.LEAVE)) for i in range(100)])
    assert torch.equal(together, alone)


def test_integers_cover_their_range_evenly() -> None:
    draws = integers(mix(torch.arange(120_000)), 12)
    counts = torch.bincount(draws, minlength=12)
    assert len(counts) == 12
    assert float((counts - 10_000).abs().max()) < 500
    assert integers(torch.tensor([-1, 0, 2**63 - 1, -(2**63)]), 1000).tolist() == [999, 0, 499, 500]


def test_derived_seeds_do_not_overlap() -> None:
    users = torch.arange(50_000)
    seeds = torch.cat([derive_seeds(seed, users) for seed in range(4)])
    assert len(seeds.unique()) == len(seeds)
    assert seeds.min() >= 0 and seeds.max() < 2**62


def test_seeds_episodes_and_trips_are_not_interchangeable() -> None:
    n = torch.arange(60)
    keys = fold(episode_key(n[:, None, None], n[None, :, None]), n[None, None, :])
    assert len(keys.unique()) == 60**3


def test_purposes_are_distinct() -> None:
    assert len({int(purpose) for purpose in Purpose}) == len(Purpose.__members__)


def test_numpy_and_torch_arithmetic_agree() -> None:
    """What runs on a CPU and what runs elsewhere are the same numbers, 0-dimensional and strided keys included."""
    keys = mix(torch.arange(3000).view(30, 100)).t()
    plain = (keys ^ 7) + _signed(0x9E3779B97F4A7C15)
    for shift, bits, factor in ((30, 34, 0xBF58476D1CE4E5B9), (27, 37, 0x94D049BB133111EB)):
        plain = (plain ^ ((plain >> shift) & ((1 << bits) - 1))) * _signed(factor)
    plain = plain ^ ((plain >> 31) & 0x1FFFFFFFF)
    assert torch.equal(fold(keys, 7), plain)
    assert torch.equal(fold(keys, torch.tensor(7)), plain)
    assert torch.equal(fold(keys[2, 3], 7), plain[2, 3])
    assert torch.equal(uniform(plain), (((plain >> 41) & 0x7FFFFF).float() + 0.5) / 2**23)
