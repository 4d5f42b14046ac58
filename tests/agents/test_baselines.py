"""The baselines against answers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from recgym.agents import ActContext, make_agent
from recgym.envs.features import CANDIDATE_FEATURES
from recgym.worlds.world import World


def context(num_lanes: int, slate_size: int, step: int = 0) -> ActContext:
    return ActContext(np.arange(num_lanes) + 100, np.full(num_lanes, step, dtype=np.int64), slate_size)


def features(world: World, candidates: np.ndarray) -> np.ndarray:
    """Candidate features that tell nothing, and that nothing was shown yet."""
    return np.zeros((*candidates.shape, len(CANDIDATE_FEATURES(world))), dtype=np.float32)


def test_random_is_uniform_and_changes_with_seed_and_step(world: World) -> None:
    observations = {"candidate_items": np.zeros((4000, 8), dtype=np.int64)}
    slates = make_agent("random", world, seed=1).act(observations, context(4000, 2))
    shares = np.bincount(slates.ravel(), minlength=8) / slates.size
    assert np.abs(shares - 1 / 8).max() < 0.02
    assert not np.array_equal(slates, make_agent("random", world, seed=2).act(observations, context(4000, 2)))
    assert not np.array_equal(slates, make_agent("random", world, seed=1).act(observations, context(4000, 2, step=1)))


def test_popularity_ranks_by_purchases_in_the_log(world: World) -> None:
    log = world.interactions()
    counts = log.groupby("item")["count"].sum().reindex(range(world.num_items), fill_value=0).to_numpy()
    candidates = np.array([[5, 100, 0, 200, 30], [299, 1, 2, 3, 4]])
    slates = make_agent("popularity", world).act(
        {"candidate_items": candidates, "candidates": features(world, candidates)}, context(2, 5)
    )
    shown = counts[np.take_along_axis(candidates, slates, axis=1)]
    assert (np.diff(shown, axis=1) <= 0).all()


def test_frequency_breaks_ties_by_recency_then_popularity(world: World) -> None:
    names = CANDIDATE_FEATURES(world)
    told = features(world, np.zeros((1, 6)))
    columns = {
        "own_count": [0.0, 0.5, 0.5, 0.0, 0.9, 0.0],
        "own_recency": [0.0, 0.2, 0.8, 0.0, 0.1, 0.0],
        "popularity": [0.3, 0.9, 0.1, 0.7, 0.0, 0.5],
    }
    for name, values in columns.items():
        told[0, :, names.index(name)] = values
    slate = make_agent("frequency", world).act({"candidates": told}, context(1, 6))
    assert slate.tolist() == [[4, 2, 1, 3, 5, 0]]
    told[0, 4, names.index("shown")] = 1.0  # whatever this trip has shown comes last
    assert make_agent("frequency", world).act({"candidates": told}, context(1, 6)).tolist() == [[2, 1, 3, 5, 0, 4]]
    told[0, :, [names.index(name) for name in ("own_count", "own_recency", "shown")]] = 0.0  # a new user
    assert make_agent("frequency", world).act({"candidates": told}, context(1, 3)).tolist() == [[1, 3, 5]]


@pytest.mark.parametrize("include_self", [True, False])
def test_item_knn_matches_dense_algebra(world: World, include_self: bool) -> None:
    agent = make_agent("item_knn", world, neighbours=300, shrinkage=2.0, include_self=include_self)
    log = world.interactions()
    w = np.zeros((world.num_users, world.num_items))
    w[log["user"], log["item"]] = np.log1p(log["count"])
    norm = np.linalg.norm(w, axis=0)
    similarity = w.T @ w / (norm[:, None] * norm + 2.0)
    np.fill_diagonal(similarity, float(include_self))
    rng = np.random.default_rng(0)
    candidates = np.stack([rng.permutation(world.num_items)[:50] for _ in range(world.num_users)])
    history = np.full((world.num_users, 50), -1)
    new_item = int(np.flatnonzero(w[7] == 0)[0])
    history[7, 0] = new_item
    w[7, new_item] = np.log1p(1)
    users = np.arange(world.num_users)
    scores = agent.model.score(*map(torch.as_tensor, (users, candidates, history))).numpy()
    np.testing.assert_allclose(scores, np.take_along_axis(w @ similarity, candidates, axis=1), rtol=1e-4, atol=1e-5)
    observations = {
        "candidates": features(world, candidates),
        "candidate_items": candidates,
        "user_id": users[:, None],
        "history": history,
    }
    slates = agent.act(observations, context(world.num_users, 10))
    assert (np.diff(np.take_along_axis(scores, slates, axis=1), axis=1) <= 0).all()


def test_item_knn_handles_unknown_users(world: World) -> None:
    agent = make_agent("item_knn", world)
    candidates = np.tile(np.arange(60), (2, 1))
    history = np.full((2, 50), -1)
    history[1, 0] = 12
    observations = {
        "candidates": features(world, candidates),
        "candidate_items": candidates,
        "user_id": np.array([[-1], [10**6]]),
        "history": history,
    }
    slates = agent.act(observations, context(2, 10))
    popular = agent.counts[:60].argsort(descending=True, stable=True)[:10]
    assert slates[0].tolist() == popular.tolist()  # nothing known of the user: what most people buy
    assert slates[1, 0] == 12


def test_greedy_orders_by_the_expected_reward(world: World) -> None:
    class Simulator:
        device = torch.device("cpu")

        @staticmethod
        def expected_reward(state: str, items: torch.Tensor) -> torch.Tensor:
            assert state == "state"
            return -(items - 7).abs().float()

    class Env:
        simulator, state = Simulator(), "state"

    candidates = np.array([[1, 6, 7, 20, 9]])
    slates = make_agent("greedy", world).act({"candidate_items": candidates}, context(1, 3), env=Env())  # type: ignore[arg-type]
    assert slates.tolist() == [[2, 1, 4]]
