"""A buffer is used again when nobody holds any part of it, and never before."""

from __future__ import annotations

import gc

import torch

from recgym.simulation.buffers import Buffers

SHAPE = (300, 1000)  # above the size from which memory is kept


def test_memory_comes_back_when_the_last_view_is_gone() -> None:
    buffers = Buffers(torch.device("cpu"))
    first = buffers.take(*SHAPE)
    place = first.data_ptr()
    row = first.numpy()[3]  # a view of a view: it keeps all of it
    del first
    gc.collect()
    second = buffers.take(*SHAPE)
    assert second.data_ptr() != place
    row[:] = 7.0
    assert not torch.equal(second[3], torch.full((1000,), 7.0))
    del row
    gc.collect()
    assert buffers.take(*SHAPE).data_ptr() == place


def test_sizes_that_differ_by_little_share_memory() -> None:
    buffers = Buffers(torch.device("cpu"))
    first = buffers.take(300, 1000)
    place = first.data_ptr()
    del first
    assert buffers.take(290, 1000).data_ptr() == place
    assert buffers.take(3, 4).shape == (3, 4)
