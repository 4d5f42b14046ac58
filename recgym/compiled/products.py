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
_VECTOR = 16  # floats of a vector
_TILE = 2 * _VECTOR  # columns computed together: enough independent sums to hide the latency of an addition


def packed(weight: Tensor, bias: Tensor | None) -> NDArray[np.float32]:
    """``weight`` [out, in] and ``bias`` [out] as [in + 1, out'] with the bias first, columns padded with zeros."""
    out, width = weight.shape
    table = torch.zeros(width + 1, -(-out // _TILE) * _TILE)
    table[1:, :out] = weight.detach().cpu().T
    if bias is not None:
        table[0, :out] = bias.detach().cpu()
    return np.ascontiguousarray(table.numpy())


def _tile(lanes: int) -> Any:
    """The intrinsic that computes ``_TILE`` output columns of ``lanes`` rows."""

    @intrinsic
    def tile(typingctx: Any, x: Any, w: Any, y: Any, row: Any, column: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> None:
            vector = ir.VectorType(ir.FloatType(), _VECTOR)
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
                mask = ir.Constant(ir.VectorType(ir.IntType(32), _VECTOR), [0] * _VECTOR)
                return builder.shuffle_vector(one, ir.Constant(vector, ir.Undefined), mask)

            parts = [builder.add(column, ir.Constant(word, part * _VECTOR)) for part in range(_TILE // _VECTOR)]
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
def affine(x: Any, lanes: int, w: Any, y: Any) -> None:
    """``y = bias + x @ weight`` for the first ``lanes`` rows, by ``packed`` weights.

    Args:
        x: float32 [B, in], contiguous.
        lanes: rows to compute.
        w: float32 [in + 1, out'].
        y: float32 [B, out'], overwritten.
    """
    row = 0
    while row + BLOCK <= lanes:
        for column in range(0, w.shape[1], _TILE):
            _tile_4(x, w, y, row, column)
        row += BLOCK
    while row < lanes:
        for column in range(0, w.shape[1], _TILE):
            _tile_1(x, w, y, row, column)
        row += 1
