"""Agents that are unfair on purpose: every metric of fairness, to users and to providers, must say so."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from recgym.agents.greedy import GreedyAgent
from recgym.agents.protocol import ActContext, Agent, Observations, as_tensor
from recgym.evaluation.measures import measure
from recgym.evaluation.metrics import user_fairness
from recgym.evaluation.metrics.groups import PROVIDER_METRICS, UTILITIES
from recgym.evaluation.runner import evaluate
from recgym.evaluation.store import read_manifest
from recgym.scenario import load_scenario
from recgym.testing.worlds import tiny_world
from recgym.worlds.world import World

if TYPE_CHECKING:
    from recgym.envs.vector import RecVectorEnv


class Sexist(GreedyAgent):
    """The best slates for men and the worst for women."""

    id = "sexist"
    observes = ("candidate_items", "user_id")

    def act(
        self, observations: Observations, context: ActContext, *, env: RecVectorEnv | None = None
    ) -> NDArray[np.int64]:
        items = np.shape(observations["candidate_items"])[1]
        order = super().act(observations, ActContext(context.lane_seeds, context.step, items), env=env)
        users = as_tensor(observations["user_id"]).numpy().reshape(-1)
        women = (self.world.users["gender"].iloc[users] == "F").to_numpy()
        slates = order[:, : context.slate_size].copy()
        slates[women] = order[women, ::-1][:, : context.slate_size]
        return slates


class Bought(Agent):
    """Shows items of one brand for as long as there are any."""

    id = "bought"
    observes = ("candidate_items",)

    def act(
        self, observations: Observations, context: ActContext, *, env: RecVectorEnv | None = None
    ) -> NDArray[np.int64]:
        items = as_tensor(observations["candidate_items"]).numpy()
        mine = (self.world.items["brand"] == "National").to_numpy()[items]
        order: NDArray[np.int64] = np.argsort(~mine, axis=1, kind="stable")[:, : context.slate_size]
        return order


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return tiny_world(tmp_path_factory.mktemp("worlds") / "many", num_users=420)


@pytest.fixture(scope="module")
def table(world: World, tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    out = tmp_path_factory.mktemp("unfair")
    agents: dict[str, Any] = {"greedy": "greedy", "sexist": Sexist(world), "random": "random", "bought": Bought(world)}
    scenario = load_scenario("provider_fairness", {"users.group_by": ["gender"]})
    evaluate(world, scenario, agents, users=400, seeds=1, out=out, progress=False)
    return measure(out, read_manifest(out), draws=300).table


def of(table: pd.DataFrame, agent: str, metric: str, group: str) -> pd.Series:
    [line] = table[(table[["agent", "metric", "group"]] == [agent, metric, group]).all(axis=1)].to_dict("records")
    return pd.Series(line)


@pytest.mark.parametrize("utility", UTILITIES)
def test_gaps_between_users_widen_and_the_worst_group_is_worse_off(table: pd.DataFrame, utility: str) -> None:
    gap = {agent: of(table, agent, f"{utility} gap", "gender") for agent in ("greedy", "sexist")}
    worst = {agent: of(table, agent, f"{utility} of the worst group", "gender") for agent in gap}
    assert gap["sexist"]["low"] > gap["greedy"]["high"]
    assert worst["sexist"]["high"] < worst["greedy"]["low"]
    assert gap["sexist"]["p_value"] < 0.01 and gap["sexist"]["low"] > 2 * gap["sexist"]["by_chance"]
    women, men = (of(table, "sexist", f"{utility} by gender", group) for group in ("F", "M"))
    assert women["high"] < men["low"] and worst["sexist"]["value"] == pytest.approx(women["value"])
    assert "unknown" in set(table[table["metric"] == f"{utility} by gender"]["group"])


@pytest.mark.parametrize("metric", PROVIDER_METRICS)
def test_metrics_of_providers_tell_who_is_shown(table: pd.DataFrame, metric: str) -> None:
    fair, unfair = (of(table, agent, metric, "provider") for agent in ("random", "bought"))
    if metric in ("exposure_parity", "exposed_utility", "realised_utility"):  # 1 is fair
        assert unfair["high"] < fair["low"]
    else:  # 0 is fair
        assert unfair["low"] > fair["high"]


@pytest.mark.parametrize("metric", ["terms/unfairness", "costs/unfairness", "violations/unfairness"])
def test_terms_and_constraints_tell_it_too(table: pd.DataFrame, metric: str) -> None:
    assert of(table, "bought", metric, "overall")["low"] > of(table, "random", metric, "overall")["high"]


@pytest.mark.parametrize("metric", ["slate_exposure_loss", "equity_of_attention"])
def test_metrics_of_single_items_tell_slates_that_ignore_relevance(table: pd.DataFrame, metric: str) -> None:
    fair, unfair = (of(table, agent, metric, "overall")["value"] for agent in ("greedy", "sexist"))
    assert unfair > fair


def test_unfair_predictions_raise_each_kind_of_unfairness() -> None:
    """Ratings of one group are too low, or too high, or merely noisier (Yao and Huang, 2017)."""
    rng = np.random.default_rng(0)
    users, items = np.repeat(np.arange(120), 20), np.tile(np.arange(20), 120)
    groups, true = np.where(users < 60, "f", "m"), rng.integers(1, 6, len(users))
    inside = groups == "f"

    def found(errors: NDArray[np.float64]) -> user_fairness.ErrorUnfairness:
        return user_fairness.error_unfairness(true + errors, true, items, users, groups, "f")

    noise = rng.normal(0, 0.1, len(users))
    fair, low, high = found(noise), found(noise - inside), found(noise + inside)
    assert max(fair.value, fair.absolute, fair.under, fair.over) < 0.1
    assert min(low.value, low.absolute, low.under) > 0.8 > 0.1 > low.over
    assert min(high.value, high.absolute, high.over) > 0.8 > 0.1 > high.under


def test_rates_of_outcomes_that_differ_are_unfair() -> None:
    assert user_fairness.ranking_parity([9, 1], [10, 10]) > user_fairness.ranking_parity([6, 4], [10, 10])
    unfair, fair = (user_fairness.differential_fairness(counts) for counts in ([[90, 10], [10, 90]], [[50, 50]] * 2))
    assert unfair > 1 > fair
