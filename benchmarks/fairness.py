"""What fairness costs: re-rankers that trade purchases for fairness, to providers and to groups of users.

    python benchmarks/fairness.py providers --users 500 --seeds 2 --page benchmarks/fairness.md
    python benchmarks/fairness.py users --attribute income --seeds 2 --page benchmarks/fairness.md

``providers`` plays the scenario provider_fairness. ``ProviderRanker`` fills a slate from the top: at each position it
weighs how far down another agent's ranking an item stands against how much attention its provider lacks of the share
that the catalogue gives it (greedy re-ranking for proportional exposure: Steck, RecSys 2018; Geyik, Ambler and
Kenthapadi, KDD 2019). The other agent is frequency or, in lines that begin with ``true``, greedy, which is privileged.
``one-sided`` shows nothing but the provider whose items sell best.

``users`` plays the scenario user_fairness. No slate can be taken from one user for another, so groups are brought
closer by levelling down: ``LevellingRanker`` puts random candidates in some slots of the groups that get more, as many
as other users of these groups say is needed (Li, Chen, Fu, Ge and Zhang, User-oriented fairness in recommendation, WWW
2021, take from the advantaged group as well; Mittelstadt, Wachter and Russell, 2023, say why that is a poor remedy).
``one-sided`` gives the worst-off group random slates alone.

Both print a table and write it to its part of ``--page``.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field

from recgym.agents.exploration import explore, lane_keys, slot_propensities
from recgym.agents.frequency import FrequencyAgent
from recgym.agents.greedy import GreedyAgent
from recgym.agents.protocol import ActContext, Agent, AgentConfig, Observations, as_tensor, observation_layout
from recgym.benchmark.pages import command_of, grid, world_of, write_part
from recgym.errors import RecGymError
from recgym.evaluation import aggregate, statistics
from recgym.evaluation.families import interval
from recgym.evaluation.measures import measure
from recgym.evaluation.metrics.groups import user_gaps
from recgym.evaluation.metrics.user_fairness import GroupGap
from recgym.evaluation.plan import sample_users
from recgym.evaluation.runner import evaluate
from recgym.evaluation.statistics import Estimate
from recgym.evaluation.store import read_manifest
from recgym.scenario import load_scenario
from recgym.worlds.world import World, load_world

if TYPE_CHECKING:
    from recgym.envs.vector import RecVectorEnv

WEIGHTS = (0.0, 0.01, 0.02, 0.05, 0.1, 1.0)
LEVELS = (0.0, 0.25, 0.5, 0.75, 1.0)
UNFAIR = "one-sided"
WEIGHT, TRUE = "weight ", "true, weight "  # labels: on top of frequency, and of greedy
CALIBRATION_SEEDS = (1000, 1001)  # far from those that are reported
PARTS = {"providers": "Fairness to providers", "users": "Fairness to users"}
TITLE = "# What fairness costs\n\nWritten by `benchmarks/fairness.py`, which says what the re-rankers do.\n"


class ProviderConfig(AgentConfig):
    """Settings of ``ProviderRanker``."""

    provider: str = Field("brand", description="column of the items")
    weight: float = Field(0.5, ge=0, le=1, description="0: the other agent's slates; 1: by what providers lack alone")
    decay: float = Field(0.9, gt=0, le=1, description="attention to a position as a share of that to the one above")
    favourite: str | None = Field(None, description="the provider to which all attention is due; None: by catalogue")


class ProviderRanker(Agent):
    """Another agent's ranking, re-ranked so that providers share attention as they share the catalogue."""

    id = "provider_ranker"
    observes = ("candidates", "candidate_items")
    Config = ProviderConfig
    Base: ClassVar[type[Agent]] = FrequencyAgent

    def __init__(self, world: World, config: AgentConfig | None = None, seed: int = 0) -> None:
        """See ``Agent``."""
        super().__init__(world, config, seed)
        self.base = self.Base(world, seed=seed)

    def act(
        self, observations: Observations, context: ActContext, *, env: RecVectorEnv | None = None
    ) -> NDArray[np.int64]:
        """See ``Agent.act``."""
        items = as_tensor(observations["candidate_items"]).numpy()  # [B, M]
        lanes, size = items.shape
        every = ActContext(context.lane_seeds, context.step, size)
        order = self.base.act(observations, every, env=env)  # [B, M]
        names, codes = np.unique(self.world.items[self.config.provider].astype(str), return_inverse=True)
        due = np.bincount(codes) / len(codes)  # [P]
        if self.config.favourite is not None:
            due = (names == self.config.favourite).astype(np.float64)
        provider = codes[np.take_along_axis(items, order, axis=1)]  # [B, M] of the candidates, best first
        place = np.arange(size) / size  # the smaller the better
        taken, given = np.zeros((lanes, size), bool), np.zeros((lanes, len(due)))
        slate, rows, total = np.empty((lanes, context.slate_size), np.int64), np.arange(lanes), 0.0
        for position in range(context.slate_size):
            attention = self.config.decay**position
            total += attention
            lack = (due * total - given) / attention  # [B, P] in positions like this one
            score = self.config.weight * np.take_along_axis(lack, provider, axis=1) - (1 - self.config.weight) * place
            best = np.where(taken, -np.inf, score - 1e-6 * place).argmax(axis=1)  # ties: the better one
            slate[:, position], taken[rows, best] = order[rows, best], True
            given[rows, provider[rows, best]] += attention
        return slate


class TrueProviderRanker(ProviderRanker):
    """The same of the greedy agent's ranking by the truth: what fairness costs where nothing is lost to ignorance."""

    id = "true_provider_ranker"
    privileged = True
    Base = GreedyAgent


class LevellingConfig(AgentConfig):
    """Settings of ``LevellingRanker``."""

    attribute: str = Field("age", description="attribute of the users")
    shares: dict[str, float] = Field({}, description="by group: share of the slots that random candidates fill")


class LevellingRanker(FrequencyAgent):
    """The frequency agent's slates with random candidates in some slots, more of them for some groups of users."""

    id = "levelling_ranker"
    observes = ("candidates", "user")
    stochastic = True
    Config = LevellingConfig

    def act(
        self, observations: Observations, context: ActContext, *, env: RecVectorEnv | None = None
    ) -> NDArray[np.int64]:
        """See ``Agent.act``."""
        order, keys = self._order(observations, context), lane_keys(self.seed, context)
        slates = order[:, : context.slate_size].copy()
        for share, lanes in self._shares(observations):
            slates[lanes] = explore(order[lanes], context.slate_size, share, keys[lanes])
        return slates

    def propensities(
        self, observations: Observations, context: ActContext, slates: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """See ``Agent.propensities``."""
        order = self._order(observations, context)
        chances = slot_propensities(order, slates, 0.0)
        for share, lanes in self._shares(observations):
            chances[lanes] = slot_propensities(order[lanes], slates[lanes], share)
        return chances

    def _order(self, observations: Observations, context: ActContext) -> NDArray[np.int64]:
        """All candidates [B, M], best first."""
        size = np.shape(observations["candidates"])[1]
        return super().act(observations, ActContext(context.lane_seeds, context.step, size))

    def _shares(self, observations: Observations) -> Iterator[tuple[float, NDArray[np.int64]]]:
        """The share of random slots of each group, and the lanes of its users."""
        layout = observation_layout(self.world, self.observes)["user"]
        user = as_tensor(observations["user"]).numpy()
        for group, share in self.config.shares.items():
            yield share, np.flatnonzero(user[:, layout.index(f"{self.config.attribute}={group}")] > 0)


LADDERS: dict[str, type[ProviderRanker]] = {WEIGHT: ProviderRanker, TRUE: TrueProviderRanker}


def providers(world: World, users: int, seeds: int, out: Path) -> tuple[pd.DataFrame, str]:
    """Rows of the ladder of weights, and what they show as Markdown."""
    scenario = load_scenario("provider_fairness")
    column = str(scenario.items.provider)
    ladder: dict[str, Agent] = {
        f"{name}{weight:g}": kind(world, ProviderConfig(provider=column, weight=weight))
        for name, kind in LADDERS.items()
        for weight in WEIGHTS
    }
    ladder[UNFAIR] = ProviderRanker(world, ProviderConfig(provider=column, weight=1.0, favourite=_favourite(world)))
    agents: dict[str, Any] = {**ladder, "random": "random"}
    rows = evaluate(world, scenario, agents, users=users, seeds=seeds, out=out, progress=True)
    table = measure(out, read_manifest(out)).table
    overall = table[table["group"] == "overall"]
    shown = {
        "exposure parity": ("exposure_parity", "provider"),
        "exposed utility": ("exposed_utility", "provider"),
        "realised utility": ("realised_utility", "provider"),
        "exposure loss": ("expected_exposure", "provider"),
        "AWRF": ("awrf", "provider"),
        "RSP": ("rsp", "provider"),
        "REO": ("reo", "provider"),
    }
    lines = []
    for agent in agents:
        own = table[table["agent"] == agent].set_index(["metric", "group"])
        cells = [agent, _per_episode(rows, agent, "terms/purchase")]
        start = next(name for name in LADDERS if agent.startswith(name) or agent not in ladder or agent == UNFAIR)
        cells.append(_difference(rows, agent, f"{start}0", "terms/purchase"))
        whole = overall[overall["agent"] == agent].set_index("metric")
        cells += [_text(whole.loc[name]) for name in ("terms/unfairness", "violations/unfairness")]
        cells += [_text(own.loc[key]) for key in shown.values()]
        lines.append(cells)
    head = ["", "purchases", "- weight 0", "unfairness of a slate", "slates out of bounds", *shown]
    about = (
        f"Scenario `provider_fairness`, {rows['user'].nunique():,} users x {seeds} seeds, the same for all. Purchases "
        "of an episode; unfairness: distance of attention from the providers' shares of the catalogue, a mean over "
        "slates. Parity, exposed and realised utility: 1 is fair; loss, AWRF, RSP and REO: 0 is. All but exposure "
        "parity are of first slates of visits, where relevance is known. 95% intervals over users, differences paired. "
        "A fair share by catalogue is not one by relevance: what is fair by one measure need not be by another. "
        f"{world_of(world)}"
    )
    return rows, f"{about}\n\n{grid(head, lines)}"


def _favourite(world: World) -> str:
    """The provider of what is bought most, an item."""
    each = world.items.groupby(world.items["brand"].astype(str))["popularity"].mean()
    return str(each.idxmax())


def users(world: World, attribute: str, seeds: int, out: Path, sample: int | None = None) -> tuple[pd.DataFrame, str]:
    """Rows of the ladder of levels, and what they show as Markdown."""
    scenario = load_scenario("user_fairness", {"env.world": world.name, "users.group_by": [attribute]})
    half = sample or world.num_users // 2  # the first in the order of samples; shares come from the others
    labels = world.users[attribute].astype(object).fillna("unknown").astype(str)
    before = evaluate(
        world,
        scenario,
        ("frequency", "random"),
        users=world.num_users,
        seeds=CALIBRATION_SEEDS,
        out=out / "calibration",
    )
    before = before[~before["user"].isin(sample_users(world.num_users, half))]
    means = before.assign(group=labels.iloc[before["user"]].to_numpy()).groupby(["agent", "group"])["reward"].mean()
    groups = [group for group in means["frequency"].index if group != "unknown"]
    low, high = (pick(groups, key=lambda group: means["frequency", group]) for pick in (min, max))
    target = means["frequency", low]
    full = {}
    for group in groups:  # reward falls about linearly with the share of random slots
        own, worst = means["frequency", group], means["random", group]
        full[group] = float(np.clip((own - target) / max(own - worst, 1e-9), 0, 1))
    ladder = {f"level {level:g}": LevellingRanker(world, _levelling(attribute, full, level)) for level in LEVELS}
    ladder[UNFAIR] = LevellingRanker(world, LevellingConfig(attribute=attribute, shares={low: 1.0}))
    rows = evaluate(world, scenario, ladder, users=half, seeds=seeds, out=out / "ladder")
    lines = []
    for agent in ladder:
        mine = rows[rows["agent"] == agent]
        gaps = dict(user_gaps(mine, labels, np.random.default_rng(0), draws=2000, permutations=2000))
        cells = [agent, _per_episode(rows, agent, "reward"), _difference(rows, agent, next(iter(ladder)), "reward")]
        for utility in ("reward", "parity", "opportunity"):
            gap = gaps[utility]
            if not isinstance(gap, GroupGap):
                raise RecGymError(f"{utility} by {attribute}: {gap}")
            cells.append(f"{interval(gap.gap)} / {gap.permuted_gap:.2g}, p {gap.p_value:.3f}")
            if utility == "reward":
                cells.append(_lead(rows, agent, next(iter(ladder)), labels, high, low))
                cells.append(f"{interval(gap.worst)} ({gap.worst_group})")
        lines.append(cells)
    head = ["", "reward", "- level 0", "gap in reward", f"{high} over {low}, - level 0", "worst group"]
    head += ["gap in parity", "gap in opportunity"]
    sizes = labels.iloc[rows["user"].unique()].value_counts()
    about = (
        f"Scenario `user_fairness` by {attribute}, {half:,} users x {seeds} seeds, the same for all "
        f"({', '.join(f'{group}: {sizes[group]}' for group in sizes.index)}); shares of random slots from the other "
        f"{world.num_users - half:,} users: {', '.join(f'{g} {share:.2f}' for g, share in full.items())} at level "
        "1. Gap: largest less smallest mean over groups, unknown left out, with its 95% interval; after the stroke the "
        "mean gap under shuffled labels, and p, the chance of a gap as large under them. "
        f"{high} over {low}: how the lead of that group in reward changes, paired by user and luck. {world_of(world)}"
    )
    return rows, f"{about}\n\n{grid(head, lines)}"


def _levelling(attribute: str, full: Mapping[str, float], level: float) -> LevellingConfig:
    return LevellingConfig(attribute=attribute, shares={group: level * share for group, share in full.items()})


def _per_episode(rows: pd.DataFrame, agent: str, column: str) -> str:
    mine = rows[rows["agent"] == agent]
    return interval(statistics.mean(mine[column], mine["user"], np.random.default_rng(0)))


def _difference(rows: pd.DataFrame, agent: str, other: str, column: str) -> str:
    if agent == other:
        return ""
    [found] = statistics.compare(rows, agent, other, np.random.default_rng(0), value=column)
    return interval(found.difference, signed=True)


def _lead(rows: pd.DataFrame, agent: str, other: str, labels: pd.Series, high: str, low: str) -> str:
    """How much larger the lead of users ``high`` over users ``low`` is with ``agent`` than with ``other``."""
    if agent == other:
        return ""
    pairs = statistics.paired_values(rows, agent, other, "reward")
    groups = labels.iloc[pairs["user"]].to_numpy()
    own = np.isin(groups, [high, low])
    gaps, groups = (pairs["first"] - pairs["second"]).to_numpy()[own], groups[own]
    onehot = np.stack([groups == high, groups == low], axis=1).astype(np.float64)

    def change(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        means = (weights @ (onehot * gaps[:, None])) / (weights @ onehot)
        return means[:, :1] - means[:, 1:]

    users = pairs["user"].to_numpy()[own]
    [found] = aggregate.bootstrap(change, users, np.random.default_rng(0), strata=groups, draws=2000)
    return interval(found, signed=True)


def _text(line: pd.Series) -> str:
    return interval(Estimate(line["value"], line["low"], line["high"], 0, 0))


def main(arguments: Sequence[str] | None = None) -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--world", default="ecommerce")
    parser.add_argument("--users", type=int, help="how many; users: the rest say how much is to be levelled")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--attribute", default="income", help="of the users that are grouped")
    parser.add_argument("--out", type=Path, help="keeps the rows there, and resumes")
    parser.add_argument("--page", type=Path, help="Markdown file")
    given = parser.parse_args(arguments)
    world = load_world(given.world)
    with tempfile.TemporaryDirectory() as scratch:
        out = given.out or Path(scratch)
        if given.part == "providers":
            _, text = providers(world, given.users or 500, given.seeds, out)
        else:
            _, text = users(world, given.attribute, given.seeds, out, given.users)
    print(text)
    if given.page:
        part = PARTS[given.part] + (f" by {given.attribute}" if given.part == "users" else "")
        write_part(given.page, TITLE, part, command_of(__file__, arguments), text)


if __name__ == "__main__":
    main()
