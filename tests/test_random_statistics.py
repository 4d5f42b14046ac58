"""Draws along every part of an address are uniform and independent; each test is shown to catch a poor hash.

Addresses are small consecutive numbers, as they are in use. Every p-value is two-sided: too even is as bad as uneven.
The seeds are fixed, so a sound hash passes always, and ``THRESHOLD`` leaves room for the few hundred values computed.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from recgym import compiled
from recgym.compiled import arithmetic
from recgym.random import _GOLDEN, _MUL_1, Purpose, derive_seeds, episode_key, fold, integers, mix, uniform

THRESHOLD = 1e-6
PARTS = ("seed", "episode", "trip", "purpose", "step", "item")
START = (40, 3, 5, int(Purpose.WANT), 2, 700)  # where the parts stand that a test does not vary
Hash = Callable[..., Tensor]  # the six parts of an address, int64, broadcast together -> keys int64


# ---------------------------------------------------------------------- hashes


def in_numpy(*parts: Tensor) -> Tensor:
    """``recgym.random`` on a CPU."""
    return fold(episode_key(parts[0], parts[1]), *parts[2:])


def in_torch(*parts: Tensor) -> Tensor:
    """``recgym.random`` on other devices."""
    with compiled.reference():
        return in_numpy(*parts)


@arithmetic.kernel
def _fold_all(parts, out):
    for i in range(out.shape[0]):
        key = arithmetic.fold(arithmetic.mix(parts[0, i] + arithmetic.GOLDEN), parts[1, i])
        for part in range(2, parts.shape[0]):
            key = arithmetic.fold(key, parts[part, i])
        out[i] = key


def in_kernels(*parts: Tensor) -> Tensor:
    """``recgym.compiled.arithmetic``."""
    columns = torch.broadcast_tensors(*parts)
    table = torch.stack([column.flatten() for column in columns]).numpy().view(np.uint64)
    out = np.empty(table.shape[1], np.uint64)
    _fold_all(table, out)
    return torch.from_numpy(out.view(np.int64)).view(columns[0].shape)


def lattice(*parts: Tensor) -> Tensor:
    """Poor: a sum of products, never mixed, as a linear congruential generator computes."""
    key = torch.zeros((), dtype=torch.int64)
    for part in parts:
        key = key * _MUL_1 + part * _GOLDEN + 1
    return key


def interchangeable(*parts: Tensor) -> Tensor:
    """Poor: well mixed sums, so seed 1 in episode 0 is seed 0 in episode 1, and so on from part to part."""
    return mix(mix(sum(parts, torch.zeros((), dtype=torch.int64)) + _GOLDEN))


def lopsided(*parts: Tensor) -> Tensor:
    """Poor: every bit is set in a quarter of all keys."""
    return in_numpy(*parts) & in_numpy(parts[0] + 1_000_000, *parts[1:])


SOUND = {"numpy": in_numpy, "torch": in_torch, "kernels": in_kernels}
sound = pytest.mark.parametrize("hashed", SOUND.values(), ids=SOUND)
every_part = pytest.mark.parametrize("part", PARTS)


def keys(hashed: Hash, **vary: Tensor) -> Tensor:
    """Keys at addresses in which the parts named by ``vary`` take these values and the others stay put."""
    return hashed(*(vary.get(name, torch.tensor(first)) for name, first in zip(PARTS, START, strict=True)))


# ---------------------------------------------------------------------- p-values


def chi_square(statistic: float, freedom: int) -> float:
    """Two-sided p of a chi-square statistic."""
    half = torch.tensor([freedom / 2, statistic / 2], dtype=torch.float64)
    return 2 * float(min(torch.special.gammaincc(*half), torch.special.gammainc(*half)))


def normal(z: float, tests: int = 1) -> float:
    """Two-sided p of the largest of ``tests`` standard normal values."""
    return min(1.0, tests * float(torch.special.erfc(torch.tensor(abs(z) / 2**0.5, dtype=torch.float64))))


def evenness(cells: Tensor, bins: int) -> float:
    """Chi-square test that int64 ``cells`` fall evenly into ``bins``."""
    expected = cells.numel() / bins
    counts = torch.bincount(cells.flatten(), minlength=bins).double()
    return chi_square(float(((counts - expected) ** 2).sum() / expected), bins - 1)


def kolmogorov(draws: Tensor) -> float:
    """Kolmogorov-Smirnov test of uniformity (Stephens, 1970, with Kolmogorov's series), two-sided."""
    ordered, n = draws.double().sort().values, len(draws)
    steps = torch.arange(n, dtype=torch.float64)
    distance = float(torch.maximum((steps + 1) / n - ordered, ordered - steps / n).max())
    scaled = (n**0.5 + 0.12 + 0.11 / n**0.5) * distance
    k = torch.arange(1, 101, dtype=torch.float64)
    above = float((2 * (-1) ** (k - 1) * torch.exp(-2 * k**2 * scaled**2)).sum())
    # The series converges slowly near 0, where Jacobi's form of the same function takes over.
    if scaled < 1.0:
        odd = (2 * k - 1) ** 2
        above = 1 - float((torch.exp(-odd * np.pi**2 / (8 * scaled**2))).sum() * (2 * np.pi) ** 0.5 / scaled)
    return 2 * min(above, 1 - above)


def bits(keys: Tensor, shift: int, count: int) -> Tensor:
    """``count`` bits of int64 keys from ``shift`` up."""
    return (keys >> shift) & ((1 << count) - 1)


def uniformity(stream: Tensor) -> float:
    """The lowest p of a stream of keys: its uniforms as a whole, and each of its eight bytes."""
    return min(kolmogorov(uniform(stream)), *(evenness(bits(stream, shift, 8), 256) for shift in range(0, 64, 8)))


def correlation(a: Tensor, b: Tensor) -> float:
    """Test that the uniforms of keys side by side are uncorrelated."""
    return normal(float(torch.corrcoef(torch.stack((uniform(a), uniform(b))).double())[0, 1]) * len(a) ** 0.5)


def pairing(a: Tensor, b: Tensor) -> float:
    """The lowest p of keys side by side: correlation, and the joint distribution of high, middle and low bits."""
    joint = (evenness(bits(a, shift, 4) * 16 + bits(b, shift, 4), 256) for shift in (60, 41, 32, 0))
    return min(correlation(a, b), *joint)


def correlations(streams: Tensor) -> float:
    """The lower p of all pairs of rows: their largest correlation, and the sum of squares of all."""
    rows, length = streams.shape
    draws = uniform(streams).double()
    pairs = (
        torch.corrcoef(draws)[tuple(torch.triu_indices(rows, rows, 1))] * (length - 1) ** 0.5
    )  # mean square exactly 1
    spread = (float((pairs**2).mean()) - 1) * (len(pairs) / 2) ** 0.5
    return min(normal(float(pairs.abs().max()), len(pairs)), normal(spread))


# ---------------------------------------------------------------------- what is tested


def grid(hashed: Hash, part: str, other: str, rows: int, columns: int) -> Tensor:
    """Keys [rows, columns] at consecutive values of ``part`` down and of ``other`` across."""
    first = dict(zip(PARTS, START, strict=True))
    across = {other: first[other] + torch.arange(columns)}
    return keys(hashed, **{part: first[part] + torch.arange(rows)[:, None]}, **across)


def stream(hashed: Hash, part: str) -> float:
    """Keys one after another in one part."""
    return uniformity(keys(hashed, **{part: torch.arange(1 << 17)}))


def rows(hashed: Hash, part: str) -> float:
    """Streams of 64 neighbouring values of a part against each other: lanes of consecutive seeds, say."""
    return correlations(grid(hashed, part, "step" if part == "item" else "item", 64, 4096))


def neighbours(hashed: Hash, part: str, other: str) -> float:
    """Adjacent keys in two parts: down, across, and along both diagonals."""
    table = grid(hashed, part, other, 128, 512)
    shifted = ((table[1:], table[:-1]), (table[:, 1:], table[:, :-1]))
    diagonal = ((table[1:, 1:], table[:-1, :-1]), (table[1:, :-1], table[:-1, 1:]))
    return min(pairing(a.flatten(), b.flatten()) for a, b in (*shifted, *diagonal))


def avalanche(hashed: Hash, part: str) -> float:
    """One bit of the address flipped: each bit of the key flips in half of all cases, and no two together."""
    generator = torch.Generator().manual_seed(0)
    sizes = (1 << 20, 1 << 8, 1 << 6, 32, 1 << 5, 1 << 14)
    base = [torch.randint(size, (4096,), generator=generator) for size in sizes]
    at = PARTS.index(part)
    before, z, flipped = hashed(*base), [], []
    for bit in range(63 if part == "seed" else 16):
        changed = [*base[:at], base[at] ^ (1 << bit), *base[at + 1 :]]
        flips = bits((before ^ hashed(*changed))[:, None], torch.arange(64), 1)  # type: ignore[arg-type]
        z.append((flips.sum(0) - 2048) / 32.0)
        flipped.append(flips.sum(1))
    number = torch.cat(flipped).clamp(22, 42)  # with the tails in one cell each
    choose = [float(np.exp(_log_choose(64, k) - 64 * np.log(2))) for k in range(65)]
    expected = torch.tensor([sum(choose[:23]), *choose[23:42], sum(choose[42:])], dtype=torch.float64) * len(number)
    counts = torch.bincount(number - 22, minlength=21).double()
    together = chi_square(float(((counts - expected) ** 2 / expected).sum()), 20)
    return min(together, normal(float(torch.stack(z).abs().max()), 64 * len(z)))


def _log_choose(n: int, k: int) -> float:
    return float(np.log(np.arange(k + 1, n + 1)).sum() - np.log(np.arange(1, n - k + 1)).sum())


# ---------------------------------------------------------------------- tests


@sound
@every_part
def test_keys_are_uniform_from_the_top_bit_to_the_lowest(hashed: Hash, part: str) -> None:
    assert stream(hashed, part) > THRESHOLD


@sound
@every_part
def test_streams_of_neighbouring_values_are_uncorrelated(hashed: Hash, part: str) -> None:
    assert rows(hashed, part) > THRESHOLD


@sound
@pytest.mark.parametrize(("part", "other"), list(itertools.combinations(PARTS, 2)))
def test_adjacent_keys_are_independent(hashed: Hash, part: str, other: str) -> None:
    assert neighbours(hashed, part, other) > THRESHOLD


@sound
@every_part
def test_one_bit_of_an_address_flips_half_of_the_key(hashed: Hash, part: str) -> None:
    assert avalanche(hashed, part) > THRESHOLD


@pytest.mark.parametrize("stop", [2, 12, 100, 10_417])
def test_whole_numbers_fall_evenly(stop: int) -> None:
    for part in PARTS:
        drawn = integers(keys(in_numpy, **{part: torch.arange(1 << 17)}), stop)
        assert int(drawn.max()) < stop and evenness(drawn, stop) > THRESHOLD
    assert evenness(integers(keys(lopsided, item=torch.arange(1 << 17)), stop), stop) < THRESHOLD


def test_seeds_derived_for_an_evaluation_are_independent() -> None:
    def derived(seed: Tensor, number: Tensor) -> Tensor:
        return torch.stack([derive_seeds(int(one), number) for one in seed.flatten()]) << 2  # 62 bits

    def added(seed: Tensor, number: Tensor) -> Tensor:
        return mix(seed + number)

    def figure(seeds: Callable[[Tensor, Tensor], Tensor]) -> float:
        table = seeds(torch.arange(64)[:, None], torch.arange(4096))
        diagonal = correlation(table[1:, :-1].flatten(), table[:-1, 1:].flatten())
        return min(kolmogorov(uniform(table.flatten())), correlations(table), diagonal)

    assert figure(derived) > THRESHOLD
    assert figure(added) < THRESHOLD


def test_every_test_catches_a_poor_hash() -> None:
    for part in PARTS:
        assert stream(lattice, part) < THRESHOLD, part
        assert stream(lopsided, part) < THRESHOLD, part
        assert rows(lattice, part) < THRESHOLD, part
        assert avalanche(lattice, part) < THRESHOLD, part
    for part, other in itertools.combinations(PARTS, 2):
        assert neighbours(lattice, part, other) < THRESHOLD, (part, other)
        assert neighbours(interchangeable, part, other) < THRESHOLD, (part, other)


@every_part
def test_a_part_left_out_of_the_address_is_caught(part: str) -> None:
    """Poor: well mixed, but what should be drawn anew for each value of a part is drawn once."""

    def forgetful(*parts: Tensor) -> Tensor:
        return in_numpy(*(one * 0 if name == part else one for name, one in zip(PARTS, parts, strict=True)))

    assert rows(forgetful, part) < THRESHOLD
    assert avalanche(forgetful, part) < THRESHOLD


def test_all_three_are_one_function() -> None:
    """Bit for bit, so whatever holds of one holds of the others; extreme and negative numbers included."""
    corners = torch.tensor([0, 1, -1, 2**31 - 1, 2**31, 2**62, 2**63 - 1, -(2**63)])
    for table in (corners[:, None].expand(-1, 6), torch.cartesian_prod(*[corners[torch.tensor([0, 2, 6, 7])]] * 6)):
        parts = table.unbind(1)
        assert torch.equal(in_numpy(*parts), in_torch(*parts))
        assert torch.equal(in_numpy(*parts), in_kernels(*parts))
    drawn = in_numpy(*parts)
    with compiled.reference():
        other = uniform(drawn)
    assert torch.equal(uniform(drawn), other)
    assert 0 < float(other.min()) and float(other.max()) < 1
