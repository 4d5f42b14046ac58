"""What an evaluation found, as JSON values: leaderboards, paired differences, groups; computed from its rows alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from recgym.errors import RecGymError
from recgym.evaluation import metrics, statistics
from recgym.evaluation.statistics import Comparison, Estimate
from recgym.evaluation.store import ROWS, read_manifest

REFERENCES = ("frequency", "popularity", "random")


@dataclass(frozen=True)
class Line:
    """One agent in one scenario."""

    agent: str
    privileged: bool
    scores: dict[str, Estimate]  # metric id -> estimate
    coverage: float | None
    gini: float | None


@dataclass(frozen=True)
class ScenarioSummary:
    """One scenario: its agents from best to worst, the privileged ones after the others."""

    scenario: str
    num_users: int
    num_episodes: int  # an agent
    lines: tuple[Line, ...]
    comparisons: tuple[Comparison, ...]
    history: pd.DataFrame  # scenario, agent, group, value, low, high, num_users, num_rows

    @property
    def competitors(self) -> list[Line]:
        """The agents that see no hidden state."""
        return [line for line in self.lines if not line.privileged]

    def versus(self, reference: str) -> list[Comparison]:
        """The comparisons with ``reference``, in the order of the leaderboard."""
        order = [line.agent for line in self.lines]
        found = [comparison for comparison in self.comparisons if comparison.second == reference]
        return sorted(found, key=lambda comparison: order.index(comparison.first))

    @property
    def references(self) -> list[str]:
        """The agents that the others are compared with."""
        return list(dict.fromkeys(comparison.second for comparison in self.comparisons))


@dataclass(frozen=True)
class Summary:
    """Everything that the table, the report and the JSON file show."""

    scenarios: tuple[ScenarioSummary, ...]
    manifest: dict[str, Any]  # run.json

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "scenarios": [
                {
                    "scenario": part.scenario,
                    "num_users": part.num_users,
                    "num_episodes": part.num_episodes,
                    "leaderboard": [
                        {
                            "agent": line.agent,
                            "privileged": line.privileged,
                            "metrics": {name: estimate.to_dict() for name, estimate in line.scores.items()},
                            "coverage": line.coverage,
                            "gini": line.gini,
                        }
                        for line in part.lines
                    ],
                    "comparisons": [comparison.to_dict() for comparison in part.comparisons],
                    "reward_by_history": [
                        {"agent": row.agent, "group": str(row.group), **_estimate(row).to_dict()}
                        for row in part.history.itertuples()
                    ],
                }
                for part in self.scenarios
            ],
            "run": self.manifest,
        }


def summarise(
    rows: pd.DataFrame,
    exposures: pd.DataFrame | None = None,
    num_items: int | None = None,
    manifest: dict[str, Any] | None = None,
    *,
    references: Sequence[str] | None = None,
    seed: int = 0,
    draws: int = statistics.DRAWS,
) -> Summary:
    """Summarises the rows of ``evaluate``.

    Args:
        rows: one row an episode.
        exposures: columns scenario, agent, item, shown; None: coverage is left out.
        num_items: size of the catalogue, needed for coverage.
        manifest: contents of ``run.json``, for the provenance.
        references: agents that every other is compared with; None: those of ``REFERENCES`` that took part,
            otherwise the first agent.
        seed: of the resampling.
        draws: resamples.
    """
    taking_part = list(rows["agent"].unique())
    chosen = references if references is not None else [name for name in REFERENCES if name in taking_part]
    chosen = list(chosen) or taking_part[:1]
    scores = metrics.score(rows, seed=seed, draws=draws)
    history = metrics.by_history(rows, seed=seed, draws=draws)
    spread = pd.DataFrame(columns=["scenario", "agent", "coverage", "gini"])
    if exposures is not None and num_items is not None:
        spread = metrics.coverage(exposures, num_items)
    parts = []
    for scenario, part in rows.groupby("scenario", sort=False):
        lines = [_line(str(agent), str(scenario), scores, spread) for agent in part["agent"].unique()]
        lines.sort(key=lambda line: (line.privileged, -line.scores["reward"].value))
        comparisons = [
            comparison
            for reference in chosen
            for line in lines
            if line.agent != reference
            for comparison in statistics.compare(part, line.agent, reference, np.random.default_rng(seed), draws=draws)
        ]
        first = part[part["agent"] == lines[0].agent]
        parts.append(
            ScenarioSummary(
                scenario=str(scenario),
                num_users=first["user"].nunique(),
                num_episodes=len(first),
                lines=tuple(lines),
                comparisons=tuple(comparisons),
                history=history[history["scenario"] == scenario],
            )
        )
    return Summary(tuple(parts), manifest or {})


def summarise_run(directory: str | Path, *, references: Sequence[str] | None = None) -> Summary:
    """Summarises the finished evaluation in ``directory``.

    Raises:
        RecGymError: the directory holds no evaluation, or one that has not finished.
    """
    directory = Path(directory)
    manifest = read_manifest(directory)
    if not (directory / ROWS).is_file():
        raise RecGymError(f"the evaluation in {directory} has not finished: {ROWS} is missing. Run it again to resume.")
    return summarise(
        pd.read_parquet(directory / ROWS),
        pd.read_parquet(directory / "items.parquet"),
        manifest["configuration"]["world"]["num_items"],
        manifest,
        references=references,
    )


def _line(agent: str, scenario: str, scores: pd.DataFrame, spread: pd.DataFrame) -> Line:
    mine = scores[(scores["agent"] == agent) & (scores["scenario"] == scenario)]
    reach = spread[(spread["agent"] == agent) & (spread["scenario"] == scenario)]
    return Line(
        agent=agent,
        privileged=bool(mine["privileged"].iloc[0]),
        scores={row.metric: _estimate(row) for row in mine.itertuples()},
        coverage=float(reach["coverage"].iloc[0]) if len(reach) else None,
        gini=float(reach["gini"].iloc[0]) if len(reach) else None,
    )


def _estimate(row: Any) -> Estimate:
    return Estimate(float(row.value), float(row.low), float(row.high), int(row.num_users), int(row.num_rows))
