"""The ladder of agents on one world: every agent trained beforehand, then all on the same users with the same luck.

    python benchmarks/leaderboard.py train
    python benchmarks/leaderboard.py evaluate --users 2000 --seeds 5 --workers 2 --out runs/ladder

``train`` trains every registered agent with its default budget, one after the other, into the cache that
``recgym evaluate`` looks in (``$RECGYM_HOME/agents``); run again, it goes on where it was interrupted. ``evaluate`` is
``recgym evaluate --scenario default --agents all`` on what was trained, and writes the table, best agent first, with
95% intervals over users, differences on paired episodes, and what the training took.

With ``--training-seeds 0,1,2`` each agent that draws on its seed is trained that often: its row is the mean of its
trainings, episode by episode, with the lowest and the highest of them beside it.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from recgym.agents.collaborative import CollaborativeAgent
from recgym.agents.learning import NetworkAgent
from recgym.agents.offline import OfflineAgent
from recgym.agents.protocol import Agent, agent_class
from recgym.agents.scoring import ScoringAgent
from recgym.agents.training import cache_directory, read_record, trained
from recgym.errors import RecGymError
from recgym.evaluation import table
from recgym.evaluation.runner import evaluate
from recgym.evaluation.statistics import Estimate
from recgym.evaluation.store import atomically, read_manifest, versions
from recgym.evaluation.summary import ScenarioSummary, summarise
from recgym.registration import AGENTS
from recgym.scenario import Scenario, load_scenario
from recgym.worlds.named import named_world
from recgym.worlds.world import World

REFERENCES = ("popularity", "greedy")
_SEEDED = "#"  # between an agent and its training seed, in labels


@dataclass(frozen=True)
class Training:
    """An agent trained with one seed."""

    agent: str
    seed: int
    settings: dict[str, Any]  # where they differ from the agent's defaults
    directory: Path

    @property
    def label(self) -> str:
        """Its name in the evaluation."""
        return f"{self.agent}{_SEEDED}{self.seed}"

    @property
    def record(self) -> dict[str, Any]:
        """What its training left behind."""
        return read_record(self.directory) or {}


def kind(cls: type[Agent]) -> str:
    """What an agent is, in a word or two."""
    kinds: dict[type[Agent], str] = {
        ScoringAgent: "deep scorer",
        CollaborativeAgent: "collaborative",
        OfflineAgent: "offline RL",
        NetworkAgent: "RL",
    }
    if cls.privileged:
        return "bound"
    found = next((name for base, name in kinds.items() if issubclass(cls, base)), None)
    return found or ("bandit" if cls.learns_online else "baseline")


def trainings(
    names: Sequence[str], world: World, scenario: Scenario, seeds: Sequence[int], steps: int | None = None
) -> list[Training]:
    """What has to be trained, with budgets of ``steps`` slates or the default ones.

    Agents that learn from the log have one training, the first seed's.
    """
    found = []
    for name in names:
        learns = agent_class(name).learns
        settings = {"total_steps": steps} if steps and learns == "environment" else {}
        for seed in seeds if learns == "environment" else seeds[: learns == "log"]:
            directory = cache_directory(name, world, scenario, seed=seed, config=settings)
            found.append(Training(name, seed, settings, directory))
    return found


def train(todo: Sequence[Training], world: World, scenario: Scenario) -> None:
    """Trains what is not in the cache yet, and says what it took."""
    for training in todo:
        started = time.monotonic()
        fresh = training.record.get("status") != "complete"
        if fresh:
            trained(training.agent, world, scenario, seed=training.seed, config=training.settings)
        seconds = f"{time.monotonic() - started:.0f} s" if fresh else "trained before"
        print(f"{training.label:20} {seconds}", flush=True)


def pooled(rows: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, tuple[float, float]]]:
    """Rows with an agent's trainings averaged episode by episode, and the lowest and highest mean reward of them."""
    labels = rows["agent"]
    rows = rows.assign(agent=labels.str.partition(_SEEDED)[0])
    means = rows.groupby(["agent", labels.rename("label")], sort=False)["reward"].mean()
    spread = {str(agent): (float(part.min()), float(part.max())) for agent, part in means.groupby(level=0)}
    numbers = [name for name in rows.select_dtypes("number") if name not in ("seed", "user", "lane_seed")]
    keys = ["scenario", "agent", "seed", "user"]
    others = {name: "first" for name in rows.columns if name not in (*numbers, *keys)}
    return rows.groupby(keys, sort=False, as_index=False).agg({**others, **dict.fromkeys(numbers, "mean")}), spread


def markdown(part: ScenarioSummary, spread: dict[str, tuple[float, float]], todo: Sequence[Training]) -> Iterator[str]:
    """The leaderboard as lines of Markdown; agents that see the hidden state come in a table of their own."""
    versus = {
        (comparison.first, comparison.second): comparison.difference
        for reference in REFERENCES
        for comparison in part.versus(reference)
    }
    references = [name for name in REFERENCES if any(second == name for _, second in versus)]
    several = any(low != high for low, high in spread.values())
    headings = ["agent", "kind", "reward [95%]", *(f"- {name}" for name in references)]
    headings += ["trainings"] if several else []
    headings += ["training, s", "slates"]
    for privileged in (False, True):
        lines = [line for line in part.lines if line.privileged == privileged]
        if not lines:
            continue
        if privileged:
            yield from ("", "See the users' hidden state, so bounds and no competitors:", "")
        yield f"| {' | '.join(headings)} |"
        yield f"|---|---|{'---:|' * (len(headings) - 2)}"
        for line in lines:
            found = [training.record for training in todo if training.agent == line.agent]
            cells = [line.agent, kind(agent_class(line.agent)), table.interval(line.scores["reward"])]
            cells += [_difference(versus.get((line.agent, name))) for name in references]
            if several:
                cells.append(f"{spread[line.agent][0]:.2f} to {spread[line.agent][1]:.2f}" if len(found) > 1 else "")
            cells.append(_mean([record["train_seconds"] for record in found if "train_seconds" in record]))
            cells.append(_mean([record["steps_used"] for record in found if "steps_used" in record]))
            yield f"| {' | '.join(cells)} |"


def _difference(estimate: Estimate | None) -> str:
    return "" if estimate is None else table.interval(estimate, signed=True)


def _mean(values: Sequence[float]) -> str:
    return f"{sum(values) / len(values):,.0f}" if values else ""


def document(
    out: Path, rows: pd.DataFrame, todo: Sequence[Training], seconds: float | None, command: str, workers: int = 1
) -> str:
    """The whole page."""
    rows, spread = pooled(rows)
    manifest = read_manifest(out)
    (part,) = summarise(rows, references=[name for name in REFERENCES if name in set(rows["agent"])]).scenarios
    about = manifest["configuration"]
    found = versions()
    took = (
        ""
        if seconds is None
        else (f" The evaluation took {seconds / 60:.1f} minutes on {workers} {'core' if workers == 1 else 'cores'}.")
    )
    lines = [
        f"# Leaderboard of {about['world']['name']}",
        "",
        f"{part.num_users:,} users x {len(about['seeds'])} seeds in the scenario {part.scenario!r}, one episode each; "
        "all agents meet the same users with the same luck. Reward: distinct items bought in an episode. Intervals are "
        "over users and their luck; differences are of paired episodes. Training seconds are of one core that other "
        f"work may have shared.{took}",
        "",
        f"    {command}",
        "",
        *markdown(part, spread, todo),
        "",
        f"World {about['world']['hash'][:12]}; "
        + ", ".join(f"{name} {found[name]}" for name in ("recgym", "torch"))
        + ".",
    ]
    return "\n".join(lines) + "\n"


def main(arguments: list[str] | None = None) -> int:
    """The command line; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("do", choices=("train", "evaluate"))
    parser.add_argument("--env", default="ecommerce-v0", help="environment id, or a world")
    parser.add_argument("--scenario", default="default")
    parser.add_argument("--agents", default="all", help="names, by comma")
    parser.add_argument("--training-seeds", default="0", help="by comma")
    parser.add_argument("--train-steps", type=int, help="slates of a training; the agent's default budget if not given")
    parser.add_argument("--users", type=int, default=2000)
    parser.add_argument("--seeds", type=int, default=5, help="episodes with each user")
    parser.add_argument("--workers", type=int, default=1, help="processes that play the episodes; one a core")
    parser.add_argument("--out", type=Path, default=Path("runs/ladder"), help="rows; the same command again resumes")
    parser.add_argument("--page", type=Path, default=Path(__file__).with_suffix(".md"))
    options = parser.parse_args(arguments)
    try:
        names = list(AGENTS.names()) if options.agents == "all" else options.agents.split(",")
        world, _ = named_world(options.env)
        scenario = load_scenario(options.scenario)
        seeds = [int(seed) for seed in options.training_seeds.split(",")]
        todo = trainings(names, world, scenario, seeds, options.train_steps)
        train(todo, world, scenario)
        if options.do == "train":
            return 0
        ready = {training.agent for training in todo}
        entrants: dict[str, str | Path] = {name: name for name in names if name not in ready}
        entrants |= {training.label: training.directory for training in todo}
        asked = {name: value for name, value in vars(options).items() if name not in ("do", "out", "page")}
        changed = {name: value for name, value in asked.items() if value != parser.get_default(name)}
        words = [word for name, value in changed.items() for word in (f"--{name.replace('_', '-')}", str(value))]
        command = shlex.join(["python", "benchmarks/leaderboard.py", "evaluate", *words])
        fresh, started = not options.out.exists(), time.monotonic()
        rows = evaluate(
            world,
            scenario,
            entrants,
            users=options.users,
            seeds=options.seeds,
            workers=options.workers,
            out=options.out,
            command=command,
        )
        seconds = time.monotonic() - started if fresh else None
        text = document(options.out, rows, todo, seconds, command, options.workers)
        atomically(options.page, lambda file: file.write_text(text, encoding="utf-8"))
    except RecGymError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(text)
    return 0


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.exit(main())
