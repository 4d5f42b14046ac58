"""Scalar arithmetic that kernels share: counter-based draws bitwise as ``recgym.random``, and exp and log as rounded.

The elementary functions are polynomials without calls or branches, so loops over them become vector instructions, and
a value's result does not depend on where in a vector it lands.
"""

from __future__ import annotations

import functools
import hashlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import njit
from numba.core import cgutils, types
from numba.extending import intrinsic, overload

from recgym.paths import recgym_home

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MUL_1 = np.uint64(0xBF58476D1CE4E5B9)
_MUL_2 = np.uint64(0x94D049BB133111EB)
_F = np.float32


def kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compiles a kernel or a helper whose float operations stay in the order written."""
    return _compile(function, fastmath=False)


def summing_kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compiles a kernel whose sums may be reordered, so that they become vector instructions.

    The order depends on lengths alone: it is the same for every lane. What it calls from this file stays as written.
    """
    return _compile(function, fastmath={"reassoc", "contract", "nsz"})


def _compile(function: Callable[..., Any], fastmath: Any) -> Callable[..., Any]:
    """Compiled without the interpreter lock, kept on disk.

    Numba drops what it kept when the file of a kernel changes, but not when that of a function changes which became
    part of the kernel: so the folder is named after all files that may have.

    A kernel becomes part of every kernel that calls it. Left by itself, a copy would come with each of its callers,
    optimised anew and with another order of sums, and a process would take whichever was loaded first: a caller just
    compiled and the same one read from disk would round differently.
    """
    before = numba.config.CACHE_DIR
    numba.config.CACHE_DIR = str(_cache_folder(Path(function.__code__.co_filename).parent))
    try:
        return njit(nogil=True, cache=True, error_model="numpy", forceinline=True, fastmath=fastmath)(function)
    finally:
        numba.config.CACHE_DIR = before


@functools.cache
def _cache_folder(sources: Path) -> Path:
    """Where kernels of the folder ``sources`` are kept; they may call each other, and those of this package.

    Numba's own variable ``NUMBA_CACHE_DIR`` decides; then beside the code; then, if it is read-only, RecGym's home.
    """
    files = sorted({*Path(__file__).parent.glob("*.py"), *sources.glob("*.py")})
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:12]
    folder = Path(__file__).parent / "__pycache__"
    if asked := os.environ.get("NUMBA_CACHE_DIR"):
        folder = Path(asked)
    elif not os.access(folder if folder.exists() else folder.parent, os.W_OK):
        folder = recgym_home()
    folder = folder / f"kernels-{digest}"
    if not folder.exists():
        _announce()
    return folder


@functools.cache
def _announce() -> None:
    """Tells somebody who waits, once."""
    if sys.stderr.isatty():
        print("RecGym compiles its kernels, once: some 40 seconds.", file=sys.stderr)


@intrinsic
def _float_of_bits(typingctx: Any, bits: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.FloatType())

    return types.float32(types.int32), codegen


@intrinsic
def bits_of_float(typingctx: Any, value: Any) -> Any:
    """The int32 with the bits of a float32."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.IntType(32))

    return types.int32(types.float32), codegen


def load(row: Any, index: int) -> np.float32:
    """An element of a float32 row, or of one of bfloat16, whose bits are held as uint16."""
    if row.dtype == np.uint16:
        return (row[index : index + 1].astype(np.uint32) << 16).view(np.float32)[0]
    return row[index]


def store(row: Any, index: int, value: np.float32) -> None:
    """Writes an element of a row as ``load`` reads it; bfloat16 is rounded to nearest, ties to even."""
    if row.dtype == np.uint16:
        bits = int(np.float32(value).view(np.uint32))
        row[index] = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    else:
        row[index] = value


# Numba chooses between branches by type only where it is told to: the same two functions, as kernels call them.
@overload(load)
def _load(row: Any, index: Any) -> Any:
    def widened(row: Any, index: Any) -> Any:
        return _float_of_bits(np.int32(row[index]) << np.int32(16))

    def plain(row: Any, index: Any) -> Any:
        return row[index]

    return widened if row.dtype == types.uint16 else plain


@overload(store)
def _store(row: Any, index: Any, value: Any) -> Any:
    def rounded(row: Any, index: Any, value: Any) -> Any:
        bits = np.uint32(bits_of_float(value))
        row[index] = np.uint16((bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16))

    def plain(row: Any, index: Any, value: Any) -> Any:
        row[index] = value

    return rounded if row.dtype == types.uint16 else plain


def _prefetch(lines: int) -> Any:
    """The intrinsic behind ``prefetch`` and ``prefetch_lines``."""

    @intrinsic
    def ask(typingctx: Any, array: Any, index: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
            place = builder.bitcast(builder.gep(data, [arguments[1]]), ir.IntType(8).as_pointer())
            word = ir.IntType(32)
            kind = ir.FunctionType(ir.VoidType(), [place.type, word, word, word])
            function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
            for line in range(lines):
                builder.call(function, [builder.gep(place, [word(64 * line)]), word(0), word(2), word(1)])
            return context.get_dummy_value()

        return types.void(array, index), codegen

    return ask


PREFETCHED = 8  # lines that ``prefetch_lines`` asks for
prefetch = _prefetch(1)  # asks for the cache line of an element of a contiguous array, counted from its first
prefetch_lines = _prefetch(PREFETCHED)  # and for the lines after it


@kernel
def prefetch_row(row: Any) -> None:
    """Asks for all of a contiguous row, so that it is there when its turn comes."""
    per_line = 64 // row.itemsize
    for i in range(0, row.shape[0], per_line):
        prefetch(row, i)


@kernel
def fold(key: np.uint64, counter: np.uint64) -> np.uint64:
    """One round of ``recgym.random.fold``."""
    z = (key ^ counter) + GOLDEN
    z = (z ^ (z >> np.uint64(30))) * _MUL_1
    z = (z ^ (z >> np.uint64(27))) * _MUL_2
    return z ^ (z >> np.uint64(31))


@kernel
def mix(z: np.uint64) -> np.uint64:
    """``recgym.random.mix``."""
    z = (z ^ (z >> np.uint64(30))) * _MUL_1
    z = (z ^ (z >> np.uint64(27))) * _MUL_2
    return z ^ (z >> np.uint64(31))


@kernel
def uniform(key: np.uint64) -> np.float32:
    """``recgym.random.uniform``."""
    return (_F(np.int32(key >> np.uint64(41))) + _F(0.5)) * _F(1.0 / (1 << 23))


@kernel
def integer(key: np.uint64, stop: np.uint64) -> np.int64:
    """``recgym.random.integers``."""
    return np.int64(((key >> np.uint64(32)) * stop) >> np.uint64(32))


@kernel
def exp(x: np.float32) -> np.float32:
    """E ** x to about one unit in the last place, 0 below -87 (Cephes' expf polynomial)."""
    low = x < _F(-87.0)
    x = min(max(x, _F(-87.0)), _F(88.0))
    n = np.floor(x * _F(1.44269504) + _F(0.5))
    r = x - n * _F(0.693359375)
    r = r - n * _F(-2.12194440e-4)
    p = _F(1.9875691500e-4)
    p = p * r + _F(1.3981999507e-3)
    p = p * r + _F(8.3334519073e-3)
    p = p * r + _F(4.1665795894e-2)
    p = p * r + _F(1.6666665459e-1)
    p = p * r + _F(5.0000001201e-1)
    y = (p * r * r + r + _F(1.0)) * _float_of_bits((np.int32(n) + np.int32(127)) << np.int32(23))
    return _F(0.0) if low else y


@kernel
def log(x: np.float32) -> np.float32:
    """The natural logarithm of a normal positive x, to about one unit in the last place (Cephes' logf polynomial)."""
    bits = bits_of_float(x)
    # x = m * 2 ** e with m in [sqrt(1/2), sqrt(2))
    shifted = bits - np.int32(0x3F3504F3)
    e = _F(shifted >> np.int32(23))
    m = _float_of_bits((shifted & np.int32(0x007FFFFF)) + np.int32(0x3F3504F3))
    r = m - _F(1.0)
    z = r * r
    p = _F(7.0376836292e-2)
    p = p * r + _F(-1.1514610310e-1)
    p = p * r + _F(1.1676998740e-1)
    p = p * r + _F(-1.2420140846e-1)
    p = p * r + _F(1.4249322787e-1)
    p = p * r + _F(-1.6668057665e-1)
    p = p * r + _F(2.0000714765e-1)
    p = p * r + _F(-2.4999993993e-1)
    p = p * r + _F(3.3333331174e-1)
    y = r * z * p + e * _F(-2.12194440e-4) - z * _F(0.5)
    return r + y + e * _F(0.693359375)


@kernel
def log1p(x: np.float32) -> np.float32:
    """log(1 + x) for x >= 0, or not far below; exact where 1 + x is, and corrected for its rounding elsewhere."""
    u = _F(1.0) + x
    return log(u) + (x - (u - _F(1.0))) / u


@kernel
def sigmoid(x: np.float32) -> np.float32:
    """1 / (1 + e ** -x)."""
    return _F(1.0) / (_F(1.0) + exp(-x))
