"""What agents lose away from the world that they were trained in: the part of their lead that exploited a simulator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from recgym.evaluation.aggregate import bootstrap
from recgym.evaluation.statistics import DRAWS, Estimate, Floats, paired_values

HOME = "home"  # directory, within that of an evaluation away, of the same agents' evaluation at home


@dataclass(frozen=True)
class Transfer:
    """An agent at home, where it was trained, and away, in a world of other users fitted on other data.

    Attributes:
        agent: its label.
        home: mean reward of an episode at home.
        away: the same away.
        gap: home less away. Users differ between the two, and one world may be easier: see ``lead_gap``.
        reference: whom the lead is over; None where there is nobody else.
        lead_home: paired difference from the reference at home.
        lead_away: the same away.
        lead_gap: lead at home less lead away: what the agent's lead owes to the world it was trained in.
    """

    agent: str
    home: Estimate
    away: Estimate
    gap: Estimate
    reference: str | None
    lead_home: Estimate | None
    lead_away: Estimate | None
    lead_gap: Estimate | None

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {name: value.to_dict() if isinstance(value, Estimate) else value for name, value in vars(self).items()}


def transfers(
    home: pd.DataFrame, away: pd.DataFrame, references: Sequence[str], *, seed: int = 0, draws: int = DRAWS
) -> list[Transfer]:
    """The transfer gap of every agent that was scored in both worlds, in one scenario.

    Args:
        home: rows of ``evaluate`` in the world of the training.
        away: rows in the other world.
        references: the first that took part, and is not the agent itself, is what leads are over.
        seed: of the resampling. The users of each world are resampled apart.
        draws: resamples.
    """
    agents = [agent for agent in away["agent"].unique() if agent in set(home["agent"])]
    found = []
    for agent in agents:
        own = [rows.loc[rows["agent"] == agent, ["user", "reward"]].to_numpy(float) for rows in (home, away)]
        scores = _gap([(rows[:, 0], rows[:, 1]) for rows in own], seed, draws)
        other = next((one for one in references if one != agent and one in agents), None)
        leads: Sequence[Estimate | None] = (None, None, None)
        if other is not None:
            pairs = [paired_values(rows, agent, other) for rows in (home, away)]
            leads = _gap([(pair["user"], pair["first"] - pair["second"]) for pair in pairs], seed, draws)
        found.append(Transfer(agent, *scores, other, *leads))
    return found


def _gap(worlds: Sequence[tuple[Any, Any]], seed: int, draws: int) -> tuple[Estimate, Estimate, Estimate]:
    """Means at home and away, and their difference, from the (users, values) of each."""
    users = np.concatenate(
        [np.char.add(f"{at} ", np.asarray(rows, np.int64).astype(str)) for at, (rows, _) in enumerate(worlds)]
    )
    side = np.concatenate([np.full(len(rows), at) for at, (rows, _) in enumerate(worlds)])
    values = np.concatenate([np.asarray(numbers, np.float64) for _, numbers in worlds])
    onehot = np.eye(2)[side]

    def statistic(weights: Floats) -> Floats:
        means = (weights @ (onehot * values[:, None])) / (weights @ onehot)
        return np.column_stack([means, means[:, 0] - means[:, 1]])

    first, second, gap = bootstrap(statistic, users, np.random.default_rng(seed), strata=side, draws=draws)
    return first, second, gap
