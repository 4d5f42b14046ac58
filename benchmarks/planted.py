"""A fitted world marked against a known truth: preferences, responses, and the ranking of policies.

python benchmarks/planted.py --seeds 3 --out runs/planted

Planted users (``recgym.user_models.planted``) live on a platform whose logging policy is known. The shipped pipeline
builds a world from the log of that platform and from nothing else. Then policies that never wrote the log play in both,
in the truth and in the fitted world, on the same users, and the two rankings are compared.

What is fair to ask. The log identifies q (by what was not shown) and the lift (by what was), so both are fitted. How
positions are examined, when users lose patience and how declined items fade is assumed in every world, and assumed
rightly here: the scenario of the truth is that of the fitted world but for two things. The lift of the fitted world is
the one fitted on the log; and the users of the truth return by a satisfaction of their own, of which the fitted world
knows nothing: it assumes the scenario's. The output also tells how the ranking fares where the lift is assumed wrongly.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from recgym.agents import ActContext, Agent, make_agent
from recgym.agents.protocol import AgentConfig, Observations, as_tensor, not_shown, top_slate
from recgym.agents.training import training_env
from recgym.data.interactions import Interactions
from recgym.evaluation.agreement import expected_auc, kendall, rank_correlation, regret, true_differences
from recgym.evaluation.catalogue import Catalogue
from recgym.evaluation.rollout import play
from recgym.random import derive_seeds
from recgym.scenario import Scenario, load_scenario
from recgym.simulation.record import Records, own_history
from recgym.simulation.simulator import Simulator
from recgym.threads import one_thread
from recgym.types import Visit
from recgym.user_models.planted import PlantedUsers, Truth
from recgym.user_models.preference.config import ModelConfig, NetworkConfig, TrainingConfig
from recgym.user_models.preference.users import PreferenceUsers
from recgym.user_models.protocol import UserModel
from recgym.worlds.build import build_world
from recgym.worlds.planted import FIRST_DAY, planted_log, planted_platform
from recgym.worlds.prepare import prepare
from recgym.worlds.recipes import Recipe
from recgym.worlds.world import World

LIFT = 0.7  # of the truth
WEEK = 7  # days
TRAINED = {"ppo": {}, "ppo_slate": {"credit": "slate"}, "ppo_far": {"gamma": 0.5}}


@dataclass(frozen=True)
class Size:
    """How much is generated, trained and played."""

    users: int = 300
    items: int = 300
    days: int = 240  # of the log
    logged_slates: int = 3  # a trip shows at most so many while the log is written
    horizon: int = 45  # days that policies are judged on
    slates: int = 10  # a trip, then
    luck: int = 1  # evaluation seeds
    steps: int = 30_000  # slates that each learner is trained on
    dim: int = 32
    epochs: tuple[int, int] = (6, 20)  # pre-training and fine-tuning
    wrong_lifts: tuple[float, ...] = (0.0, 1.4)


SMALL = Size(users=150, items=150, days=200, horizon=40, luck=1, steps=8_000, dim=16, epochs=(5, 20), wrong_lifts=())


class ByColumn(Agent):
    """Ranks the candidates by a column of the item table, the same for everybody; what was shown comes last."""

    id = "column"
    observes = ("candidates", "candidate_items")

    class Config(AgentConfig):
        """What to rank by."""

        column: str
        ascending: bool = True

    def act(self, observations: Observations, context: ActContext, *, env: Any = None) -> np.ndarray:
        values = torch.tensor(self.world.items[self.config.column].to_numpy(np.float64))
        values = values[as_tensor(observations["candidate_items"])] * (-1.0 if self.config.ascending else 1.0)
        return top_slate(context.slate_size, not_shown(self.world, observations), values)


def scenarios(size: Size, lift: float) -> tuple[Scenario, Scenario]:
    """The scenario of the truth, and that of a fitted world with a ``lift``."""
    common = {
        "episode": {"kind": "horizon", "horizon_days": size.horizon, "max_slates": size.slates},
        "behaviour.lift": LIFT,
    }
    truth = load_scenario("default", {**common, "behaviour.satisfaction.return_effect": 0.0})
    return truth, load_scenario("default", {**common, "behaviour.lift": lift})


def write_log(size: Size, seed: int) -> tuple[Truth, Interactions]:
    """The truth by platform rows, and the log of its platform."""
    platform = planted_platform(size.users, size.items, seed)
    users = PlantedUsers(platform, truth=Truth.of(platform, seed))
    scenario, _ = scenarios(replace(size, slates=size.logged_slates), LIFT)
    return users.truth, planted_log(platform, users, scenario, size.days, seed)


def fit_world(size: Size, seed: int, log: Interactions, out: Path) -> tuple[World, Recipe]:
    """The world that the shipped pipeline builds from ``log``; nothing else of the truth reaches it."""
    dim, (pretrain, finetune) = size.dim, size.epochs
    network = NetworkConfig(dim=dim, layers=1, feedforward=2 * dim, window=30, hidden=dim)
    training = TrainingConfig(pretrain_epochs=pretrain, finetune_epochs=finetune, batch_segments=4)
    recipe = Recipe(
        name="planted",
        title="Planted users",
        dataset="planted",
        kind="purchase",
        currency="USD",
        seed=seed,
        model=ModelConfig(network=network, training=training),
    )
    return build_world(recipe, out=out, log=log), recipe


def true_users(truth: Truth, world: World, log: Interactions, recipe: Recipe) -> PlantedUsers:
    """The planted users under the rows and the calendar of the fitted world."""
    prepared = prepare(log, recipe)
    items = torch.from_numpy(world.items["item_id"].to_numpy().astype(np.int64))
    rows = torch.from_numpy(prepared.users["user_id"].to_numpy().astype(np.int64))
    day = int((np.datetime64(prepared.first_day) - FIRST_DAY) / np.timedelta64(1, "D"))
    return PlantedUsers(world, truth=truth.select(items, rows, day))


@torch.no_grad()
def preferences(world: World, users: PlantedUsers) -> dict[str, Any]:
    """Fitted against true q of every user and item, a week after the user's last trip in the log."""
    records, rows = Records(world, torch.device("cpu")), torch.arange(world.num_users)
    record, _ = records.start(rows)
    last = records.last_visit(rows)
    zero = torch.zeros_like(last.day)
    visit = Visit(day=last.day + WEEK, gap_days=zero + WEEK, trip=zero, step=zero, bought=zero, intended=zero)
    items = torch.arange(world.num_items).repeat(len(rows), 1)
    counts, days = own_history(record, visit.day, items)

    def logits(model: UserModel) -> np.ndarray:
        state = model.arrive(model.init(rows, record, last), record, visit)
        return model.appraise(state, items, counts, days, visit).logit.double().numpy()

    true, popularity = logits(users), world.items["popularity"].to_numpy(np.float64)
    chance = 1 / (1 + np.exp(-true - LIFT))
    scores = {
        "model": logits(PreferenceUsers(world)),
        "popularity": np.broadcast_to(popularity, true.shape),
        "own_frequency": counts.numpy() + popularity / (popularity.max() + 1),
        "bayes": true,
    }
    out: dict[str, Any] = {}
    for name, score in scores.items():
        areas = [expected_auc(score[row], chance[row]) for row in range(len(rows))]
        out[name] = {"rank_correlation": _median(rank_correlation(score, true)), "auc": float(np.mean(areas))}
    sums = [float((1 / (1 + np.exp(-score))).sum(1).mean()) for score in (scores["model"], true)]
    return {**out, "expected_basket": {"model": sums[0], "truth": sums[1]}}


def _median(values: np.ndarray) -> float:
    return float(np.nanmedian(values))


def policies(world: World, scenario: Scenario, size: Size, seed: int) -> dict[str, Agent]:
    """Ten policies, three of them trained in the fitted world; none of them wrote the log."""
    agents: dict[str, Agent] = {name: make_agent(name, world) for name in ("random", "popularity", "frequency")}
    agents["item_knn"] = make_agent("item_knn", world)
    agents["item_knn_explore"] = make_agent("item_knn", world, include_self=False)
    agents["cheapest"] = ByColumn(world, ByColumn.Config(column="price"))
    agents["long_tail"] = ByColumn(world, ByColumn.Config(column="popularity"))
    for name, config in TRAINED.items():
        agents[name] = make_agent("ppo", world, seed=seed, num_envs=128, **config)
        env = training_env(agents[name], world, scenario)
        try:
            agents[name].train(env, size.steps)
        finally:
            env.close()
    return agents


def values(agents: dict[str, Agent], world: World, scenario: Scenario, users: UserModel, size: Size) -> pd.DataFrame:
    """One row an episode of every policy: the same users with the same luck for all."""
    simulator = Simulator(world, scenario, user_model=users)
    catalogue = Catalogue.of(simulator)
    rows = np.arange(world.num_users)
    pieces = []
    for luck in range(size.luck):
        seeds = derive_seeds(1000 + luck, torch.from_numpy(rows)).numpy()
        for name, agent in agents.items():
            played = play(agent, simulator, rows, seeds, catalogue=catalogue).episodes
            pieces.append(played.assign(scenario=scenario.name, agent=name, seed=luck))
    return pd.concat(pieces, ignore_index=True)


def experiment(seed: int, size: Size, out: Path) -> dict[str, Any]:
    """Everything about one truth, as JSON values."""
    clock = time.perf_counter()
    marks: dict[str, float] = {}

    def mark(name: str) -> None:
        marks[name] = round(time.perf_counter() - clock - sum(marks.values()), 1)

    truth, log = write_log(size, seed)
    mark("log")
    world, recipe = fit_world(size, seed, log, out / "world")
    users = true_users(truth, world, log, recipe)
    mark("world")
    lift = world.spec.behaviour["lift"]
    in_truth, in_fitted = scenarios(size, lift)
    agents = policies(world, in_fitted, size, seed)
    mark("training")
    true = values(agents, world, in_truth, users, size)
    differences = true_differences(true, np.random.default_rng(seed))
    true_values = true.groupby("agent", sort=False)["reward"].mean().to_dict()

    def agreement(assumed: float) -> dict[str, Any]:
        _, scenario = scenarios(size, assumed)
        model = values(agents, world, scenario, PreferenceUsers(world), size)
        found = model.groupby("agent", sort=False)["reward"].mean().to_dict()
        order = kendall(differences, found)
        lost = regret(true_values, found)
        trips = model.groupby("agent", sort=False)["num_trips"].mean().to_dict()
        return {
            "kendall": order.to_dict(),
            "regret@1": lost,
            "regret@1_share": lost / max(true_values.values()),
            "regret@3": regret(true_values, found, 3),
            "values": found,
            "trips": trips,
        }

    report = {
        "seed": seed,
        "size": asdict(size),
        "log": {"events": len(log), "users": world.num_users, "items": world.num_items},
        "lift": {"truth": LIFT, "fitted": lift},
        "preferences": preferences(world, users),
        "policies": {
            "truth": {"values": true_values, "trips": true.groupby("agent", sort=False)["num_trips"].mean().to_dict()},
            "fitted": agreement(lift),
            "lift assumed wrong": {str(wrong): agreement(wrong) for wrong in size.wrong_lifts},
        },
    }
    mark("evaluation")
    return {**report, "seconds": {**marks, "total": round(time.perf_counter() - clock, 1)}}


def summary(reports: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Medians over truths of what has to be shown."""
    fitted = [report["policies"]["fitted"] for report in reports]
    model, bayes = ([report["preferences"][name] for report in reports] for name in ("model", "bayes"))
    return {
        "seeds": [report["seed"] for report in reports],
        "kendall": float(np.median([part["kendall"]["tau"] for part in fitted])),
        "kendall_each": [round(part["kendall"]["tau"], 3) for part in fitted],
        "pairs": [[part["kendall"]["counted"], part["kendall"]["left_out"]] for part in fitted],
        "regret@1_share": [round(part["regret@1_share"], 4) for part in fitted],
        "rank_correlation": float(np.median([part["rank_correlation"] for part in model])),
        "auc": float(np.median([part["auc"] for part in model])),
        "auc_bayes": float(np.median([part["auc"] for part in bayes])),
        "lift": [report["lift"]["fitted"] for report in reports],
        "seconds": [report["seconds"]["total"] for report in reports],
    }


def main() -> None:
    """Runs the experiment and writes ``planted.json``; the last line is the summary."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, help="truths, numbered from --first")
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--small", action="store_true", help="the size of the tests")
    parser.add_argument("--out", type=Path, default=Path("runs/planted"))
    arguments = parser.parse_args()
    size, reports = SMALL if arguments.small else Size(), []
    arguments.out.mkdir(parents=True, exist_ok=True)
    for seed in range(arguments.first, arguments.first + arguments.seeds):
        with tempfile.TemporaryDirectory() as work, one_thread():
            os.environ["RECGYM_HOME"] = work  # a build of its own, measured from the start
            reports.append(experiment(seed, size, Path(work)))
        result = {"summary": summary(reports), "truths": reports}
        (arguments.out / "planted.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        print(json.dumps(reports[-1], indent=1))
    print(json.dumps(summary(reports)))


if __name__ == "__main__":
    main()
