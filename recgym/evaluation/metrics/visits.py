"""What visits add to the rows of their episodes: returns, retention, lifetime value and the mix of categories."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from recgym.evaluation import statistics
from recgym.evaluation.metrics import engagement
from recgym.evaluation.metrics.definitions import FIRST

KEYS = ["agent", "seed", "user"]
PARTS = 10  # of a horizon, in curves over time


def with_visits(rows: pd.DataFrame, visits: pd.DataFrame, horizon_days: int | None) -> pd.DataFrame:
    """``rows`` of one scenario with the columns that the metrics of visits need.

    Args:
        rows: rows of ``evaluate``.
        visits: their visits.
        horizon_days: days that episodes last; None where an episode is one visit, which has no returns to speak of.

    Returns:
        ``rows`` with entropy_sum and num_visits; with a horizon also the same ``_early`` and ``_late`` (its first and
        last third), gap_sum, num_gaps, lifetime_value, for each of ``WINDOWS`` that fits into the horizon retained_N,
        and for each that is shorter returned_N (on the last day itself no visit is simulated). Whoever the horizon cut
        off is retained; of an episode that the limit of slates cut off nothing is known after that, which is NaN.
    """
    episodes = rows[KEYS].assign(episode=np.arange(len(rows)))
    table = visits.merge(episodes, on=KEYS, how="inner", validate="many_to_one")
    episode, day = table["episode"].to_numpy(), table["day"].to_numpy(np.float64)

    def by_episode(values: Any, where: Any = slice(None)) -> pd.Series:
        owner = episode[where]
        weights = None if values is None else np.asarray(values, np.float64)[where]
        return pd.Series(np.bincount(owner, weights, minlength=len(rows)).astype(np.float64), index=rows.index)

    added = {"entropy_sum": by_episode(table["entropy"]), "num_visits": by_episode(None)}
    if horizon_days is not None:
        early, late = day < horizon_days / 3, day >= horizon_days * 2 / 3
        for name, where in (("early", early), ("late", late)):
            added |= {
                f"entropy_{name}_sum": by_episode(table["entropy"], where),
                f"num_visits_{name}": by_episode(None, where),
            }
        gaps = engagement.return_times(episode, day).groupby("user")["gap"].agg(["sum", "size"])
        gaps = gaps.reindex(range(len(rows)), fill_value=0.0)
        added["gap_sum"], added["num_gaps"] = (gaps[name].set_axis(rows.index) for name in ("sum", "size"))
        values = table["revenue"] if rows["revenue"].notna().all() else table["reward"]
        worth = engagement.lifetime_value(episode, day, values).set_index("user")["value"]
        added["lifetime_value"] = worth.reindex(range(len(rows)), fill_value=0.0).set_axis(rows.index)
        last = pd.Series(day).groupby(episode).max().set_axis(rows.index)
        for window in engagement.WINDOWS:
            if window <= horizon_days:
                kept = engagement.retention(episode, day, window, horizon_days).set_index("user").sort_index()
                returned, active = (kept[name].set_axis(rows.index) for name in ("returned", "active"))
                unknown = (rows["ended"] == "slates") & (last < window)
                # The visit that lies beyond the horizon was not simulated, but it is known to come.
                added[f"retained_{window}"] = active.where(rows["ended"] != "horizon", 1.0).mask(unknown)
                if window < horizon_days:
                    added[f"returned_{window}"] = returned.mask(unknown & (returned == 0))
    return rows.assign(**added)


def with_reference(rows: pd.DataFrame) -> pd.DataFrame:
    """``rows`` of one scenario with how far each episode is behind the best privileged agent's after ``FIRST`` slates.

    Both met the same user with the same luck. Without a privileged agent, ``rows`` as they are.
    """
    privileged = rows[rows["privileged"]]
    if privileged.empty:
        return rows
    best = privileged.groupby("agent", sort=False)["reward"].mean().idxmax()
    columns = [f"reward_first_{count}" for count in FIRST]
    reference = privileged.loc[privileged["agent"] == best, ["seed", "user", *columns]]
    paired = rows[["seed", "user"]].merge(reference, on=["seed", "user"], how="left", validate="many_to_one")
    gaps = {
        f"behind_first_{count}": paired[name].to_numpy() - rows[name].to_numpy()
        for count, name in zip(FIRST, columns, strict=True)
    }
    return rows.assign(**gaps)


def retention_curves(rows: pd.DataFrame, visits: pd.DataFrame, horizon_days: int) -> pd.DataFrame:
    """The share of episodes with a visit on a day or later (rolling retention), for every day of the horizon.

    Args:
        rows: rows of ``evaluate`` of one scenario; whoever the horizon cut off is retained throughout, and an episode
            that the limit of slates cut off counts until then.
        visits: their visits.
        horizon_days: days that episodes last.

    Returns:
        columns scenario, agent, day, retained; days of which nothing is known are left out.
    """
    last = visits.groupby(KEYS)["day"].max().rename("last").reset_index()
    table = rows[[*KEYS, "ended"]].merge(last, on=KEYS, how="left", validate="one_to_one")
    table["until"] = table["last"].fillna(0).mask(table["ended"] == "horizon", horizon_days)
    days = np.arange(horizon_days + 1)
    found = []
    for agent, mine in table.groupby("agent", sort=False):
        cut = mine.loc[mine["ended"] == "slates", "until"]
        past, unknown = (np.searchsorted(np.sort(last), days, side="left") for last in (mine["until"], cut))
        known = len(mine) - unknown
        retained = (len(mine) - past)[known > 0] / known[known > 0]
        found.append(pd.DataFrame({"agent": agent, "day": days[known > 0], "retained": retained}))
    curves = pd.concat(found, ignore_index=True)
    curves.insert(0, "scenario", rows["scenario"].iloc[0])
    return curves


def curves_over_time(
    rows: pd.DataFrame, visits: pd.DataFrame, horizon_days: int, *, seed: int = 0, draws: int = 1_000
) -> pd.DataFrame:
    """What an episode earns a day in each tenth of the horizon; whoever has left earns nothing and is counted.

    An episode that the limit of slates cut off counts in the tenths before that alone.

    Args:
        rows: rows of ``evaluate`` of one scenario and agent.
        visits: their visits.
        horizon_days: days that episodes last.
        seed: of the resampling.
        draws: resamples.

    Returns:
        columns scenario, agent, figure (reward or, where there are prices, revenue), day (the middle of the part),
        value, low, high; parts that every episode was cut off before are left out.
    """
    edges = np.linspace(0, horizon_days, min(PARTS, horizon_days) + 1)
    parts = len(edges) - 1
    episodes = rows[KEYS].assign(episode=np.arange(len(rows)))
    table = visits.merge(episodes, on=KEYS, how="inner", validate="many_to_one")
    part = (np.searchsorted(edges, table["day"].to_numpy(np.float64), side="right") - 1).clip(0, parts - 1)
    cells = table["episode"].to_numpy() * parts + part
    until = table.groupby("episode")["day"].max().to_numpy(np.float64)
    known = (rows["ended"] != "slates").to_numpy()[:, None] | (edges[1:] <= until[:, None])  # [R, parts]
    told = known.any(0)
    found = []
    for figure in ("reward", "revenue"):
        if rows[figure].isna().any():
            continue
        sums = np.bincount(cells, table[figure].to_numpy(np.float64), len(rows) * parts).reshape(len(rows), parts)
        rng = np.random.default_rng(seed)
        rates = np.where(known, sums / np.diff(edges), 0.0)
        estimates = statistics.ratios(rates[:, told], known[:, told], rows["user"], rng, draws=draws)
        for middle, estimate in zip(((edges[1:] + edges[:-1]) / 2)[told], estimates, strict=True):
            ends = {name: getattr(estimate, name) for name in ("value", "low", "high")}
            found.append({"figure": figure, "day": float(middle), **ends})
    curves = pd.DataFrame(found)
    curves.insert(0, "agent", rows["agent"].iloc[0])
    curves.insert(0, "scenario", rows["scenario"].iloc[0])
    return curves
