"""Logged rollouts: whole episodes, exact propensities, and the same again from parquet."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from recgym.agents import ActContext, make_agent
from recgym.agents.exploration import Behaviour, explore, slot_propensities
from recgym.data.rollouts import Rollouts, collect
from recgym.envs.vector import RecVectorEnv
from recgym.errors import AgentError, DataError
from recgym.random import derive_seeds
from recgym.scenario import load_scenario
from recgym.testing.worlds import tiny_world
from recgym.worlds.world import World

KEYS = ("user", "candidates", "candidate_items")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return tiny_world(tmp_path_factory.mktemp("worlds") / "tiny", num_items=300, num_users=40)


def environment(world: World, num_envs: int = 6) -> RecVectorEnv:
    scenario = load_scenario("default", {"episode.max_slates": 3, "behaviour.patience": 0.3})
    return RecVectorEnv(world=world, scenario=scenario, num_envs=num_envs)


@pytest.fixture(scope="module")
def rollouts(world: World) -> Rollouts:
    policy = Behaviour(make_agent("popularity", world), 0.3)
    return collect(policy, environment(world), 50, keys=KEYS, seed=4)


def same(one: Rollouts, two: Rollouts) -> bool:
    names = ("episode", "user", "slate", "item", "consumed", "examined", "propensity", "reward", "terminated", "final")
    columns = all(np.array_equal(getattr(one, name), getattr(two, name)) for name in (*names, "truncated"))
    return columns and all(np.array_equal(one.observations[key], two.observations[key]) for key in KEYS)


def test_episodes_are_whole(rollouts: Rollouts) -> None:
    assert len(rollouts.slates()) >= 50
    starts = np.flatnonzero(np.diff(rollouts.episode, prepend=-1))
    assert np.array_equal(np.unique(rollouts.episode), np.arange(len(starts)))
    assert np.array_equal(np.flatnonzero(rollouts.final), np.append(starts[1:], len(rollouts.episode)) - 1)
    last = np.flatnonzero(rollouts.final) - 1
    ended = rollouts.terminated | rollouts.truncated
    assert ended[last].all() and ended.sum() == len(last)
    assert not (rollouts.terminated & rollouts.truncated)[last].any() and rollouts.terminated[last].any()
    lengths = np.bincount(rollouts.episode) - 1
    assert lengths.min() >= 1 and lengths.max() == 3
    assert all(len(set(rollouts.user[rollouts.episode == number])) == 1 for number in range(len(starts)))
    assert not rollouts.reward[rollouts.final].any() and not rollouts.propensity[rollouts.final].any()


def test_rows_are_what_the_environment_shows(rollouts: Rollouts, world: World) -> None:
    rows = rollouts.slates()
    candidates = rollouts.observations["candidate_items"]
    assert np.array_equal(np.take_along_axis(candidates[rows], rollouts.slate[rows], axis=1), rollouts.item[rows])
    assert np.array_equal(rollouts.consumed[rows].sum(1), rollouts.reward[rows])  # the reward of a purchase world
    assert rollouts.observations["candidates"].shape[1:] == (
        100,
        len(rollouts.about["observation_layout"]["candidates"]),
    )


def test_collecting_again_gives_the_same_and_another_seed_does_not(rollouts: Rollouts, world: World) -> None:
    policy = Behaviour(make_agent("popularity", world), 0.3)
    assert same(rollouts, collect(policy, environment(world), 50, keys=KEYS, seed=4))
    assert not np.array_equal(rollouts.user, collect(policy, environment(world), 50, keys=KEYS, seed=5).user)


def test_parquet_gives_back_the_same(rollouts: Rollouts, tmp_path: Path) -> None:
    again = Rollouts.load(rollouts.save(tmp_path))
    assert same(rollouts, again) and again.about == rollouts.about
    assert again.about["policy"] == {"agent": "popularity", "config": {}, "exploration": 0.3}
    with pytest.raises(DataError, match="no logged rollouts"):
        Rollouts.load(tmp_path / "nothing")
    about = json.loads((tmp_path / "rollouts.json").read_text())
    (tmp_path / "rollouts.json").write_text(json.dumps({**about, "format_version": 9}))
    with pytest.raises(DataError, match="format_version 9"):
        Rollouts.load(tmp_path)


def test_minari_gives_back_the_same(rollouts: Rollouts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    minari = pytest.importorskip("minari")
    from recgym.adapters.minari import from_minari, read_rollouts, to_minari

    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    path = to_minari(rollouts, "recgym/tiny/popularity-v0")
    dataset = minari.load_dataset("recgym/tiny/popularity-v0")
    assert dataset.total_steps == len(rollouts.slates())
    assert dataset.total_episodes == rollouts.episode.max() + 1
    episode = next(dataset.iterate_episodes([1]))
    rows = np.flatnonzero(rollouts.episode == 1)
    assert np.array_equal(episode.observations["candidates"], rollouts.observations["candidates"][rows])
    assert np.array_equal(episode.infos["propensity"][:-1], rollouts.propensity[rows[:-1]])
    assert all(dataset.action_space.contains(action) for action in episode.actions)
    for where in ("recgym/tiny/popularity-v0", path):
        again = from_minari(where)
        assert same(rollouts, again) and again.about == rollouts.about
    assert same(read_rollouts(rollouts.save(tmp_path / "parquet")), read_rollouts(path))
    with pytest.raises(DataError, match="already exists"):
        to_minari(rollouts, "recgym/tiny/popularity-v0")
    with pytest.raises(DataError, match="'recgym/none-v0'"):
        read_rollouts("recgym/none-v0")


def test_propensities_of_every_slate_sum_to_one() -> None:
    ranking = np.array([[2, 0, 3, 1]])
    slates = np.array([[a, b] for a in range(4) for b in range(4)])
    chances = slot_propensities(np.repeat(ranking, 16, axis=0), slates, 0.4)
    whole = chances.prod(axis=1)
    assert whole.sum() == pytest.approx(1.0, abs=1e-12)
    assert not whole[slates[:, 0] == slates[:, 1]].any()  # nothing stands on a slate twice
    assert chances[slates.tolist().index([2, 0])] == pytest.approx([0.1 + 0.6, 0.4 / 3 + 0.6])
    assert chances[slates.tolist().index([0, 2])] == pytest.approx([0.1, 0.4 / 3 + 0.6])


def test_propensities_match_how_often_slates_are_shown() -> None:
    draws = 40_000
    ranking = np.tile([2, 0, 3, 1], (draws, 1))
    slates = explore(ranking, 2, 0.4, derive_seeds(1, torch.arange(draws)))
    chances = slot_propensities(ranking, slates, 0.4).prod(axis=1)
    shown = Counter(map(tuple, slates.tolist()))
    assert len(shown) == 12
    for slate, count in shown.items():
        expected = chances[(slates == slate).all(axis=1)][0]
        assert count / draws == pytest.approx(expected, abs=4.5 * np.sqrt(expected * (1 - expected) / draws))


def test_extremes_are_the_ranking_and_uniform_slates() -> None:
    ranking = np.array([[3, 1, 0, 2]] * 5)
    keys = derive_seeds(2, torch.arange(5))
    assert np.array_equal(explore(ranking, 3, 0.0, keys), ranking[:, :3])
    slates = explore(ranking, 3, 1.0, keys)
    assert slot_propensities(ranking, slates, 1.0) == pytest.approx(np.tile([1 / 4, 1 / 3, 1 / 2], (5, 1)))
    assert np.array_equal(explore(ranking[:2], 3, 1.0, keys[:2]), slates[:2])  # keyed by lane, whatever the batch


def test_a_behaviour_knows_its_chances_or_is_refused(world: World) -> None:
    with pytest.raises(AgentError, match="between 0 and 1, got 1.5"):
        Behaviour(make_agent("popularity", world), 1.5)
    with pytest.raises(AgentError, match="'random' draws its slates itself"):
        Behaviour(make_agent("random", world), 0.5)
    context = ActContext(np.arange(3), np.zeros(3, np.int64), 4, learning=True)
    observations = {"candidate_items": np.tile(np.arange(10), (3, 1))}
    _, chances = Behaviour(make_agent("random", world)).act(observations, context)
    assert chances == pytest.approx(np.tile([1 / 10, 1 / 9, 1 / 8, 1 / 7], (3, 1)))
    observations, _ = RecVectorEnv(world=world, num_envs=3, observation=("candidates",)).reset(seed=0)
    with pytest.raises(AgentError, match="'thompson' does not know"):
        Behaviour(make_agent("thompson", world)).act(observations, context)
