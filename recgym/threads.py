"""Threads: many small steps on one, chunks of lanes on several."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

import torch

Part = TypeVar("Part")
Result = TypeVar("Result")

_threads: ContextVar[int] = ContextVar("threads", default=1)
_pools: dict[tuple[int, int], ThreadPoolExecutor] = {}


@contextmanager
def one_thread() -> Iterator[int]:
    """Computes on one thread meanwhile.

    Steps of a few milliseconds gain next to nothing from a second thread, and lose tenfold where another process has
    the other core: at each operation one thread waits for the other to be given its turn. One thread also rounds sums
    the same on machines with any number of cores. Gives the number of threads there were.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield before
    finally:
        torch.set_num_threads(before)


@contextmanager
def chunk_threads() -> Iterator[None]:
    """``spread`` uses the threads that torch had, and everything in between one.

    Threads of torch's that have just met for an operation wait actively for the next one: on the cores that ``spread``
    needs.
    """
    with one_thread() as threads:
        token = _threads.set(max(threads, _threads.get()))
        try:
            yield
        finally:
            _threads.reset(token)


def spread(function: Callable[[Part], Result], parts: Sequence[Part]) -> list[Result]:
    """``function`` of each part, in order, on as many threads as torch had where ``chunk_threads`` began; else on one.

    Each part is computed on one thread: several parts at once are faster than several threads a part, which would have
    to meet after every operation. Gradients are off.

    Raises:
        Exception: what ``function`` raised for the first part that failed, after all parts have come to an end.
    """
    threads = min(_threads.get(), len(parts))
    if threads <= 1:
        return [function(part) for part in parts]
    tasks = [_pool(threads).submit(_without_gradients, function, part) for part in parts]
    for task in tasks:
        task.exception()  # waits
    return [task.result() for task in tasks]


def num_chunk_threads() -> int:
    """How many threads ``spread`` has."""
    return _threads.get()


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
