"""Figures of an evaluation beyond reward: retention, profiles, trade-offs, groups of users and providers, transfer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from recgym.evaluation.families import interval
from recgym.evaluation.plots import BAD, INK, MARKERS, SERIES, SOFT, draw, figure, finite, legend, rows, svg
from recgym.evaluation.transfer import Transfer

_ROW = 0.42  # inches


def curves_plot(
    curves: pd.DataFrame,
    agents: Sequence[str],
    key: str,
    *,
    across: str,
    up: str,
    labels: tuple[str, str],
    share: bool = True,
) -> str:
    """A line an agent.

    Args:
        curves: columns agent, ``across`` and ``up``; low and high where there are intervals.
        agents: those to draw, at most as many as there are colours.
        key: keeps the figure's ids apart from others.
        across: column of the horizontal axis.
        up: column of the vertical axis.
        labels: of the axes.
        share: whether it is a share.
    """
    drawing, axes = figure(2.9)
    shown = list(agents)[: len(SERIES)]
    for at, agent in enumerate(shown):
        part = curves[curves["agent"] == agent]
        if "low" in part and part["low"].notna().all():
            axes.fill_between(part[across], part["low"], part["high"], color=SERIES[at], alpha=0.15, linewidth=0)
        every = max(len(part) // 6, 1)
        axes.plot(
            part[across],
            part[up],
            color=SERIES[at],
            linewidth=1.7,
            marker=MARKERS[at % len(MARKERS)],
            markersize=4,
            markevery=(at % every, every),
            label=agent,
        )
    axes.set_xlabel(labels[0])
    axes.set_ylabel(labels[1])
    if share:
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.tick_params(length=0)
    axes.grid(axis="y")
    legend(drawing, axes, len(shown))
    return svg(drawing, f"{labels[1]} by {labels[0]}", key)


def pareto_plot(points: pd.DataFrame, key: str, *, across: str, up: str) -> str:
    """Agents by two scores, more of both is better, and the line of those that none beats in both.

    Args:
        points: columns agent, privileged, x, y.
        key: keeps the figure's ids apart from others.
        across: what x is.
        up: what y is.
    """
    drawing, axes = figure(3.1)
    ranked = points.sort_values(["x", "y"], ascending=False)
    open_to = ranked[~ranked["privileged"]]
    front = open_to[open_to["y"] > open_to["y"].cummax().shift(fill_value=-np.inf)].sort_values("x")
    axes.plot(front["x"], front["y"], color=SOFT, linewidth=1.2, linestyle=(0, (4, 3)), zorder=1)
    for privileged, part in points.groupby("privileged"):
        axes.scatter(
            part["x"],
            part["y"],
            s=34,
            zorder=3,
            edgecolors=SERIES[0],
            linewidths=1.6,
            facecolors="none" if privileged else SERIES[0],
        )
    named = points[points["privileged"] | points["agent"].isin(front["agent"])] if len(points) > 9 else points
    middle = (points["x"].min() + points["x"].max()) / 2
    for place, point in enumerate(named.sort_values("y").itertuples()):
        left = point.x > middle  # text goes towards the middle, where there is room for it
        axes.annotate(
            point.agent,
            (point.x, point.y),
            (-6 if left else 6, 6 if place % 2 else -6),
            textcoords="offset points",
            ha="right" if left else "left",
            va="bottom" if place % 2 else "top",
            fontsize="small",
            color=INK,
        )
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    axes.margins(0.12)
    axes.tick_params(length=0)
    axes.grid()
    return svg(drawing, f"{up} against {across}", key)


def shares_plot(shares: pd.DataFrame, order: Sequence[str], key: str) -> str:
    """Who gets the attention, an agent a row; marks say where the groups' shares of relevance end.

    Args:
        shares: columns agent, group, value, relevance.
        order: agents from the top.
        key: keeps the figure's ids apart from others.
    """
    groups = list(dict.fromkeys(shares["group"]))[: len(SERIES)]
    agents = [agent for agent in order if agent in set(shares["agent"])]
    value, relevance = (
        shares.pivot(index="agent", columns="group", values=name).reindex(index=agents, columns=groups).fillna(0.0)
        for name in ("value", "relevance")
    )
    drawing, axes = figure(_ROW * len(agents) + 1.1)
    left = np.zeros(len(agents))
    for at, group in enumerate(groups):
        width = value[group].to_numpy()
        axes.barh(range(len(agents)), width, 0.55, left, color=SERIES[at], label=group)
        left += width
    ends = relevance.to_numpy().cumsum(1)[:, :-1]
    for row, marks in enumerate(ends):
        axes.vlines(marks, row - 0.42, row + 0.42, color=INK, linewidth=1.6)
    first = groups[0]
    rows(axes, agents, [f"{share:.0%}" for share in value[first]])
    axes.grid(visible=False)
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
    axes.set_xlabel(f"share of attention (figures: {first})")
    legend(drawing, axes, len(groups))
    return svg(drawing, "Share of attention by group", key)


def transfer_plot(transfer: Sequence[Transfer], key: str) -> str:
    """Reward at home, where the agents were trained (filled), and away (hollow), an agent a row."""
    drawing, axes = figure(_ROW * len(transfer) + 0.75)
    for row, one in enumerate(transfer):
        for place, score, hollow in ((row - 0.13, one.home, False), (row + 0.13, one.away, True)):
            axes.hlines(
                place, finite(score.low, score.value), finite(score.high, score.value), color=SERIES[0], linewidth=2
            )
            axes.scatter(
                [score.value],
                [place],
                s=30,
                zorder=3,
                edgecolors=SERIES[0],
                linewidths=1.5,
                facecolors="none" if hollow else SERIES[0],
            )
    rows(axes, [one.agent for one in transfer], [interval(one.gap, signed=True) for one in transfer])
    axes.set_xlabel("reward of an episode (figures: home less away)")
    return svg(drawing, "Reward at home and away", key)


def estimates_plot(table: pd.DataFrame, order: Sequence[str], key: str, label: str) -> str:
    """One metric with its interval, an agent a row; marks say what chance alone would show, where that is known.

    Args:
        table: columns agent, value, low, high and, for gaps between groups, by_chance (what shuffled labels show).
        order: agents from the top.
        key: keeps the figure's ids apart from others.
        label: of the horizontal axis.
    """
    found = table.set_index("agent").reindex([agent for agent in order if agent in set(table["agent"])])
    drawing, axes = figure(_ROW * len(found) + 0.75)
    for row, one in enumerate(found.itertuples()):
        draw(axes, row, one.value, one.low, one.high, SERIES[0])
        if "by_chance" in found:
            axes.plot([one.by_chance] * 2, [row - 0.28, row + 0.28], color=BAD, linewidth=2)
    if "by_chance" in found:
        axes.set_xlim(left=0)
    rows(axes, list(found.index), [format(value, ".4f" if abs(value) < 0.1 else ".2f") for value in found["value"]])
    axes.set_xlabel(label)
    return svg(drawing, label, key)
