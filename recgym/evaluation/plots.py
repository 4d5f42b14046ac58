"""The report's figures as inline SVG: static, printable, in colours that the page's light and dark themes define."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import matplotlib
import pandas as pd
from matplotlib.figure import Figure

from recgym.evaluation.families import interval, number
from recgym.evaluation.statistics import Comparison
from recgym.evaluation.summary import Line

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH = 4.2  # inches; about the width of a phone, so that text keeps its size there
MARKERS = "osD^vPX*"
# Matplotlib draws in these stand-ins, which become CSS variables of the page.
INK, SOFT, GRID, GOOD, BAD = "#010101", "#020202", "#030303", "#040404", "#050505"
SERIES = [f"#0{digit}0a0b" for digit in range(1, 9)]
_VARIABLES = {
    INK: "--ink",
    SOFT: "--soft",
    GRID: "--line",
    GOOD: "--good",
    BAD: "--bad",
    **{colour: f"--series-{at}" for at, colour in enumerate(SERIES, start=1)},
}
_STYLE: Any = {  # Any: matplotlib types its keys one by one
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": GRID,
    "axes.labelcolor": SOFT,
    "xtick.color": SOFT,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
}


def reward_plot(lines: Sequence[Line], key: str) -> str:
    """Mean reward with its interval, an agent a row; privileged agents hollow."""
    drawing, axes = figure(0.42 * len(lines) + 0.75)
    for row, line in enumerate(lines):
        estimate = line.scores["reward"]
        draw(axes, row, estimate.value, estimate.low, estimate.high, SERIES[0], hollow=line.privileged)
    low = min(finite(line.scores["reward"].low, line.scores["reward"].value) for line in lines)
    axes.set_xlim(left=min(0.0, low * 1.05))
    rows(axes, [line.agent for line in lines], [number(line.scores["reward"].value) for line in lines])
    axes.set_xlabel("reward of an episode")
    return svg(drawing, "Mean reward of each agent", key)


def forest_plot(comparisons: Sequence[Comparison], reference: str, key: str) -> str:
    """Paired differences with ``reference``, a comparison a row, and the line of no difference."""
    drawing, axes = figure(0.42 * len(comparisons) + 0.75)
    axes.axvline(0, color=SOFT, linewidth=1)
    for row, comparison in enumerate(comparisons):
        gap = comparison.difference
        colour = GOOD if gap.low > 0 else BAD if gap.high < 0 else SOFT
        draw(axes, row, gap.value, gap.low, gap.high, colour)
    gaps = [interval(comparison.difference, signed=True) for comparison in comparisons]
    rows(axes, [comparison.first for comparison in comparisons], gaps)
    axes.set_xlabel(f"difference in reward from {reference}")
    return svg(drawing, f"Difference of each agent from {reference}", f"{key}-{reference}")


TRIPS = "trips of the user in the log (quarters of the users)"


def history_plot(history: pd.DataFrame, agents: Sequence[str], key: str, across: str = TRIPS) -> str:
    """Mean reward with its interval by how much is known of the user; one series an agent.

    Args:
        history: columns agent, group (categorical, in order), value, low, high.
        agents: those to draw.
        key: keeps the figure's ids apart from others.
        across: what the groups are.
    """
    groups = list(history["group"].cat.remove_unused_categories().cat.categories)
    drawing, axes = figure(3.0)
    step = 0.7 / max(len(agents), 1)
    for at, agent in enumerate(agents):
        part = history[history["agent"] == agent].set_index("group").reindex(groups)
        places = [group + (at - (len(agents) - 1) / 2) * step for group in range(len(groups))]
        colour = SERIES[at % len(SERIES)]
        axes.vlines(places, part["low"], part["high"], color=colour, linewidth=1.4)
        axes.scatter(
            places, part["value"], color=colour, marker=MARKERS[at % len(MARKERS)], s=20, label=agent, zorder=3
        )
    axes.set_xticks(range(len(groups)), groups)
    axes.set_xlabel(across)
    axes.set_ylabel("reward of an episode")
    axes.tick_params(length=0)
    axes.grid(axis="y")
    axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
    legend(drawing, axes, len(agents))
    return svg(drawing, "Reward by what the log knows of the user", key)


def learning_plot(curves: pd.DataFrame, references: Mapping[str, float], key: str) -> str:
    """Training reward against slates shown; columns scenario, agent, steps, reward.

    ``references`` are evaluated rewards by agent, drawn as levels to compare with.
    """
    drawing, axes = figure(2.6)
    names = list(dict.fromkeys(curves["agent"]))
    for at, agent in enumerate(names):
        part = curves[curves["agent"] == agent]
        axes.plot(part["steps"], part["reward"], color=SERIES[at % len(SERIES)], linewidth=1.8, label=agent)
    for agent, reward in references.items():
        axes.axhline(reward, color=SOFT, linewidth=1, linestyle=(0, (4, 3)))
        axes.annotate(
            agent,
            (1, reward),
            (4, 0),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            ha="left",  # outside, where no curve runs over it
            va="center",
            fontsize="small",
            color=SOFT,
        )
    axes.set_xlabel("slates shown in training")
    axes.set_ylabel("reward of an episode")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value / 1000:,.0f}k" if value else "0")
    axes.tick_params(length=0)
    axes.grid(axis="y")
    if len(names) > 1:
        legend(drawing, axes, len(names))
    return svg(drawing, "Reward while training", key)


def figure(height: float) -> tuple[Figure, Axes]:
    """An empty figure of ``height`` inches."""
    with matplotlib.rc_context(_STYLE):
        empty = Figure(figsize=(WIDTH, height), layout="constrained")
        return empty, empty.subplots()


def draw(axes: Axes, row: int, value: float, low: float, high: float, colour: str, *, hollow: bool = False) -> None:
    """A point with its interval on a row."""
    axes.hlines(row, finite(low, value), finite(high, value), color=colour, linewidth=2)
    axes.scatter(
        [value], [row], s=34, zorder=3, edgecolors=colour, linewidths=1.6, facecolors="none" if hollow else colour
    )


def finite(end: float, value: float) -> float:
    """An end of an interval, or the value itself where there is no interval."""
    return value if end != end else end


def rows(axes: Axes, labels: Sequence[str], values: Sequence[str]) -> None:
    """Names the rows on the left and writes their values on the right."""
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.tick_params(length=0)
    axes.grid(axis="x")
    for row, text in enumerate(values):
        axes.text(
            1.02, row, text.replace("-", "−"), transform=axes.get_yaxis_transform(), va="center", fontsize=9, color=INK
        )


def legend(drawing: Figure, axes: Axes, entries: int) -> None:
    """A legend above the axes."""
    with matplotlib.rc_context(_STYLE):
        drawing.legend(
            *axes.get_legend_handles_labels(), loc="outside upper left", ncols=min(entries, 3), frameon=False
        )


def svg(drawing: Figure, label: str, key: str) -> str:
    """The figure as an ``<svg>`` element for HTML: no prologue, no metadata, colours as CSS variables.

    ``key`` keeps its ids apart from those of the other figures of its kind on the page.
    """
    buffer = io.StringIO()
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": f"{label} {key}"}):
        drawing.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", text)
    text = re.sub(r' (width|height)="[^"]*"', "", text, count=2)  # those of <svg>, its first attributes: CSS sizes it
    text = re.sub(r"<style.*?</style>", "", text, flags=re.DOTALL)  # it would apply to the whole page
    text = re.sub(r"font: [^;\"]*?(\d+(?:\.\d+)?)px[^;\"]*", r"font-size: \1px", text)
    text = re.sub(r" font-family: [^;\"]*;", "", text)
    text = re.sub(r'<g id="[^"]*"', "<g", text)  # numbered alike in every figure, and nothing refers to them
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, f"var({variable})")
    return text.replace("<svg", f'<svg role="img" aria-label="{escape(label)}"', 1)
