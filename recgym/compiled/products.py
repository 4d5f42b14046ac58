"""Matrix products of a few lanes at a time, each lane's bitwise the same alone or beside others.

A lane's result is one chain of fused multiply-adds per output column, over the inputs in order, whatever the lanes
that share the loads of the weights. Libraries choose their order by the number of rows, so theirs would differ.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic
from numpy.typing import NDArray
from torch import Tensor

from recgym.compiled.arithmetic import kernel

BLOCK = 4  # lanes that share the loads of the weights
VECTOR = 16  # floats of a vector
COLUMNS = 2 * VECTOR  # columns computed together: enough independent sums to hide the latency of an addition


def packed(weight: Tensor, bias: Tensor | None) -> NDArray[np.float32]:
    """``weight`` [out, in] and ``bias`` [out] as [in + 1, out'] with the bias first, columns padded with zeros."""
    out, width = weight.shape
    table = torch.zeros(width + 1, -(-out // COLUMNS) * COLUMNS)
    table[1:, :out] = weight.detach().cpu().T
    if bias is not None:
        table[0, :out] = bias.detach().cpu()
    return np.ascontiguousarray(table.numpy())


def _tile(lanes: int) -> Any:
    """The intrinsic that computes ``COLUMNS`` output columns of ``lanes`` rows."""

    @intrinsic
    def tile(typingctx: Any, x: Any, w: Any, y: Any, row: Any, column: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> None:
            vector = ir.VectorType(ir.FloatType(), VECTOR)
            word = ir.IntType(64)
            xs, ws, ys = (
                context.make_array(kind)(context, builder, value)
                for kind, value in zip(signature.args[:3], arguments[:3], strict=True)
            )
            row, column = arguments[3], arguments[4]
            steps = builder.extract_value(xs.shape, 1)
            x_width, w_width = steps, builder.extract_value(ws.shape, 1)
            y_width = builder.extract_value(ys.shape, 1)

            def load(pointer: Any, index: Any) -> Any:
                place = builder.bitcast(builder.gep(pointer, [index]), vector.as_pointer())
                return builder.load(place, align=4)

            def broadcast(value: Any) -> Any:
                one = builder.insert_element(ir.Constant(vector, ir.Undefined), value, ir.Constant(ir.IntType(32), 0))
                mask = ir.Constant(ir.VectorType(ir.IntType(32), VECTOR), [0] * VECTOR)
                return builder.shuffle_vector(one, ir.Constant(vector, ir.Undefined), mask)

            parts = [builder.add(column, ir.Constant(word, part * VECTOR)) for part in range(COLUMNS // VECTOR)]
            bias = [load(ws.data, part) for part in parts]
            starts = [builder.mul(builder.add(row, ir.Constant(word, lane)), x_width) for lane in range(lanes)]
            before = builder.block
            loop, after = builder.append_basic_block("columns"), builder.append_basic_block("done")
            builder.branch(loop)
            builder.position_at_end(loop)
            index = builder.phi(word)
            index.add_incoming(ir.Constant(word, 0), before)
            sums = []
            for _lane in range(lanes):
                for part in range(len(parts)):
                    accumulator = builder.phi(vector)
                    accumulator.add_incoming(bias[part], before)
                    sums.append(accumulator)
            line = builder.mul(builder.add(index, ir.Constant(word, 1)), w_width)
            weights = [load(ws.data, builder.add(line, part)) for part in parts]
            grown = []
            for lane in range(lanes):
                value = broadcast(builder.load(builder.gep(xs.data, [builder.add(starts[lane], index)])))
                for part, weight in enumerate(weights):
                    product = builder.fmul(value, weight, flags=("contract",))
                    grown.append(builder.fadd(sums[lane * len(parts) + part], product, flags=("contract",)))
            following = builder.add(index, ir.Constant(word, 1))
            index.add_incoming(following, loop)
            for accumulator, value in zip(sums, grown, strict=True):
                accumulator.add_incoming(value, loop)
            builder.cbranch(builder.icmp_signed("<", following, steps), loop, after)
            builder.position_at_end(after)
            for lane in range(lanes):
                target = builder.mul(builder.add(row, ir.Constant(word, lane)), y_width)
                for part, place in enumerate(parts):
                    pointer = builder.bitcast(builder.gep(ys.data, [builder.add(target, place)]), vector.as_pointer())
                    builder.store(grown[lane * len(parts) + part], pointer, align=4)
            return context.get_dummy_value()

        return types.void(x, w, y, row, column), codegen

    return tile


_tile_1, _tile_4 = _tile(1), _tile(BLOCK)


@kernel
def affine_columns(x: Any, lanes: int, w: Any, y: Any, column: int) -> None:
    """``affine``, of ``COLUMNS`` output columns from ``column`` on."""
    row = 0
    while row + BLOCK <= lanes:
        _tile_4(x, w, y, row, column)
        row += BLOCK
    while row < lanes:
        _tile_1(x, w, y, row, column)
        row += 1


@kernel
def affine(x: Any, lanes: int, w: Any, y: Any) -> None:
    """``y = bias + x @ weight`` for the first ``lanes`` rows, by ``packed`` weights.

    Args:
        x: float32 [B, in], contiguous.
        lanes: rows to compute.
        w: float32 [in + 1, out'].
        y: float32 [B, out'], overwritten.
    """
    for column in range(0, w.shape[1], COLUMNS):
        affine_columns(x, lanes, w, y, column)


def _sums(vectors: int) -> Any:
    """The intrinsic behind ``row_sums``, for ``vectors * VECTOR`` columns."""

    @intrinsic
    def sums(typingctx: Any, x: Any, x_at: Any, count: Any, w: Any, w_at: Any, stride: Any, y: Any, y_at: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> None:
            vector = ir.VectorType(ir.FloatType(), VECTOR)
            word = ir.IntType(64)
            xs, ws, ys = (context.make_array(signature.args[i])(context, builder, arguments[i]).data for i in (0, 3, 6))
            x_at, count, w_at, stride, y_at = (arguments[i] for i in (1, 2, 4, 5, 7))
            integers, halves = ir.VectorType(ir.IntType(32), VECTOR), ir.VectorType(ir.IntType(16), VECTOR)
            mask = ir.Constant(integers, [0] * VECTOR)
            before = builder.block
            loop, after = builder.append_basic_block("rows"), builder.append_basic_block("done")
            builder.branch(loop)
            builder.position_at_end(loop)
            index, row = builder.phi(word), builder.phi(word)
            index.add_incoming(ir.Constant(word, 0), before)
            row.add_incoming(w_at, before)
            totals = []
            for _ in range(vectors):
                total = builder.phi(vector)
                total.add_incoming(ir.Constant(vector, [0.0] * VECTOR), before)
                totals.append(total)
            value = builder.load(builder.gep(xs, [builder.add(x_at, index)]))
            one = builder.insert_element(ir.Constant(vector, ir.Undefined), value, ir.Constant(ir.IntType(32), 0))
            share = builder.shuffle_vector(one, ir.Constant(vector, ir.Undefined), mask)
            grown = []
            for part, total in enumerate(totals):
                place = builder.gep(ws, [builder.add(row, ir.Constant(word, part * VECTOR))])
                if signature.args[3].dtype == types.uint16:  # the upper halves of floats
                    half = builder.load(builder.bitcast(place, halves.as_pointer()), align=2)
                    bits = builder.shl(builder.zext(half, integers), ir.Constant(integers, [16] * VECTOR))
                    line = builder.bitcast(bits, vector)
                else:
                    line = builder.load(builder.bitcast(place, vector.as_pointer()), align=4)
                product = builder.fmul(share, line, flags=("contract",))
                grown.append(builder.fadd(total, product, flags=("contract",)))
            following = builder.add(index, ir.Constant(word, 1))
            index.add_incoming(following, loop)
            row.add_incoming(builder.add(row, stride), loop)
            for total, value in zip(totals, grown, strict=True):
                total.add_incoming(value, loop)
            builder.cbranch(builder.icmp_signed("<", following, count), loop, after)
            builder.position_at_end(after)
            for part, value in enumerate(grown):
                place = builder.gep(ys, [builder.add(y_at, ir.Constant(word, part * VECTOR))])
                builder.store(value, builder.bitcast(place, vector.as_pointer()), align=4)
            return context.get_dummy_value()

        return types.void(x, x_at, count, w, w_at, stride, y, y_at), codegen

    return sums


_sums_1, _sums_2, _sums_4 = _sums(1), _sums(2), _sums(4)


@kernel
def row_sums(x: Any, x_at: int, count: int, w: Any, w_at: int, stride: int, y: Any, y_at: int, columns: int) -> None:
    """y[c] = sum over j < count of x[j] * w[j * stride + c], for ``columns`` columns, a multiple of ``VECTOR``.

    All three are contiguous float32, or ``w`` bfloat16 (``load``), and addressed as flat from ``x_at``, ``w_at`` and
    ``y_at``; count is at least 1.
    """
    c = 0
    while columns - c >= 4 * VECTOR:
        _sums_4(x, x_at, count, w, w_at + c, stride, y, y_at + c)
        c += 4 * VECTOR
    if columns - c >= 2 * VECTOR:
        _sums_2(x, x_at, count, w, w_at + c, stride, y, y_at + c)
        c += 2 * VECTOR
    if columns - c >= VECTOR:
        _sums_1(x, x_at, count, w, w_at + c, stride, y, y_at + c)
