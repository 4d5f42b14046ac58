"""What an evaluation found, as JSON values: leaderboards, paired differences, groups; computed from its rows alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from recgym.errors import RecGymError
from recgym.evaluation import metrics, statistics
from recgym.evaluation.aggregate import interquartile_mean, performance_profile
from recgym.evaluation.measures import Measures, measure
from recgym.evaluation.significance import paired_tests
from recgym.evaluation.statistics import Comparison, Estimate
from recgym.evaluation.store import ROWS, read_manifest, write_parquet
from recgym.evaluation.transfer import HOME, Transfer, transfers

_PROFILE_DRAWS = 300  # resamples of statistics that look at every episode
_THRESHOLDS = 25
REFERENCES = ("frequency", "popularity", "random")


@dataclass(frozen=True)
class Line:
    """One agent in one scenario."""

    agent: str
    privileged: bool
    scores: dict[str, Estimate]  # metric id -> estimate
    coverage: float | None
    gini: float | None
    iqm: Estimate | None = None  # interquartile mean of the reward over episodes


@dataclass(frozen=True)
class ScenarioSummary:
    """One scenario: its agents from best to worst, the privileged ones after the others."""

    scenario: str
    num_users: int
    num_episodes: int  # an agent
    lines: tuple[Line, ...]
    comparisons: tuple[Comparison, ...]
    history: pd.DataFrame  # scenario, agent, group, value, low, high, num_users, num_rows
    profile: pd.DataFrame  # agent, threshold, value, low, high: share of episodes with a reward above the threshold
    measures: pd.DataFrame = field(default_factory=pd.DataFrame)  # every metric that applies; see ``Measures``
    exposure: pd.DataFrame = field(default_factory=pd.DataFrame)  # shares of groups of providers
    retention: pd.DataFrame = field(default_factory=pd.DataFrame)  # agent, day, retained
    over_time: pd.DataFrame = field(default_factory=pd.DataFrame)  # agent, figure, day, value, low, high
    about: Mapping[str, Any] = field(default_factory=dict)  # the scenario as it was resolved
    left_out: tuple[dict[str, str], ...] = ()  # metric and reason
    lead: Comparison | None = None  # of the best competitor over the next one
    transfer: tuple[Transfer, ...] = ()  # where the agents were trained in another world

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
                            "reward_iqm": line.iqm.to_dict() if line.iqm else None,
                        }
                        for line in part.lines
                    ],
                    "lead": part.lead.to_dict() if part.lead else None,
                    "comparisons": [comparison.to_dict() for comparison in part.comparisons],
                    "reward_by_history": [
                        {"agent": row.agent, "group": str(row.group), **_estimate(row).to_dict()}
                        for row in part.history.itertuples()
                    ],
                    "performance_profile": records(part.profile),
                    "measures": records(part.measures.drop(columns=["scenario"], errors="ignore")),
                    "left_out": [{"metric": one["metric"], "reason": one["reason"]} for one in part.left_out],
                    "exposure": records(part.exposure.drop(columns=["scenario"], errors="ignore")),
                    "retention": records(part.retention),
                    "over_time": records(part.over_time),
                    "transfer": [one.to_dict() for one in part.transfer],
                }
                for part in self.scenarios
            ],
            "run": self.manifest,
        }


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of ``table`` as JSON values; NaN becomes None."""
    found: list[dict[str, Any]] = table.astype(object).where(table.notna(), None).to_dict("records")
    return found


def summarise(
    rows: pd.DataFrame,
    exposures: pd.DataFrame | None = None,
    num_items: int | None = None,
    manifest: dict[str, Any] | None = None,
    *,
    references: Sequence[str] | None = None,
    measures: Measures | None = None,
    home: pd.DataFrame | None = None,
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
        measures: what ``measure`` found; None: the report holds what ``rows`` alone tell.
        home: rows of the same agents in the world that they were trained in, where that is another one.
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
        lines = [_line(str(agent), str(scenario), scores, spread, part, seed) for agent in part["agent"].unique()]
        lines.sort(key=lambda line: (line.privileged, -line.scores["reward"].value))
        first = part[part["agent"] == lines[0].agent]
        name = str(scenario)
        found = measures or Measures(pd.DataFrame())
        transfer = () if home is None else transfers(home[home["scenario"] == scenario], part, chosen, seed=seed)
        parts.append(
            ScenarioSummary(
                scenario=name,
                num_users=first["user"].nunique(),
                num_episodes=len(first),
                lines=tuple(lines),
                comparisons=_comparisons(part, lines, chosen, seed, draws),
                lead=_lead(part, lines, seed, draws),
                history=history[history["scenario"] == scenario],
                profile=_profile(part, seed, min(draws, _PROFILE_DRAWS)),
                measures=_of_scenario(found.table, name),
                exposure=_of_scenario(found.exposure, name),
                retention=_of_scenario(found.retention, name).drop(columns=["scenario"], errors="ignore"),
                over_time=_of_scenario(found.over_time, name).drop(columns=["scenario"], errors="ignore"),
                about=(manifest or {}).get("configuration", {}).get("scenarios", {}).get(name, {}),
                left_out=tuple(one for one in found.left_out if one["scenario"] == name),
                transfer=tuple(transfer),
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
    measures = measure(directory, manifest)
    write_parquet(directory / "metrics.parquet", measures.table)
    return summarise(
        pd.read_parquet(directory / ROWS),
        pd.read_parquet(directory / "items.parquet", columns=["scenario", "agent", "item", "shown"]),
        manifest["configuration"]["world"]["num_items"],
        manifest,
        references=references,
        measures=measures,
        home=pd.read_parquet(directory / HOME / ROWS) if (directory / HOME / ROWS).is_file() else None,
    )


def _comparisons(
    rows: pd.DataFrame, lines: Sequence[Line], references: Sequence[str], seed: int, draws: int
) -> tuple[Comparison, ...]:
    """Every agent against every reference on the same users and luck.

    The competitors are one family under Holm's correction, a pair and its mirror one test. A bound that sees hidden
    state is no competitor: testing it would only weaken the others.
    """
    pairs = [(line.agent, other) for other in references for line in lines if line.agent != other]
    found = statistics.compare_all(rows, pairs, np.random.default_rng(seed), draws=draws)
    bounds = {line.agent for line in lines if line.privileged}
    tested = {frozenset(pair): pair for pair in pairs if not bounds.intersection(pair)}
    adjusted = {}
    if tested:
        tests = paired_tests(rows, list(tested.values()), np.random.default_rng(seed))
        adjusted = dict(zip(tested, tests["adjusted"].tolist(), strict=True))
    return tuple(replace(one, p_value=adjusted.get(frozenset((one.first, one.second)))) for one in found)


def _lead(rows: pd.DataFrame, lines: Sequence[Line], seed: int, draws: int) -> Comparison | None:
    """The competitor of the highest mean against the next one; None where there are not two."""
    best = [line.agent for line in lines if not line.privileged][:2]
    if len(best) < 2:
        return None
    [found] = statistics.compare(rows, best[0], best[1], np.random.default_rng(seed), draws=draws)
    return found


def _profile(rows: pd.DataFrame, seed: int, draws: int) -> pd.DataFrame:
    """Performance profiles of all agents over thresholds that hold the rewards of nearly all episodes."""
    low, high = np.quantile(rows["reward"], [0.0, 0.98])
    thresholds = np.unique(np.round(np.linspace(low, high, _THRESHOLDS), 6))
    tables = []
    for agent, mine in rows.groupby("agent", sort=False):
        rng = np.random.default_rng(seed)
        shares = performance_profile(mine["reward"], mine["user"], thresholds.tolist(), rng, draws=draws)
        table = pd.DataFrame([{"value": one.value, "low": one.low, "high": one.high} for one in shares])
        table.insert(0, "threshold", thresholds)
        table.insert(0, "agent", agent)
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def _of_scenario(table: pd.DataFrame, scenario: str) -> pd.DataFrame:
    return table[table["scenario"] == scenario].reset_index(drop=True) if len(table) else table


def _line(agent: str, scenario: str, scores: pd.DataFrame, spread: pd.DataFrame, rows: pd.DataFrame, seed: int) -> Line:
    mine = scores[(scores["agent"] == agent) & (scores["scenario"] == scenario)]
    reach = spread[(spread["agent"] == agent) & (spread["scenario"] == scenario)]
    played = rows[rows["agent"] == agent]
    rng = np.random.default_rng(seed)
    return Line(
        agent=agent,
        privileged=bool(mine["privileged"].iloc[0]),
        scores={row.metric: _estimate(row) for row in mine.itertuples()},
        coverage=float(reach["coverage"].iloc[0]) if len(reach) else None,
        gini=float(reach["gini"].iloc[0]) if len(reach) else None,
        iqm=interquartile_mean(played["reward"], played["user"], rng, draws=_PROFILE_DRAWS),
    )


def _estimate(row: Any) -> Estimate:
    return Estimate(float(row.value), float(row.low), float(row.high), int(row.num_users), int(row.num_rows))
