"""Every metric that applies, by scenario and agent, and why the others do not: computed from rows alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from recgym.evaluation import statistics
from recgym.evaluation.metrics import cold_start, groups
from recgym.evaluation.metrics.beyond_accuracy import catalogue_coverage, gini
from recgym.evaluation.metrics.definitions import METRICS, Metric, term_metrics
from recgym.evaluation.metrics.provider_fairness import unequal_attention
from recgym.evaluation.metrics.user_fairness import GroupGap
from recgym.evaluation.metrics.visits import curves_over_time, retention_curves, with_reference, with_visits
from recgym.evaluation.statistics import Estimate

COLUMNS = [
    *("scenario", "agent", "privileged", "family", "metric", "group"),
    *("value", "low", "high", "num_users", "num_rows", "by_chance", "p_value"),
]
NOT_ROWS = {
    "value, absolute, under and over unfairness": "they compare predicted with true ratings, and agents show slates",
}


@dataclass
class Measures:
    """What was measured.

    Attributes:
        table: columns ``COLUMNS``; group is ``overall``, or a group of users or of history lengths, or an attribute;
            by_chance and p_value are of gaps, under permuted labels.
        left_out: scenario, metric and reason.
        exposure: scenario, agent, attribute, group, value, low, high, relevance, taken: shares of each.
        retention: scenario, agent, day, retained: share of users who visit on that day or later; see ``retention``.
        over_time: scenario, agent, figure, day, value, low, high: what an episode earns a day; see
            ``curves_over_time``.
    """

    table: pd.DataFrame
    left_out: list[dict[str, str]] = field(default_factory=list)
    exposure: pd.DataFrame = field(default_factory=pd.DataFrame)
    retention: pd.DataFrame = field(default_factory=pd.DataFrame)
    over_time: pd.DataFrame = field(default_factory=pd.DataFrame)


def measure(directory: Path, manifest: Mapping[str, Any], *, seed: int = 0, draws: int = 1_000) -> Measures:
    """The metrics of a finished evaluation.

    Args:
        directory: of the evaluation.
        manifest: its ``run.json``.
        seed: of the resampling.
        draws: resamples, and permutations of labels.
    """
    rows = pd.read_parquet(directory / "rows.parquet")
    users = pd.read_parquet(directory / "users.parquet")
    parts, found = [], Measures(pd.DataFrame())
    exposures, curves, courses = [], [], []
    for scenario, mine in rows.groupby("scenario", sort=False):
        only = [("scenario", "==", scenario)]
        episode = manifest["configuration"]["scenarios"][scenario]["episode"]
        horizon = int(episode["horizon_days"]) if episode["kind"] == "horizon" else None
        known = []
        for agent, one in mine.groupby("agent", sort=False):  # a few at a time: visits are many
            visits = pd.read_parquet(directory / "visits.parquet", filters=[*only, ("agent", "==", agent)])
            known.append(with_visits(one, visits, horizon))
            if horizon is not None:
                _name_cut(found, one, horizon, int(episode["max_steps"]))
                curves.append(retention_curves(one, visits, horizon))
                courses.append(curves_over_time(one, visits, horizon, seed=seed, draws=draws))
        parts.append(_of_rows(with_reference(pd.concat(known)), found, seed, draws))
        items = pd.read_parquet(directory / "items.parquet", filters=only)
        parts.append(_of_items(mine, items, manifest["configuration"]["world"]["num_items"]))
        labels = users[users["scenario"] == scenario].drop(columns="scenario").dropna(axis=1).set_index("user")
        parts.append(_of_users(mine, labels, found, seed, draws))
        providers = pd.read_parquet(directory / "providers.parquet", filters=only)
        table, shares = _of_providers(mine, providers, manifest["providers"][scenario], found, seed, draws)
        parts.append(table)
        exposures.append(shares)
        found.left_out += [{"scenario": str(scenario), "metric": name, "reason": why} for name, why in NOT_ROWS.items()]
    found.table = pd.concat([part for part in parts if len(part)], ignore_index=True).reindex(columns=COLUMNS)
    found.exposure = pd.concat(exposures, ignore_index=True) if any(map(len, exposures)) else pd.DataFrame()
    found.retention = pd.concat(curves, ignore_index=True) if curves else pd.DataFrame()
    found.over_time = pd.concat(courses, ignore_index=True) if courses else pd.DataFrame()
    return found


def _of_rows(rows: pd.DataFrame, found: Measures, seed: int, draws: int) -> pd.DataFrame:
    """The metrics of rows: over all, for cold and warm users, and by history length."""
    applying = []
    for metric in (*METRICS, *term_metrics(rows)):
        if any(metric.parts(part) is not None for _, part in rows.groupby("agent", sort=False)):
            applying.append(metric)
        else:
            _leave_out(found, rows, metric.title, metric.without)
    table = cold_start.by_history_length(rows, column="history_events", seed=seed, draws=draws, metrics=tuple(applying))
    table["group"] = table["group"].astype(str)
    families = {metric.id: metric.family for metric in applying}
    overall = table["group"] == "overall"
    for name in ("cold", "warm"):
        if name not in set(table["group"]):
            _leave_out(found, rows, f"every metric of {name} users", f"there are no {name} users in the sample")
    return table.assign(family=np.where(overall, table["metric"].map(families), "cold start"))


def _of_items(rows: pd.DataFrame, items: pd.DataFrame, num_items: int) -> pd.DataFrame:
    """Metrics of the whole catalogue; they have no interval, since they are of all users at once."""
    lines = []
    for names, mine in _agents(rows):
        table = items[items["agent"] == names["agent"]].groupby("item")[["shown", "received", "relevance"]].sum()
        table = table.reindex(range(num_items), fill_value=0)
        values = {
            ("beyond", "coverage"): catalogue_coverage(table["shown"]),
            ("beyond", "gini"): gini(table["shown"]),
        }
        if table["relevance"].sum() > 0:
            unequal = unequal_attention(table["received"], table["relevance"])
            values["provider fairness", "equity_of_attention"] = unequal
        for (family, metric), value in values.items():
            estimate = Estimate(value, np.nan, np.nan, mine["user"].nunique(), len(mine))
            lines.append({**names, "family": family, "metric": metric, "group": "overall", **vars(estimate)})
        by_user = mine.groupby("user")[["exposure_loss_sum", "num_judged"]].sum()
        top, judged = (by_user.loc[by_user["num_judged"] > 0, name] for name in by_user)
        estimate = statistics.ratio(top, judged, judged.index, np.random.default_rng(0), draws=1_000)
        names_of = {"family": "provider fairness", "metric": "slate_exposure_loss", "group": "overall"}
        lines.append({**names, **names_of, **vars(estimate)})
    return pd.DataFrame(lines)


def _of_users(rows: pd.DataFrame, users: pd.DataFrame, found: Measures, seed: int, draws: int) -> pd.DataFrame:
    """Gaps between groups of users, by each attribute that the world knows."""
    if users.columns.empty:
        _leave_out(found, rows, "fairness to users", "the world knows no attributes of its users")
    lines: list[dict[str, Any]] = []
    for attribute in users.columns:
        refused: dict[str, str] = {}
        for names, mine in _agents(rows):
            rng = np.random.default_rng(seed)
            gaps = groups.user_gaps(mine, users[attribute], rng, draws=draws, permutations=draws)
            for utility, gap in gaps:
                if isinstance(gap, GroupGap):
                    lines += [{**names, **line} for line in _gap_lines(attribute, utility, gap)]
                else:
                    refused.setdefault(utility, gap)
        for reason in dict.fromkeys(refused.values()):
            which = ", ".join(utility for utility, why in refused.items() if why == reason)
            _leave_out(found, rows, f"gaps in {which} by {attribute}", reason)
    return pd.DataFrame(lines)


def _gap_lines(attribute: str, utility: str, gap: GroupGap) -> list[dict[str, Any]]:
    about = {"family": "user fairness"}
    lines = [
        {**about, "metric": f"{utility} by {attribute}", "group": group, **vars(estimate)}
        for group, estimate in gap.groups.items()
    ]
    chance = {"by_chance": gap.permuted_gap, "p_value": gap.p_value}
    lines.append({**about, "metric": f"{utility} gap", "group": attribute, **vars(gap.gap), **chance})
    worst = {"group": attribute, **vars(gap.worst), "by_chance": gap.permuted_worst}
    lines.append({**about, "metric": f"{utility} of the worst group", **worst})
    return lines


def _of_providers(
    rows: pd.DataFrame,
    providers: pd.DataFrame,
    sizes: Mapping[str, Mapping[str, int]],
    found: Measures,
    seed: int,
    draws: int,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    if not sizes or providers.empty:
        _leave_out(found, rows, "fairness to groups of providers", "the world's items are in no groups")
        return pd.DataFrame(), pd.DataFrame()
    lines, shares = [], []
    for names, _ in _agents(rows):
        mine = providers[providers["agent"] == names["agent"]]
        for attribute, part in mine.groupby("attribute", sort=False):
            about = {**names, "family": "provider fairness"}
            scores = groups.provider_scores(part, sizes[str(attribute)], np.random.default_rng(seed), draws=draws)
            lines += [
                {**about, "metric": metric, "group": attribute, **vars(estimate)}
                for metric, estimate in scores.items()
                if estimate.value == estimate.value
            ]
            share = groups.exposure_shares(part, np.random.default_rng(seed), draws=draws)
            shares.append(share.assign(scenario=names["scenario"], agent=names["agent"], attribute=attribute))
    return pd.DataFrame(lines), pd.concat(shares, ignore_index=True)


def _agents(rows: pd.DataFrame) -> list[tuple[dict[str, Any], pd.DataFrame]]:
    """The rows of each agent of one scenario, with what names its lines."""
    scenario = rows["scenario"].iloc[0]
    return [
        ({"scenario": scenario, "agent": agent, "privileged": bool(mine["privileged"].iloc[0])}, mine)
        for agent, mine in rows.groupby("agent", sort=False)
    ]


def _name_cut(found: Measures, rows: pd.DataFrame, horizon: int, max_steps: int) -> None:
    """Says of how many episodes the end is not known, since the limit of slates cut them off."""
    cut = int((rows["ended"] == "slates").sum())
    if cut:
        reason = (
            f"{cut:,} of {len(rows):,} episodes end at the limit of {max_steps} slates, before day {horizon}: what "
            "they earn is a lower bound, and they count in no window or tenth of the horizon that they did not reach"
        )
        _leave_out(found, rows, f"{rows['agent'].iloc[0]} beyond the limit of slates", reason)


def _leave_out(found: Measures, rows: pd.DataFrame, metric: str, reason: str) -> None:
    found.left_out.append({"scenario": str(rows["scenario"].iloc[0]), "metric": metric, "reason": reason})


def titles() -> dict[str, tuple[str, str]]:
    """Title and meaning of each metric, by id."""

    def of(metric: Metric) -> tuple[str, str]:
        return metric.title, metric.description

    return {
        **{metric.id: of(metric) for metric in METRICS},
        "coverage": ("coverage", "Share of the catalogue shown at least once, over all episodes."),
        "gini": ("Gini", "Concentration of what is shown on few items: 0 all equally often, 1 one alone."),
        "equity_of_attention": (
            "equity of attention",
            "Distance of the items' shares of attention on first slates of visits from their shares of relevance, 0 to "
            "2 (Biega et al., 2018).",
        ),
        "slate_exposure_loss": (
            "exposure loss of a slate",
            "Squared gap of the attention of each candidate, in the one slate that was shown, from that of an ideal "
            "slate; the EEL of Diaz et al. (2020) for policies that do not draw.",
        ),
        **{
            f"{utility} gap": (f"{utility} gap", f"Largest less smallest mean over groups: {title}.")
            for utility, (title, _, _) in groups.UTILITIES.items()
        },
        **{
            f"{utility} of the worst group": (f"{utility}, worst group", f"Smallest mean over groups: {title}.")
            for utility, (title, _, _) in groups.UTILITIES.items()
        },
        **groups.PROVIDER_METRICS,
    }
