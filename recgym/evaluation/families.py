"""The metrics of a scenario as tables: one a family, an agent a row, a metric a column."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from recgym.evaluation.measures import titles
from recgym.evaluation.metrics.cold_start import HISTORY_GROUPS
from recgym.evaluation.metrics.definitions import FAMILIES
from recgym.evaluation.statistics import Estimate
from recgym.evaluation.summary import ScenarioSummary
from recgym.simulation.population import UNKNOWN

BY_LEVEL = ("reward", "reward_per_step", "ndcg")  # told by how many purchases of a user the platform knows
COLD = ("reward", "hit_rate", "precision_true", "recall", "ndcg", "mrr", "regret", "behind_5", "discoveries")


@dataclass(frozen=True)
class Column:
    """One metric."""

    title: str
    description: str


@dataclass(frozen=True)
class Family:
    """A table of metrics: a text for every agent and column."""

    title: str
    note: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[str, tuple[str, ...]], ...]


def families(part: ScenarioSummary) -> list[Family]:
    """The tables of a scenario, those without metrics left out."""
    table = part.measures
    if table.empty:
        return []
    order = [line.agent for line in part.lines]
    found = [
        _table(title, "Every metric over all users, with its 95% interval.", table[table["family"] == family], order)
        for family, title in FAMILIES.items()
    ]
    cold = table[(table["family"] == "cold start") & table["metric"].isin(COLD)]
    for group in ("cold", "warm"):
        who = "fewer than 6" if group == "cold" else "6 or more"
        mine = cold[cold["group"] == group]
        found.append(
            _table(f"{group.capitalize()} users", f"Users of whom the platform knows {who} purchases.", mine, order)
        )
    levels = table[(table["family"] == "cold start") & table["group"].isin(list(HISTORY_GROUPS))]
    if {"0"} < set(levels["group"]):  # the scenario cuts what is known of users
        for metric in BY_LEVEL:
            title, meaning = titles()[metric]
            by_level = _of_groups(levels[levels["metric"] == metric])
            found.append(_table(f"By purchases known: {title}", meaning, by_level, order))
    of_users = table[table["family"] == "user fairness"]
    gaps = of_users[of_users["by_chance"].notna()]
    for attribute, mine in gaps.groupby("group", sort=False):
        by_group = _of_groups(of_users[of_users["metric"] == f"reward by {attribute}"])
        note = f"Mean over the users of each group; {UNKNOWN} is reported, but part of no gap."
        found.append(_table(f"Reward of users by {attribute}", note, by_group, order))
        note = (
            "In brackets the interval; then what shuffled labels show, since a maximum is biased upward, and the "
            "chance of a gap as large under them."
        )
        found.append(_table(f"Fairness to users by {attribute}", note, mine, order, chance=True))
    fair = table[table["family"] == "provider fairness"]
    for attribute, mine in fair.groupby("group", sort=False):
        whole = attribute == "overall"
        title = "Fairness to items" if whole else f"Fairness to providers by {attribute}"
        note = "Of single items, and of the slates' candidates." if whole else "Of groups of items."
        found.append(_table(title, note, mine, order))
    return [family for family in found if family.rows]


def _of_groups(table: pd.DataFrame) -> pd.DataFrame:
    """Lines of one metric with the groups in place of metrics, to become columns."""
    return table.assign(metric=table["group"])


def _table(title: str, note: str, table: pd.DataFrame, order: list[str], *, chance: bool = False) -> Family:
    names = titles()
    ids = [metric for metric in dict.fromkeys([*names, *table["metric"]]) if metric in set(table["metric"])]
    cells = {(row.agent, row.metric): _cell(row, chance) for row in table.itertuples()}
    return Family(
        title,
        note,
        tuple(Column(*names.get(metric, (metric, ""))) for metric in ids),
        tuple(
            (agent, tuple(cells.get((agent, metric), "–") for metric in ids))
            for agent in order
            if any((agent, metric) in cells for metric in ids)
        ),
    )


def _cell(row: object, chance: bool) -> str:
    value, low, high, by_chance = (getattr(row, name) for name in ("value", "low", "high", "by_chance"))
    text = interval(Estimate(value, low, high, 0, 0))
    if not chance:
        return text
    p_value = getattr(row, "p_value", float("nan"))
    return f"{text} / {number(by_chance)}" + (f", p {p_value:.3f}" if p_value == p_value else "")


def number(value: float | None) -> str:
    """Three significant digits or two decimals, whichever says more; a dash for nothing."""
    if value is None or value != value:
        return "–"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return (
        f"{value:.1f}" if abs(value) >= 100 else f"{value:.2f}" if abs(value) >= 0.095 or not value else f"{value:.2g}"
    )


def interval(estimate: Estimate, *, signed: bool = False) -> str:
    """An estimate with its interval, such as ``+0.41 [0.35, 0.47]``."""
    sign = "+" if signed and estimate.value > 0 else ""
    ends = "" if estimate.low != estimate.low else f" [{number(estimate.low)}, {number(estimate.high)}]"
    return f"{sign}{number(estimate.value)}{ends}"
