"""What an evaluation writes besides rewards: tables that agree with each other and with the metrics' own functions."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from recgym.agents.protocol import make_agent
from recgym.evaluation import metrics, rollout
from recgym.evaluation.catalogue import Catalogue
from recgym.evaluation.judge import Verdict
from recgym.evaluation.measures import measure
from recgym.evaluation.metrics import beyond_accuracy, groups
from recgym.evaluation.runner import evaluate
from recgym.evaluation.store import read_manifest
from recgym.scenario import load_scenario
from recgym.simulation.population import platform_world
from recgym.worlds.world import World

AGENTS = ("random", "popularity", "frequency", "greedy")
TABLES = ("rows", "visits", "providers", "items", "users", "steps")


@pytest.fixture(scope="module")
def run(world: World, tmp_path_factory: pytest.TempPathFactory) -> dict[str, pd.DataFrame]:
    out = tmp_path_factory.mktemp("ledger")
    long = load_scenario("default", {"name": "long", "episode.kind": "horizon", "episode.horizon_days": 40})
    evaluate(world, ["default", long], AGENTS, users=20, seeds=2, out=out, progress=False)
    return {table: pd.read_parquet(out / f"{table}.parquet") for table in TABLES}


def test_visits_items_and_providers_add_up_to_the_rows(run: dict[str, pd.DataFrame]) -> None:
    keys = ["scenario", "agent", "seed"]
    rows, visits, items = (run[name].groupby(keys) for name in ("rows", "visits", "items"))
    for column in ("reward", "num_steps", "num_hits", "num_consumed"):
        pd.testing.assert_series_equal(visits[column].sum(), rows[column].sum(), check_dtype=False)
    assert (visits.size() == rows["num_trips"].sum()).mean() > 0.5  # a trip that a horizon cut off shows nothing
    for column, total in (("shown", "num_shown"), ("consumed", "num_consumed")):
        assert (items[column].sum() == rows[total].sum()).all()
    assert (items["offered"].sum() == rows["num_judged"].sum() * 100).all()
    by_brand = run["providers"].query("attribute == 'brand'").groupby(keys)
    for column in ("attention", "consumed", "offered", "wanted", "due", "relevance", "received"):
        pd.testing.assert_series_equal(by_brand[column].sum(), items[column].sum(), check_dtype=False, rtol=1e-4)


def test_sessions_are_one_visit_each(run: dict[str, pd.DataFrame]) -> None:
    assert (run["visits"].query("scenario == 'default'").groupby(["agent", "seed", "user"]).size() == 1).all()
    long = run["visits"].query("scenario == 'long'")
    assert long["trip"].max() > 2 and (long["day"] >= 0).all() and long["day"].max() < 40


def test_sums_over_slates_are_those_of_the_metrics(run: dict[str, pd.DataFrame], world: World) -> None:
    """The traced slates, through the pure functions, give the sums of their users' rows."""
    catalogue = Catalogue.seen_by(world, load_scenario("default"))
    onehot = np.eye(catalogue.num_categories)[catalogue.categories]
    traced = run["steps"].query("scenario == 'default'")
    rows = run["rows"].query("scenario == 'default' and seed == 0").set_index(["agent", "user"])
    for key, episode in traced.groupby(["agent", "user"]):
        slates = episode.sort_values(["step", "position"])["item"].to_numpy().reshape(-1, 10)
        row = rows.loc[key]
        expected = {
            "diversity_sum": beyond_accuracy.intra_list_diversity(slates, onehot).sum(),
            "information_shown": beyond_accuracy.novelty(slates, catalogue.popularity).sum() * 10,
            "num_tail": beyond_accuracy.tail_share(slates, catalogue.tail).sum() * 10,
            "popularity_shown": beyond_accuracy.average_popularity(slates, catalogue.popularity).sum() * 10,
        }
        for name, value in expected.items():
            assert row[name] == pytest.approx(value, rel=1e-5), name


def test_greedy_gives_nothing_away_and_random_does(run: dict[str, pd.DataFrame]) -> None:
    totals = run["rows"].query("scenario == 'default'").groupby("agent")[["regret_sum", "recall_sum", "mrr_sum"]].sum()
    assert totals.loc["greedy", "regret_sum"] == pytest.approx(0, abs=1e-4)
    assert totals.loc["random", "regret_sum"] > 1
    assert totals.loc["greedy", "recall_sum"] > totals.loc["random", "recall_sum"]
    assert totals.loc["greedy", "mrr_sum"] > totals.loc["random", "mrr_sum"]


def test_an_ideal_agent_is_fair_by_every_metric_that_knows_relevance(run: dict[str, pd.DataFrame]) -> None:
    """Attention stands beside relevance on the same slates: those of later slates are not held against anybody."""
    of_greedy = run["providers"].query("scenario == 'default' and agent == 'greedy'")
    assert (run["rows"].query("scenario == 'default' and agent == 'greedy'")["num_steps"] > 1).any()
    for attribute, part in of_greedy.groupby("attribute"):
        sums = part.groupby("group")[["received", "due", "attention", "taken", "consumed"]].sum()
        assert np.allclose(sums["received"], sums["due"], rtol=1e-4), attribute
        assert not np.allclose(sums["attention"], sums["due"], rtol=1e-2)
        assert (sums["taken"] < sums["consumed"]).any() and (sums["taken"] <= sums["consumed"]).all()
        sizes = dict.fromkeys(sums.index, 1)
        scores = groups.provider_scores(part, sizes, np.random.default_rng(0), draws=20)
        assert scores["expected_exposure"].high == pytest.approx(0, abs=1e-6)


def test_an_item_is_new_to_a_user_once(run: dict[str, pd.DataFrame], world: World) -> None:
    catalogue = Catalogue.seen_by(world, load_scenario("default"))
    bought = run["steps"].query("scenario == 'long' and consumed")
    bought = bought[catalogue.is_new(bought["user"].to_numpy(), bought[["item"]].to_numpy())[:, 0]]
    once = bought.drop_duplicates(["agent", "user", "item"])
    assert len(once) < len(bought)  # on a later trip
    rows = run["rows"].query("scenario == 'long' and seed == 0").set_index(["agent", "user"])
    counted = once.groupby(["agent", "user"]).size()
    assert (rows.loc[counted.index, "num_new"] == counted).all()
    assert (rows["num_serendipitous"] <= rows["num_new"]).all()


def test_how_an_episode_ended_tells_the_horizon_from_the_limit_of_slates(
    run: dict[str, pd.DataFrame], world: World, tmp_path: Path
) -> None:
    assert set(run["rows"].query("scenario == 'long'")["ended"]) == {"left", "horizon"}
    changes = {"episode.kind": "horizon", "episode.horizon_days": 40, "episode.max_steps": 12}
    short = load_scenario("default", {"name": "short", **changes})
    rows = evaluate(world, short, ["greedy"], users=30, seeds=1, out=tmp_path, progress=False)
    assert set(rows["ended"]) == {"left", "horizon", "slates"}
    assert (rows.loc[rows["ended"] == "slates", "num_steps"] == 12).all()
    assert (rows.loc[rows["ended"] == "horizon", "num_days"] < 40).all()
    found = measure(tmp_path, read_manifest(tmp_path), draws=20)
    cut = int((rows["ended"] == "slates").sum())
    said = {one["metric"]: one["reason"] for one in found.left_out}
    assert f"{cut} of 30 episodes end at the limit of 12 slates" in said["greedy beyond the limit of slates"]


def test_what_was_wanted_and_seen_on_the_first_slate_was_taken(run: dict[str, pd.DataFrame]) -> None:
    """The verdict on a slate and the user's answer to it come of one draw."""
    rows = run["rows"].query("scenario == 'default'")
    first = run["visits"].query("scenario == 'default' and num_steps == 1")
    keys = ["agent", "seed", "user"]
    one = rows.merge(first[keys], on=keys)
    assert len(one) > 10
    assert (one["num_consumed"] <= one["precision_true_sum"] * 10 + 1e-6).all()
    # Position 1 is always looked at: whoever wants what stands there takes it.
    assert (one.loc[one["mrr_sum"] == 1, "num_consumed"] >= 1).all()
    assert (one.loc[one["precision_true_sum"] == 0, "num_consumed"] == 0).all()


def test_chances_are_known_where_the_policy_knows_them(run: dict[str, pd.DataFrame]) -> None:
    rows = run["rows"].set_index("agent")
    assert (rows.loc["popularity", "log_propensity"] == 0).all()
    slate = -np.log(np.arange(100, 90, -1)).sum()  # ten of a hundred, one after another
    assert np.allclose(rows.loc["random", "log_propensity"], slate * rows.loc["random", "num_steps"], rtol=1e-4)


def test_early_rewards_grow_into_the_whole(run: dict[str, pd.DataFrame]) -> None:
    rows = run["rows"]
    assert (rows["reward_first_1"] <= rows["reward_first_5"]).all()
    short = rows["num_steps"] <= 5
    assert np.allclose(rows.loc[short, "reward_first_5"], rows.loc[short, "reward"])


def test_users_carry_the_labels_of_their_groups(run: dict[str, pd.DataFrame], world: World) -> None:
    users = run["users"].query("scenario == 'default'")
    assert users.columns.tolist() == ["user", "age", "gender", "scenario"]
    assert len(users) == 20
    known = world.users["age"].iloc[users["user"]].reset_index(drop=True)
    assert (users.loc[known.isna(), "age"] == "unknown").all()
    assert (users.loc[known.notna(), "age"] == known[known.notna()]).all()


def test_several_workers_take_up_what_one_began_and_write_the_same_bytes(world: World, tmp_path: Path) -> None:
    online = make_agent("epsilon_greedy", world, adapt=True)
    settings: dict[str, Any] = {"agents": {"random": "random", "learner": online}, "users": 12, "seeds": 2, "chunk": 5}
    alone = evaluate(world, out=tmp_path / "one", progress=False, **settings)
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    for table in TABLES:
        (tmp_path / "two" / f"{table}.parquet").unlink()
    parts = sorted((tmp_path / "two" / "parts").glob("*.rows.parquet"))
    assert len(parts) == 2 * 3 + 2  # chunks of five users; a learner learns from all of them together
    for part in parts[1:]:
        part.unlink()
    together = evaluate(world, out=tmp_path / "two", workers=2, progress=False, **settings)
    pd.testing.assert_frame_equal(alone, together, check_exact=True)
    for table in TABLES:
        name = f"{table}.parquet"
        pd.testing.assert_frame_equal(
            *(pd.read_parquet(tmp_path / run / name) for run in ("one", "two")), check_exact=True
        )
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name


@pytest.mark.parametrize("name", ["promotions", "delayed_purchase"])
def test_revenue_is_what_is_paid(name: str, world: World) -> None:
    """Discounts are taken off, and what was put aside is paid when it is bought."""
    changes = {"env.world": None, "objective": {"terms": {"revenue": 1.0}}, "episode.max_steps": 60}
    rows = evaluate(world, load_scenario(name, changes), ["popularity"], users=20, seeds=1, progress=False)
    assert np.allclose(rows["revenue"], rows["reward"]) and rows["revenue"].sum() > 0
    also = load_scenario(name, {**changes, "objective": {"terms": {"purchase": 1.0}}})
    told = evaluate(world, also, ["popularity"], users=20, seeds=1, progress=False)
    assert np.allclose(told["revenue"], rows["revenue"])


def test_users_whose_episodes_are_over_take_no_part_and_change_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stage grows smaller as episodes end; rows are those of a stage that everybody stays on, bit by bit."""
    long = load_scenario("cold_start_users", {"episode.horizon_days": 60, "name": "long"})
    online = make_agent("linucb", platform_world(world, long), adapt=True)
    settings: dict[str, Any] = {"agents": {"frequency": "frequency", "greedy": "greedy", "learner": online}}
    lanes: list[int] = []
    smaller = rollout._without

    def counting(env: Any, agent: Any, playing: Any) -> Any:
        lanes.append(int(playing.sum()))
        return smaller(env, agent, playing)

    monkeypatch.setattr(rollout, "_without", counting)
    monkeypatch.setattr(rollout, "_SMALL", 10**9)
    whole = evaluate(world, long, users=40, seeds=1, progress=False, **settings)
    assert not lanes
    monkeypatch.setattr(rollout, "_SMALL", 4)
    found = evaluate(world, long, users=40, seeds=1, progress=False, **settings)
    assert len(lanes) > 3 and min(lanes) < 10
    pd.testing.assert_frame_equal(whole, found, check_exact=True)


def test_new_items_are_judged_alone() -> None:
    """Of the wanted items 1, 2 and 3 those from 2 on are new; the slate shows 1 and 3."""
    verdict = Verdict(
        lanes=np.array([0, 1]),
        slates=np.array([[0, 2], [0, 2]]),
        items=np.array([[1, 2, 3], [1, 2, 3]]),
        relevance=np.ones((2, 3)),
        wanted=np.array([[True, True, True], [True, False, False]]),
        attention=np.array([1.0, 0.5]),
    )
    found = verdict.of_new(np.array([False, False, True, True]))
    second, both = 1 / np.log2(3), 1 + 1 / np.log2(3)
    assert found["ndcg_unseen_sum"].tolist() == pytest.approx([second / both, 0])
    assert found["num_answerable_unseen"].tolist() == [1, 0]


def test_new_items_are_judged_where_they_arrive(world: World) -> None:
    many = {"actions.candidates": {"own": 30, "popular": 30, "uniform": 0, "new": 40}}
    scenario = load_scenario("cold_start_items", many)
    rows = evaluate(world, [scenario, "default"], ("random", "greedy"), users=30, seeds=1, progress=False)
    found = rows[rows["scenario"] == "cold_start_items"].groupby("agent")[["ndcg_unseen_sum", "num_unseen"]].sum()
    assert found.loc["greedy", "ndcg_unseen_sum"] > found.loc["random", "ndcg_unseen_sum"]
    assert (found["num_unseen"] > 0).all()
    assert rows.loc[rows["scenario"] == "default", "ndcg_unseen_sum"].isna().all()
    assert set(metrics.score(rows).query("metric == 'ndcg_unseen'")["scenario"]) == {"cold_start_items"}
