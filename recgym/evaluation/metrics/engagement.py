"""Engagement over an episode of many visits: how deep, how soon again, how long, how much, how content."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from recgym.errors import RecGymError
from recgym.evaluation.metrics.arrays import Floats, aligned, numbers

WINDOWS = (7, 30, 90)  # days


def session_depth(users: npt.ArrayLike, sessions: npt.ArrayLike) -> pd.DataFrame:
    """Slates a user looks at before leaving a session (KuaiSim; Zhao et al., 2023).

    Args:
        users: [R] the user of each slate shown.
        sessions: [R] the session of each, unique within its user.

    Returns:
        columns user, session, depth (slates); one row a session.

    Raises:
        RecGymError: lengths that differ.
    """
    keys = _table(user=users, session=sessions)
    return keys.groupby(["user", "session"], sort=False).size().rename("depth").reset_index()


def reward(users: npt.ArrayLike, rewards: npt.ArrayLike) -> pd.DataFrame:
    """Total and mean reward of each user's slates.

    Args:
        users: [R] the user of each slate shown.
        rewards: [R] in the unit of the scenario's reward.

    Returns:
        columns user, total, num_steps, per_step; one row a user. The per-step reward of all users together is
        ``statistics.ratio(total, num_steps, user)``, which long episodes weigh more on than the mean of ``per_step``.

    Raises:
        RecGymError: lengths that differ, or a reward that is not finite.
    """
    table = _table(user=users, reward=numbers("rewards", rewards))
    found = table.groupby("user", sort=False)["reward"].agg(total="sum", num_steps="size").reset_index()
    return found.assign(per_step=found["total"] / found["num_steps"])


def return_times(users: npt.ArrayLike, days: npt.ArrayLike) -> pd.DataFrame:
    """Days from each visit to the user's next (KuaiSim's return time is their mean).

    A user's last visit has no next one: the gaps are those that were observed, so a policy that loses its users early
    is not charged here. Read it beside ``retention``.

    Args:
        users: [V] the user of each visit.
        days: [V] the day of each visit, in any order.

    Returns:
        columns user, gap (days, at least 0); one row a visit that was followed by another.

    Raises:
        RecGymError: lengths that differ, or a day that is not finite.
    """
    visits = _table(user=users, day=numbers("days", days)).sort_values(["user", "day"], kind="stable")
    visits["gap"] = visits.groupby("user")["day"].diff()
    return visits.loc[visits["gap"].notna(), ["user", "gap"]].reset_index(drop=True)


def retention(users: npt.ArrayLike, days: npt.ArrayLike, window: int, last_day: int) -> pd.DataFrame:
    """Whether each user came back within ``window`` days of the first visit, and whether still active at its end.

    ``returned`` (share returning within d days, KuaiSim) grows with the window; ``active`` (a visit on day d or later,
    which analysts call rolling retention) shrinks with it and so shows when users are lost.

    Args:
        users: [V] the user of each visit.
        days: [V] the day of each visit, in any order.
        window: days, at least 1; see ``WINDOWS``.
        last_day: last day on which visits could be observed.

    Returns:
        columns user, returned, active (0 or 1); one row a user.

    Raises:
        RecGymError: a window under 1 day, lengths that differ, or a user whose window reaches beyond ``last_day``:
            who was not watched for so long cannot count as lost.
    """
    if window < 1:
        raise RecGymError(f"window must be at least 1 day, got {window}")
    visits = _table(user=users, day=numbers("days", days, high=last_day))
    visits["age"] = visits["day"] - visits.groupby("user")["day"].transform("min")
    latest = float((visits["day"] - visits["age"]).max())
    if latest + window > last_day:
        raise RecGymError(
            f"retention at {window} days needs visits until day {latest + window:g}, observed until {last_day}"
        )
    visits["returned"] = ((visits["age"] > 0) & (visits["age"] <= window)).astype(float)
    visits["active"] = (visits["age"] >= window).astype(float)
    return visits.groupby("user", sort=False)[["returned", "active"]].max().reset_index()


def lifetime_value(
    users: npt.ArrayLike, days: npt.ArrayLike, values: npt.ArrayLike, *, yearly_discount: float = 0.1
) -> pd.DataFrame:
    """Discounted value of each user over the horizon: ``sum value (1 + d)^(-days since the first visit / 365)``.

    Gupta et al., "Modeling customer lifetime value", 2006; cut at the end of the episode, so it is a lower bound.

    Args:
        users: [V] the user of each visit.
        days: [V] the day of each visit.
        values: [V] what the visit brought: revenue, margin or reward.
        yearly_discount: d, at least 0.

    Returns:
        columns user, value; one row a user.

    Raises:
        RecGymError: lengths that differ, a number that is not finite, or a negative discount.
    """
    if not yearly_discount >= 0:
        raise RecGymError(f"yearly_discount must be at least 0, got {yearly_discount}")
    visits = _table(user=users, day=numbers("days", days), value=numbers("values", values))
    age = visits["day"] - visits.groupby("user")["day"].transform("min")
    visits["value"] *= (1 + yearly_discount) ** (-age / 365)
    return visits.groupby("user", sort=False)["value"].sum().reset_index()


def satisfaction(ratings: npt.ArrayLike, lowest: float, highest: float) -> Floats:
    """Ratings on the scale from 0 (the worst) to 1 (the best): ``(rating - lowest) / (highest - lowest)``.

    Where nobody rates, the share of examined items that were consumed stands in for it: pass those zeros and ones with
    the scale 0 to 1.

    Args:
        ratings: [R] of consumed items.
        lowest: end of the scale, 1 for stars.
        highest: other end, above ``lowest``.

    Returns:
        [R] in [0, 1].

    Raises:
        RecGymError: a scale the wrong way round, or a rating off the scale (an unrated item has none: leave it out).
    """
    if not lowest < highest:
        raise RecGymError(f"the scale must rise, got {lowest} to {highest}")
    found: Floats = (numbers("ratings", ratings, low=lowest, high=highest) - lowest) / (highest - lowest)
    return found


def _table(**columns: npt.ArrayLike) -> pd.DataFrame:
    arrays = {name: np.asarray(values) for name, values in columns.items()}
    aligned(**arrays)
    return pd.DataFrame(arrays)
