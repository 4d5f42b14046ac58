"""The tables in the terminal and the plot."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from recgym.benchmark.summary import Comparison, Result, Spread, Standing

PLOT = "speed.png"
DISTURBED = 0.15  # cores kept busy by others from which on a measurement is called disturbed


def show(results: list[Result], console: Console) -> None:
    """Prints a table a suite, the ratios, what failed and what else to know."""
    for result in results:
        console.print()
        console.print(_standings(result))
        if result.comparisons:
            console.print(_comparisons(result))
        for one in result.standings:
            for error in one.errors:
                console.print(f"{one.contestant.name} was not measured: {error}", style="red", markup=False)
            for fact in _facts(one):
                console.print(f"{one.contestant.name}: {fact}", markup=False, highlight=False)
        disturbed = [one for one in result.standings if one.others is not None and one.others > DISTURBED]
        if disturbed:
            most = max(one.others or 0.0 for one in disturbed)
            names = "; ".join(one.contestant.name for one in disturbed)
            said = f"Other processes kept up to {most:.1f} cores busy during measurements of {names}."
            console.print(said, style="yellow", markup=False)
        for name, note in result.suite.notes.items():
            console.print(f"{name}: {note}", markup=False, highlight=False, style="dim")


def _standings(result: Result) -> Table:
    table = Table(title=result.suite.title, title_justify="left")
    table.add_column("contestant")
    for name in ("user-steps/s", "min", "max", "CPU s per 1,000", "peak MiB"):
        table.add_column(name, justify="right")
    for one in result.standings:
        cells = _cells(one.rate, 0)
        cells += [f"{one.cpu:,.{_digits(one.cpu, 0)}f}" if one.cpu is not None else "-"]
        cells += [f"{one.peak:,.0f}" if one.peak is not None else "-"]
        name = one.contestant.name
        if one.contestant.at_least is not None:
            name += f" (aim: at least {one.contestant.at_least:,.0f}{_mark(one.met)})"
        table.add_row(name, *cells)
    return table


def _comparisons(result: Result) -> Table:
    table = Table()
    table.add_column("ratio, by round")
    for name in ("median", "min", "max", "aim"):
        table.add_column(name, justify="right")
    for one in result.comparisons:
        table.add_row(one.ratio.name, *_cells(one.spread, 2), _aim(one))
    return table


def _aim(one: Comparison) -> str:
    least, most = one.ratio.at_least, one.ratio.at_most
    aim = f"at least {least:g}" if least is not None else f"at most {most:g}" if most is not None else ""
    return aim + _mark(one.met)


def _mark(met: bool | None) -> str:
    return "" if met is None else ", met" if met else ", missed"


def _cells(spread: Spread | None, digits: int) -> list[str]:
    if spread is None:
        return ["-", "-", "-"]
    return [f"{value:,.{_digits(value, digits)}f}" for value in (spread.median, spread.low, spread.high)]


def _digits(value: float, least: int) -> int:
    """Decimals that leave three significant digits, at least ``least``."""
    return least if value <= 0 else max(least, 2 - math.floor(math.log10(value)))


def _facts(one: Standing) -> list[str]:
    facts = one.facts
    said = []
    if facts.get("way"):
        said.append(f"fastest as {facts['way']}")
    if facts.get("gradient_share"):
        said.append(f"{facts['gradient_share']:.0%} of the time in gradient steps")
    return said


def plot(results: list[Result], directory: Path) -> Path:
    """Writes ``speed.png``: a panel a suite, medians with the range of the rounds."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = 2 if len(results) > 1 else 1
    rows = -(-len(results) // columns)
    figure = Figure(figsize=(7.5 * columns, 3.6 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    for place, result in enumerate(results):
        axes = figure.add_subplot(rows, columns, place + 1)
        measured = [one for one in result.standings if one.rate is not None]
        if measured:
            (_curve if result.suite.axis else _dots)(axes, result, measured)
        else:
            axes.text(0.5, 0.5, "nothing was measured", ha="center", va="center", transform=axes.transAxes)
        axes.set_title(result.suite.title, fontsize=10)
    path = directory / PLOT
    figure.savefig(path, dpi=120)
    return path


def _errors(measured: list[Standing]) -> list[list[float]]:
    spreads = [one.rate for one in measured if one.rate is not None]
    return [[one.median - one.low for one in spreads], [one.high - one.median for one in spreads]]


def _curve(axes: Any, result: Result, measured: list[Standing]) -> None:
    at = [one.contestant.at for one in measured]
    axes.errorbar(at, _medians(measured), yerr=_errors(measured), marker="o", capsize=3)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel(result.suite.axis)
    axes.set_ylabel("user-steps per second")
    axes.grid(alpha=0.3, which="both")


def _dots(axes: Any, result: Result, measured: list[Standing]) -> None:
    medians = _medians(measured)
    axes.errorbar(medians, range(len(medians)), xerr=_errors(measured), fmt="o", capsize=3)
    for place, median in enumerate(medians):
        above: Any = {"xytext": (0, 6), "textcoords": "offset points", "ha": "center", "fontsize": 8}
        axes.annotate(f"{median:,.0f}", (median, place), **above)
    axes.set_yticks(range(len(medians)), [one.contestant.name for one in measured])
    axes.set_ylim(len(medians) - 0.5, -0.7)
    if medians and max(medians) > 20 * min(medians):
        axes.set_xscale("log")
        axes.margins(x=0.1)
    else:
        axes.set_xlim(0, 1.15 * max(medians, default=1.0))
    axes.set_xlabel("user-steps per second")
    axes.grid(alpha=0.3, axis="x")


def _medians(measured: list[Standing]) -> list[float]:
    return [one.rate.median for one in measured if one.rate is not None]
