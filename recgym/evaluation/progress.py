"""Progress of long work: a callback, and bars for the terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

Progress = Callable[[str, int, int], None]  # (task, done, total)


def silent(task: str, done: int, total: int) -> None:
    """Reports nothing."""


@contextmanager
def bars(console: Console | None = None) -> Iterator[Progress]:
    """A bar for every task, with the time left, on standard error; plain lines where that is no terminal."""
    console = console or Console(stderr=True)
    if not console.is_terminal:
        yield _lines(console)
        return
    columns = (TextColumn("{task.description:<24}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Bars(*columns, TextColumn("left"), TimeRemainingColumn(), console=console) as display:
        tasks: dict[str, TaskID] = {}

        def report(task: str, done: int, total: int) -> None:
            if task not in tasks:
                tasks[task] = display.add_task(task, total=total)
            display.update(tasks[task], completed=done, total=total)

        yield report


def _lines(console: Console) -> Progress:
    """One line a task when it is a quarter further, so that a log stays short."""
    printed: dict[str, int] = {}

    def report(task: str, done: int, total: int) -> None:
        quarter = 4 * done // max(total, 1)
        if quarter > printed.get(task, -1):
            printed[task] = quarter
            console.print(f"{task}: {done}/{total}", highlight=False)

    return report
