"""Torch on one thread, for work made of many small steps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def one_thread() -> Iterator[None]:
    """Computes on one thread meanwhile.

    Steps of a few milliseconds gain next to nothing from a second thread, and lose tenfold where another process has
    the other core: at each operation one thread waits for the other to be given its turn. One thread also rounds sums
    the same on machines with any number of cores.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
