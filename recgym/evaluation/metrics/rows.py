"""Scores of an evaluation: pure functions of its rows, each with its interval."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from recgym.evaluation import statistics
from recgym.evaluation.metrics.arrays import Floats
from recgym.evaluation.metrics.beyond_accuracy import gini
from recgym.evaluation.metrics.definitions import METRICS, Metric

NUM_HISTORY_GROUPS = 4


def score(
    rows: pd.DataFrame, *, seed: int = 0, draws: int = statistics.DRAWS, metrics: tuple[Metric, ...] = METRICS
) -> pd.DataFrame:
    """Every metric of every agent in every scenario.

    Args:
        rows: rows of ``evaluate``, with the columns of ``with_visits`` where there are visits.
        seed: of the resampling. Every agent meets the same resamples, so a line does not depend on the others.
        draws: resamples.
        metrics: what to compute; those whose columns ``rows`` lacks (or holds no value of) are left out.

    Returns:
        columns scenario, agent, privileged, metric, value, low, high, num_users, num_rows.
    """
    lines = []
    for scenario, part in rows.groupby("scenario", sort=False):
        columns: dict[bytes, list[tuple[dict[str, Any], Floats, Floats]]] = {}  # by the users of the rows
        users: dict[bytes, pd.Series] = {}
        for agent, mine in part.groupby("agent", sort=False):
            key = mine["user"].to_numpy().tobytes()
            users.setdefault(key, mine["user"])
            names = {"scenario": scenario, "agent": agent, "privileged": bool(mine["privileged"].iloc[0])}
            for metric in metrics:
                if (parts := metric.parts(mine)) is not None:
                    columns.setdefault(key, []).append(({**names, "metric": metric.id}, *parts))
        for key, found in columns.items():  # agents that met the same users share their resamples
            tops = np.stack([top for _, top, _ in found], axis=1)
            bottoms = np.stack([bottom for _, _, bottom in found], axis=1)
            estimates = statistics.ratios(tops, bottoms, users[key], np.random.default_rng(seed), draws=draws)
            lines += [{**one[0], **vars(estimate)} for one, estimate in zip(found, estimates, strict=True)]
    table = pd.DataFrame(lines)
    order = {name: at for at, name in enumerate(dict.fromkeys(zip(rows["scenario"], rows["agent"], strict=True)))}
    place = pd.Series([order[name] for name in zip(table["scenario"], table["agent"], strict=True)])
    return table.iloc[place.argsort(kind="stable")].reset_index(drop=True)


def coverage(exposures: pd.DataFrame, num_items: int) -> pd.DataFrame:
    """Catalogue coverage: the share of all items shown at least once, over all episodes.

    Args:
        exposures: columns scenario, agent, item, shown (times), as ``evaluate`` writes them.
        num_items: size of the catalogue.

    Returns:
        columns scenario, agent, coverage in [0, 1], gini in [0, 1] (0: every item shown equally often).
    """
    lines = []
    for (scenario, agent), part in exposures.groupby(["scenario", "agent"], sort=False):
        shown = part.groupby("item")["shown"].sum()
        shown = shown[shown > 0]
        counts = np.concatenate([np.zeros(num_items - len(shown)), shown.to_numpy(float)])
        lines.append({"scenario": scenario, "agent": agent, "coverage": len(shown) / num_items, "gini": gini(counts)})
    return pd.DataFrame(lines, columns=["scenario", "agent", "coverage", "gini"])


def by_history(rows: pd.DataFrame, *, seed: int = 0, draws: int = statistics.DRAWS) -> pd.DataFrame:
    """Mean reward by how many trips the platform's log holds of the user, in quarters of the users of a scenario.

    Returns:
        columns scenario, agent, group (an ordered label such as ``12-40``), value, low, high, num_users, num_rows.
    """
    tables = [_by_history(part, seed, draws) for _, part in rows.groupby("scenario", sort=False)]
    order = dict.fromkeys(label for table in tables for label in table["group"].cat.categories)
    table = pd.concat([table.astype({"group": str}) for table in tables], ignore_index=True)
    return table.assign(group=pd.Categorical(table["group"], list(order), ordered=True))


def _by_history(rows: pd.DataFrame, seed: int, draws: int) -> pd.DataFrame:
    """``by_history`` of one scenario: what a platform knows of its users differs between scenarios."""
    trips = rows.drop_duplicates("user")["history_trips"]
    edges = np.unique(np.floor(np.quantile(trips, np.linspace(0, 1, NUM_HISTORY_GROUPS + 1))))
    lows, highs = edges[:-1] if len(edges) > 1 else edges, edges[1:] - 1 if len(edges) > 1 else edges
    highs[-1] = edges[-1]
    labels = [f"{low:.0f}" if low == high else f"{low:.0f}–{high:.0f}" for low, high in zip(lows, highs, strict=True)]
    groups = np.searchsorted(lows, rows["history_trips"], side="right") - 1
    lines = []
    for (scenario, agent, group), part in rows.groupby(["scenario", "agent", groups], sort=False):
        estimate = statistics.mean(part["reward"], part["user"], np.random.default_rng(seed), draws=draws)
        lines.append({"scenario": scenario, "agent": agent, "group": labels[group], **vars(estimate)})
    table = pd.DataFrame(lines)
    table["group"] = pd.Categorical(table["group"], labels, ordered=True)
    return table.sort_values(["scenario", "agent", "group"], kind="stable", ignore_index=True)
