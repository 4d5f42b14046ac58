"""Progress of a build in the terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def stage_progress() -> Iterator[Callable[[str, float], None]]:
    """A bar for each stage, fed with (what is under way, share done in [0, 1])."""
    from recgym.evaluation.progress import bars

    with bars() as report:
        yield lambda what, share: report(what, round(100 * share), 100)
