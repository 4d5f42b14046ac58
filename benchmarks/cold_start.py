"""Cold start: what text is worth for new items, what histories are worth, and how fast bandits catch up.

    python benchmarks/cold_start.py items --users 500 --seeds 2 --page benchmarks/cold_start.md
    python benchmarks/cold_start.py users --users 500 --seeds 2 --page benchmarks/cold_start.md

``items`` plays the scenario cold_start_items, as it ships and with hardly any but new items among the candidates.
Agents learn before new items arrive. ``content`` ranks by the items' texts alone, ``als`` and ``bpr`` by ids alone.
``scorer with text`` and ``scorer by id`` are one network (``recgym.agents.scorer``), trained with each training seed on
the same slates; the second one sees zeros in place of texts, categories and prices. Figures are means over trainings.

``users`` plays the scenario cold_start_users, a quarter each of the users with 0, 1-5, 6-20 or all purchases known. The
leads of agents that use histories over popularity are told by that, on the first slate of the episode, and against the
slate shown. ``linucb``, ``thompson`` and ``epsilon_greedy`` start knowing nothing and learn online, from blocks of 256
users each; they and the others are set against the popularity agent slate by slate.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from recgym.agents.features.inputs import Batch, Sizes
from recgym.agents.protocol import Agent, make_agent, observation_layout
from recgym.agents.scorer import ScorerAgent, ScorerConfig
from recgym.agents.scoring import OBSERVED
from recgym.agents.training import training_env
from recgym.benchmark.pages import command_of, grid, world_of, write_part
from recgym.evaluation import statistics
from recgym.evaluation.families import interval
from recgym.evaluation.metrics.cold_start import HISTORY_GROUPS, history_groups
from recgym.evaluation.runner import evaluate
from recgym.scenario import Scenario, load_scenario
from recgym.simulation.population import platform_world
from recgym.worlds.world import World, load_world

TEXT, BY_ID = "scorer with text", "scorer by id"
ONLY_NEW = {"own": 0, "popular": 0, "uniform": 0, "new": 100}
CONTENT = ("category=", "price", "discount")  # columns of what an item is like, beside its text
HISTORY = ("frequency", "item_knn", "als")  # agents that use what a user bought
BANDITS = ("linucb", "thompson", "epsilon_greedy")
SLATES = ((0, 1), (1, 5), (5, 20))  # of an episode: from and to
PARTS = {"items": "New items", "users": "New users"}
TITLE = "# Cold start\n\nWritten by `benchmarks/cold_start.py`, which says what the agents know.\n"


class IdScorer(ScorerAgent):
    """``scorer`` that sees ids, how often items were bought and the pair's history, but nothing that items are like."""

    id = "id_scorer"

    def __init__(self, world: World, config: Any = None, seed: int = 0) -> None:
        """See ``Agent``."""
        told = observation_layout(world, OBSERVED)
        self._hidden = {
            key: [at for at, name in enumerate(told[key]) if "text_" in name or name.startswith(CONTENT)]
            for key in ("user", "candidates")
        }
        super().__init__(world, config, seed)

    @classmethod
    def network(cls, sizes: Sizes, config: Any) -> torch.nn.Module:
        """See ``ScoringAgent``."""
        blank = Sizes(sizes.num_users, sizes.num_items, sizes.user, sizes.item, sizes.context, sizes.texts[:, :0])
        return super().network(blank, config)

    def _batch(self, user: Any, candidates: Any, *rest: Any) -> Batch:
        user, candidates = user.clone(), candidates.clone()
        user[:, self._hidden["user"]] = 0.0
        candidates[:, :, self._hidden["candidates"]] = 0.0
        return super()._batch(user, candidates, *rest)


def items(world: World, users: int, seeds: int, out: Path, trainings: int, steps: int | None) -> str:
    """What text is worth, as Markdown."""
    shipped = load_scenario("cold_start_items")
    only = load_scenario(shipped, {"name": "new_items_mostly", "actions.candidates": ONLY_NEW})
    agents: dict[str, Any] = {name: name for name in ("content", "als", "bpr", "popularity", "random", "greedy")}
    for seed in range(trainings):
        agents[f"{TEXT} {seed}"] = _trained(ScorerAgent, world, shipped, seed, steps)
        agents[f"{BY_ID} {seed}"] = _trained(IdScorer, world, shipped, seed, steps)
    rows = evaluate(world, [shipped, only], agents, users=users, seeds=seeds, out=out)
    rows = _pooled(rows)
    lines = []
    for agent in dict.fromkeys(rows["agent"]):
        here, there = (rows[(rows["agent"] == agent) & (rows["scenario"] == one.name)] for one in (shipped, only))
        rng = np.random.default_rng(0)
        shares = (("ndcg_unseen_sum", "num_answerable_unseen"), ("num_unseen_consumed", "num_unseen"))
        cells = [agent, interval(statistics.mean(here["reward"], here["user"], rng))]
        cells += [_ratio(here, *share) for share in shares]
        cells += [interval(statistics.mean(here["num_unseen_consumed"], here["user"], rng))]
        lines.append([*cells, interval(statistics.mean(there["num_unseen_consumed"], there["user"], rng))])
    head = ["", "reward", "NDCG of new items", "new items taken of those shown", "new items bought"]
    head.append("new items bought, hardly any others")
    pairs = [*(("content", other) for other in ("als", "bpr", "random")), *([(TEXT, BY_ID)] if trainings else [])]
    leads = [
        [f"{first} - {second}", _lead(rows, shipped, first, second, "num_unseen_consumed"), _ndcg(rows, first, second)]
        + [_lead(rows, only, first, second, "num_unseen_consumed")]
        for first, second in pairs
    ]
    names = ["paired difference", "new items bought", "NDCG of new items", "new items bought, hardly any others"]
    about = (
        f"Scenario `cold_start_items` ({users} users x {seeds} seeds, the same for all; {trainings} trainings of each "
        "scorer): a fifth of the catalogue is in nobody's log. In the last column candidates are 100 draws of new "
        "items; popular ones stand in for those drawn twice, two or three of a hundred. 95% intervals over users. "
        f"{world_of(world)}"
    )
    return f"{about}\n\n{grid(head, lines)}\n\n{grid(names, leads)}"


def _trained(kind: type[ScorerAgent], world: World, scenario: Scenario, seed: int, steps: int | None) -> Agent:
    agent = kind(platform_world(world, scenario), ScorerConfig(), seed)
    agent.train(training_env(agent, world, scenario), steps or agent.config.total_steps)
    return agent


def _pooled(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with the trainings of a scorer averaged episode by episode."""
    rows = rows.assign(agent=rows["agent"].str.replace(r" \d+$", "", regex=True))
    keys = ["scenario", "agent", "seed", "user", "lane_seed"]
    return rows.groupby(keys, sort=False, as_index=False).mean(numeric_only=True)


def users(world: World, sample: int, seeds: int, out: Path) -> str:
    """What histories are worth and how bandits catch up, as Markdown."""
    scenario = load_scenario("cold_start_users")
    known = platform_world(world, scenario)
    agents: dict[str, Any] = {name: name for name in ("popularity", "random", *HISTORY, "greedy")}
    agents |= {name: make_agent(name, known, adapt=True) for name in BANDITS}
    rows = evaluate(world, scenario, agents, users=sample, seeds=seeds, out=out)
    rows = rows.assign(level=history_groups(rows["history_events"]).astype(str))
    levels = [level for level in HISTORY_GROUPS if level in set(rows["level"])]
    counts = rows.drop_duplicates("user")["level"].value_counts()
    leads = [
        [name, *(_lead(rows[rows["level"] == level], scenario, name, "popularity", column) for level in levels)]
        for column in ("reward_first_1",)
        for name in HISTORY
    ]
    head = ["first slate, - popularity", *(f"{level} known ({counts[level]} users)" for level in levels)]
    for start, end in SLATES:
        before = rows[f"reward_first_{start}"] if start else 0.0
        rows[f"slates {start + 1} to {end}"] = (rows[f"reward_first_{end}"] - before) / (end - start)
    last = SLATES[-1][1]
    beyond = (rows["num_steps"] - last).clip(lower=0)
    rows["later slates"] = (rows["reward"] - rows[f"reward_first_{last}"]) / beyond.where(beyond > 0, 1)
    columns = [*(f"slates {start + 1} to {end}" for start, end in SLATES), "later slates"]
    names = [*BANDITS, *HISTORY, "random", "greedy"]
    course = [[name, *(_lead(rows, scenario, name, "popularity", column) for column in columns)] for name in names]
    about = (
        f"Scenario `cold_start_users` ({sample} users x {seeds} seeds, the same for all; 30 days). Paired differences "
        "from popularity in reward, 95% intervals over users. First by how many purchases the platform knows of a "
        f"user, on the first slate of the episode. {world_of(world)}"
    )
    then = (
        "Then a slate, over the course of the episode, users of all levels together. Bandits begin without any "
        "knowledge; slates that a user did not stay for earn nothing."
    )
    return f"{about}\n\n{grid(head, leads)}\n\n{then}\n\n{grid(['- popularity, a slate', *columns], course)}"


def _lead(rows: pd.DataFrame, scenario: Scenario, first: str, second: str, column: str) -> str:
    mine = rows[rows["scenario"] == scenario.name]
    [found] = statistics.compare(mine, first, second, np.random.default_rng(0), value=column)
    return interval(found.difference, signed=True)


def _ndcg(rows: pd.DataFrame, first: str, second: str) -> str:
    """The difference of two agents in NDCG of new items on first slates, which are the same for both but for slates."""
    mine = rows[(rows["scenario"] == "cold_start_items") & (rows["num_answerable_unseen"] > 0)]
    [found] = statistics.compare(mine, first, second, np.random.default_rng(0), value="ndcg_unseen_sum")
    return interval(found.difference, signed=True)


def _ratio(rows: pd.DataFrame, top: str, bottom: str) -> str:
    """Of sums over users, of those who have anything below the line; a dash where nobody has."""
    sums = rows.groupby("user")[[top, bottom]].sum()
    sums = sums[sums[bottom] > 0]
    if sums.empty:
        return "–"
    return interval(statistics.ratio(sums[top], sums[bottom], sums.index, np.random.default_rng(0)))


def main(arguments: Sequence[str] | None = None) -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--world", default="ecommerce")
    parser.add_argument("--users", type=int, default=500)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--trainings", type=int, default=3, help="training seeds of each scorer")
    parser.add_argument("--steps", type=int, help="slates that a scorer is trained on; None: its default")
    parser.add_argument("--out", type=Path, help="keeps the rows there, and resumes")
    parser.add_argument("--page", type=Path, help="Markdown file")
    given = parser.parse_args(arguments)
    world = load_world(given.world)
    with tempfile.TemporaryDirectory() as scratch:
        out = given.out or Path(scratch)
        if given.part == "items":
            text = items(world, given.users, given.seeds, out, given.trainings, given.steps)
        else:
            text = users(world, given.users, given.seeds, out)
    print(text)
    if given.page:
        write_part(given.page, TITLE, PARTS[given.part], command_of(__file__, arguments), text)


if __name__ == "__main__":
    main()
