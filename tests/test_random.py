from __future__ import annotations

import torch

from recgym import compiled
from recgym.random import Purpose, derive_seeds, episode_key, fold, integers, mix, uniform


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
    strided = mix(torch.arange(3000).view(30, 100)).t()
    for keys in (strided, strided[2, 3]):
        with compiled.reference():
            mixed, folded, drawn = mix(keys), fold(keys, 7), uniform(keys)
        assert torch.equal(mix(keys), mixed)
        assert torch.equal(fold(keys, 7), folded)
        assert torch.equal(fold(keys, torch.tensor(7)), folded)
        assert torch.equal(uniform(keys), drawn)
