"""The figures of the fidelity card as PNG, drawn from its metrics alone."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH, DPI = 8.0, 120  # inches, dots an inch
_INK, _SOFT, _GRID = "#1f2328", "#59636e", "#d8dee4"
_MODEL, _REAL, _CONTROL = "#0969da", "#1f2328", "#bc4c00"
_STYLE: Any = {  # Any: matplotlib types its keys one by one
    "font.family": "sans-serif",
    "font.size": 9,
    "text.color": _INK,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.edgecolor": _GRID,
    "axes.labelcolor": _SOFT,
    "axes.labelsize": 8.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": _GRID,
    "grid.linewidth": 0.6,
    "xtick.color": _SOFT,
    "ytick.color": _SOFT,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
}
_CONTROLS = {
    "model": "the model, unaided",
    "popularity": "control: popularity simulator",
    "real_halves": "control: real, other users",
    "real_earlier": "control: real, the trips before",
}


def draw_figures(metrics: dict[str, Any]) -> dict[str, bytes]:
    """The figures of what was measured, PNG by file name; none where nothing was."""
    if not metrics.get("next_trip"):
        return {}
    drawn = {"reliability": _reliability, "groups": _groups, "marginals": _marginals}
    if metrics["sequences"]:
        drawn["sequences"] = _sequences
    with matplotlib.rc_context(_STYLE):
        return {f"{name}.png": _png(draw(metrics)) for name, draw in drawn.items()}


def _reliability(metrics: dict[str, Any]) -> Figure:
    """Predicted against observed in ten bins, a panel each; chances on logarithmic axes."""
    probes = metrics["purchase"]
    panels: list[tuple[str, list[list[float]], bool]] = [
        (f"q, {probes['top']['items_per_user']} items of highest q", probes["top"]["equal_pairs"]["bins"], True),
        (f"q, {probes['popular']['items_per_user']} popular items", probes["popular"]["equal_predicted"]["bins"], True),
    ]
    for name, event, title in (
        ("quantity", "at_least_2", "chance of two or more"),
        ("rating", "at_least_4", "chance of four or more"),
    ):
        if metrics.get(name):
            panels += [
                (f"expected {name}", metrics[name]["expected"]["bins"], False),
                (title, metrics[name][event]["bins"], False),
            ]
    figure = Figure(figsize=(WIDTH, 2.3), layout="constrained")
    for axes, (title, bins, logarithmic) in zip(figure.subplots(1, len(panels)), panels, strict=True):
        predicted, observed, pairs = (np.array(column) for column in zip(*bins, strict=True))
        shown = observed > 0 if logarithmic else np.ones(len(observed), bool)
        ends = np.concatenate((predicted[shown], observed[shown]))
        low, high = ends.min(), ends.max()
        if logarithmic:
            low, high = low / 1.6, high * 1.6
            axes.set_xscale("log")
            axes.set_yscale("log")
            spread = 1.96 * np.sqrt(observed * (1 - observed) / pairs)
            axes.vlines(
                predicted[shown],
                np.maximum(observed - spread, low)[shown],
                (observed + spread)[shown],
                color=_MODEL,
                linewidth=1,
            )
        else:
            margin = max(0.06 * (high - low), 1e-3)  # all answers may be alike
            low, high = low - margin, high + margin
        axes.plot([low, high], [low, high], color=_SOFT, linewidth=1, linestyle=(0, (4, 3)))
        axes.plot(predicted[shown], observed[shown], color=_MODEL, marker="o", markersize=4, linewidth=1.2)
        axes.set(title=title, xlabel="predicted", xlim=(low, high), ylim=(low, high), box_aspect=1)
        axes.minorticks_off()
    figure.axes[0].set_ylabel("observed")
    return figure


def _groups(metrics: dict[str, Any]) -> Figure:
    """AUC by history length and user group, model and baselines."""
    rows = [(f"{row['group']}{'' if 'hidden' in row['group'] else ' trips'}", row) for row in metrics["history"]]
    rows += [(row["group"].replace("_", " "), row) for row in metrics["groups"]]
    figure = Figure(figsize=(WIDTH, 0.23 * len(rows) + 1.1), layout="constrained")
    both = figure.subplots(1, 2, sharey=True)
    for axes, kind, baseline in zip(both, ("uniform", "popularity"), ("popularity", "own_frequency"), strict=True):
        for place, (_, row) in enumerate(rows):
            value, low, high = row["auc"][kind]["model"]
            axes.scatter(row["auc"][kind][baseline][0], place, color=_CONTROL, marker="D", s=16, zorder=3)
            _draw(axes, place, value, low, high, _MODEL)
        axes.set_title(f"negatives sampled {'uniformly' if kind == 'uniform' else 'by popularity'}")
        axes.set_xlabel("AUC per user")
        _key(axes, [("model", _MODEL, "o"), (baseline.replace("_", " "), _CONTROL, "D")])
    _rows(both[0], [name for name, _ in rows])
    both[1].grid(axis="y", visible=False)
    return figure


def _marginals(metrics: dict[str, Any]) -> Figure:
    """Distribution functions of held-out trips, the model's and the popularity simulator's."""
    rows = metrics["marginals"]["rows"]
    columns = 3
    lines = -(-(len(rows) + 1) // columns)
    figure = Figure(figsize=(WIDTH, 2.15 * lines), layout="constrained")
    panels = list(figure.subplots(lines, columns).flat)
    sources = (
        ("popularity", "popularity simulator", _CONTROL),
        ("held_out", "held out", _REAL),
        ("model", "model", _MODEL),
    )
    for axes, row in zip(panels, rows, strict=False):
        edges, shares = np.array(row["histogram"]["edges"]), row["histogram"]["shares"]
        shown = np.cumsum(shares["held_out"]) - shares["held_out"] < 0.995  # the long end of a tail would squeeze all
        for source, _, colour in sources:
            below = np.cumsum(shares[source]) - shares[source]  # share below each edge; the last bin is open
            axes.plot(edges[shown], below[shown], color=colour, linewidth=1.4)
        axes.set_title(row["name"], fontsize=8.5)
        axes.set_xlabel(row["unit"] or "value")
        axes.set_ylim(0, 1.02)
    for axes in panels[len(rows) :]:
        axes.axis("off")
    panels[len(rows)].legend(
        handles=[panels[0].plot([], [], color=colour, linewidth=1.6, label=label)[0] for _, label, colour in sources],
        title="share of trips or items below",
        loc="center left",
        frameon=False,
        alignment="left",
    )
    return figure


def _sequences(metrics: dict[str, Any]) -> Figure:
    """AUC of the two-sample tests with their intervals."""
    found = metrics["sequences"]
    figure = Figure(figsize=(WIDTH, 2.1), layout="constrained")
    axes = figure.subplots()
    axes.axvline(0.5, color=_SOFT, linewidth=1, linestyle=(0, (4, 3)))
    for place, name in enumerate(_CONTROLS):
        colour = _MODEL if name == "model" else _CONTROL if name == "popularity" else _REAL
        for shift, classifier, marker in ((-0.14, "logistic", "o"), (0.14, "network", "s")):
            value, low, high = found[name][classifier]
            _draw(axes, place + shift, value, low, high, colour, marker)
    _rows(axes, list(_CONTROLS.values()))
    axes.set_xlabel("AUC of telling it from the held-out trips: 0.5 is ideal")
    axes.set_xlim(min(0.45, axes.get_xlim()[0]), 1.0)
    _key(axes, [("logistic regression", _SOFT, "o"), ("neural network", _SOFT, "s")])
    return figure


def _draw(
    axes: Axes, row: float, value: float, low: float | None, high: float | None, colour: str, marker: str = "o"
) -> None:
    if low is not None and high is not None:
        axes.hlines(row, low, high, color=colour, linewidth=1.6)
    axes.scatter([value], [row], color=colour, marker=marker, s=20, zorder=3)


def _rows(axes: Axes, labels: Sequence[str]) -> None:
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.grid(axis="y", visible=False)


def _key(axes: Axes, entries: Sequence[tuple[str, str, str]]) -> None:
    handles = [axes.scatter([], [], color=colour, marker=marker, s=20, label=name) for name, colour, marker in entries]
    axes.legend(handles=handles, loc="lower center", bbox_to_anchor=(0.5, 1.06), ncols=len(entries), frameon=False)


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, facecolor="white", metadata={"Software": None})
    return buffer.getvalue()
