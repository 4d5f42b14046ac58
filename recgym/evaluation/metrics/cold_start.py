"""Cold start: every metric for cold users, warm users and all, and what learning a user costs."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from recgym.errors import RecGymError
from recgym.evaluation import statistics
from recgym.evaluation.metrics.arrays import aligned, numbers
from recgym.evaluation.metrics.definitions import METRICS, Metric
from recgym.evaluation.metrics.rows import score

# Interactions before the episode, after ColdRec: label -> (fewest, most).
HISTORY_GROUPS = {"0": (0, 0), "1–5": (1, 5), "6–20": (6, 20), ">20": (21, np.inf)}
WARM_FROM = 6  # interactions


def history_groups(lengths: npt.ArrayLike) -> pd.Categorical:
    """The group of each history length, ordered from none to the longest.

    Args:
        lengths: [R] interactions (trips, in worlds that have them) the agent could know of, at least 0.

    Raises:
        RecGymError: a length that is negative or not finite.
    """
    known = numbers("lengths", lengths, low=0)
    starts = [low for low, _ in HISTORY_GROUPS.values()]
    codes = np.searchsorted(starts, known, side="right") - 1
    return pd.Categorical.from_codes(codes, list(HISTORY_GROUPS), ordered=True)


def by_history_length(
    rows: pd.DataFrame,
    *,
    column: str = "history_trips",
    warm_from: int = WARM_FROM,
    seed: int = 0,
    draws: int = statistics.DRAWS,
    metrics: tuple[Metric, ...] = METRICS,
) -> pd.DataFrame:
    """Every metric for all users, the cold, the warm and each group of ``HISTORY_GROUPS``.

    Args:
        rows: rows of ``evaluate``.
        column: the history length of a row's user, as the scenario lets agents see it.
        warm_from: length from which a user is warm; below it, cold.
        seed: of the resampling.
        draws: resamples.
        metrics: what to compute.

    Returns:
        the columns of ``score`` with ``group`` (overall, cold, warm, then the lengths) after agent; groups without
        users are left out.

    Raises:
        RecGymError: rows without ``column``.
    """
    if column not in rows:
        raise RecGymError(f"rows have no column {column!r} to tell cold users by; columns: {', '.join(rows.columns)}")
    warm = rows[column] >= warm_from
    lengths = history_groups(rows[column])
    parts = {"overall": slice(None), "cold": ~warm, "warm": warm} | {name: lengths == name for name in HISTORY_GROUPS}
    found = []
    for name, which in parts.items():
        part = rows[which]
        if len(part):
            table = score(part, seed=seed, draws=draws, metrics=metrics)
            table.insert(2, "group", name)
            found.append(table)
    table = pd.concat(found, ignore_index=True)
    table["group"] = pd.Categorical(table["group"], list(parts), ordered=True)
    return table


def regret(users: npt.ArrayLike, rewards: npt.ArrayLike, references: npt.ArrayLike, first: int) -> pd.DataFrame:
    """Sum over a user's first n interactions of the reference's reward minus the agent's.

    The reference is what the best policy (or a warm agent) would have earned there. A user who leaves early has fewer
    interactions to regret: ``interactions`` says how many were counted, and leaving should be charged elsewhere.

    Args:
        users: [R] the user of each interaction, in order of time within each user.
        rewards: [R] what the agent earned.
        references: [R] what the reference earns at the same point.
        first: n, at least 1.

    Returns:
        columns user, regret, interactions (at most n); one row a user.

    Raises:
        RecGymError: n under 1, lengths that differ, or a number that is not finite.
    """
    if first < 1:
        raise RecGymError(f"regret needs at least the first interaction, got first={first}")
    earned, possible = numbers("rewards", rewards), numbers("references", references)
    owners = np.asarray(users)
    aligned(users=owners, rewards=earned, references=possible)
    table = pd.DataFrame({"user": owners, "gap": possible - earned})
    early = table[table.groupby("user").cumcount() < first]
    return early.groupby("user", sort=False)["gap"].agg(regret="sum", interactions="size").reset_index()
