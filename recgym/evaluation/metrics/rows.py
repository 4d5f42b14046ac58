"""Scores of an evaluation: pure functions of its rows, each with its interval."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from recgym.evaluation import statistics
from recgym.evaluation.metrics.beyond_accuracy import gini
from recgym.evaluation.statistics import Estimate

NUM_HISTORY_GROUPS = 4


@dataclass(frozen=True)
class Metric:
    """A number an agent is scored by: a sum over episodes divided by another.

    Attributes:
        id: its name in JSON.
        title: its name in tables.
        description: one sentence with the unit.
        numerator: rows -> [R].
        denominator: rows -> [R].
        needs: columns without which the metric does not exist.
    """

    id: str
    title: str
    description: str
    numerator: Callable[[pd.DataFrame], pd.Series]
    denominator: Callable[[pd.DataFrame], pd.Series]
    needs: tuple[str, ...] = ()

    def of(self, rows: pd.DataFrame, rng: np.random.Generator, *, draws: int = statistics.DRAWS) -> Estimate:
        """The estimate over ``rows`` (those of one agent in one scenario), with its interval clustered by user."""
        return statistics.ratio(self.numerator(rows), self.denominator(rows), rows["user"], rng, draws=draws)


def _episodes(rows: pd.DataFrame) -> pd.Series:
    return pd.Series(1.0, index=rows.index)


def _column(name: str) -> Callable[[pd.DataFrame], pd.Series]:
    return lambda rows: rows[name].astype(float)


METRICS = (
    Metric("reward", "reward", "Reward of an episode.", _column("reward"), _episodes),
    Metric("reward_per_step", "per slate", "Reward of a slate.", _column("reward"), _column("num_steps")),
    Metric("session_depth", "depth", "Slates an episode.", _column("num_steps"), _episodes),
    Metric(
        "hit_rate",
        "hit rate",
        "Share of slates from which at least one item was consumed.",
        _column("num_hits"),
        _column("num_steps"),
    ),
    Metric(
        "precision",
        "precision",
        "Share of shown items that were consumed.",
        _column("num_consumed"),
        _column("num_shown"),
    ),
    Metric(
        "discoveries",
        "new",
        "Items consumed in an episode that the user never had before.",
        _column("num_new"),
        _episodes,
    ),
    Metric(
        "revenue", "revenue", "Units bought times their price, an episode.", _column("revenue"), _episodes, ("revenue",)
    ),
    Metric(
        "popularity",
        "popularity",
        "Average recommendation popularity: mean number of logged purchases of a shown item (Yin et al., 2012).",
        _column("popularity_shown"),
        _column("num_shown"),
    ),
)


def score(
    rows: pd.DataFrame, *, seed: int = 0, draws: int = statistics.DRAWS, metrics: tuple[Metric, ...] = METRICS
) -> pd.DataFrame:
    """Every metric of every agent in every scenario.

    Args:
        rows: rows of ``evaluate``.
        seed: of the resampling. Every agent meets the same resamples, so a line does not depend on the others.
        draws: resamples.
        metrics: what to compute; those whose columns ``rows`` lacks (or holds no value of) are left out.

    Returns:
        columns scenario, agent, privileged, metric, value, low, high, num_users, num_rows.
    """
    lines = []
    for (scenario, agent), part in rows.groupby(["scenario", "agent"], sort=False):
        names = {"scenario": scenario, "agent": agent, "privileged": bool(part["privileged"].iloc[0])}
        for metric in metrics:
            if all(name in part and part[name].notna().all() for name in metric.needs):
                estimate = metric.of(part, np.random.default_rng(seed), draws=draws)
                lines.append({**names, "metric": metric.id, **vars(estimate)})
    return pd.DataFrame(lines)


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
    """Mean reward by how many trips the log holds of the user, in quarters of the users.

    Returns:
        columns scenario, agent, group (an ordered label such as ``12-40``), value, low, high, num_users, num_rows.
    """
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
