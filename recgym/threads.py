"""Threads: many small steps on one, chunks of lanes on several."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

Part = TypeVar("Part")
Result = TypeVar("Result")

_pools: dict[tuple[int, int], ThreadPoolExecutor] = {}


@contextmanager
def one_thread() -> Iterator[None]:
    """Computes on one thread meanwhile.

    Steps of a few milliseconds gain next to nothing from a second thread, and lose tenfold where another process has
    the other core: at each operation one thread waits for the other to be given its turn. One thread also rounds sums
    the same on machines with any number of cores.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def spread(function: Callable[[Part], Result], parts: Sequence[Part]) -> list[Result]:
    """``function`` of each part, in order, on as many threads as torch may use (``torch.set_num_threads``).

    Each part is computed on one thread: several parts at once are faster than several threads a part, which would have
    to meet after every operation. Gradients are off.

    Raises:
        Exception: what ``function`` raised for the first part that failed, after all parts have come to an end.
    """
    threads = min(torch.get_num_threads(), len(parts))
    if threads <= 1:
        return [function(part) for part in parts]
    tasks = [_pool(threads).submit(_without_gradients, function, part) for part in parts]
    for task in tasks:
        task.exception()  # waits
    return [task.result() for task in tasks]


def _without_gradients(function: Callable[[Part], Result], part: Part) -> Result:
    with torch.no_grad():
        return function(part)


def _pool(threads: int) -> ThreadPoolExecutor:
    """The pool of so many threads of this process: a forked child has none of its parent's threads."""
    key = (os.getpid(), threads)
    if key not in _pools:
        before = torch.get_num_threads()
        _pools[key] = ThreadPoolExecutor(threads, "recgym", initializer=lambda: torch.set_num_threads(1))
        list(_pools[key].map(lambda _: None, range(threads)))
        torch.set_num_threads(before)  # threads that start from now on take their number from the last call
    return _pools[key]
