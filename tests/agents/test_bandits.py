"""The bandits against closed forms, and learning that does not depend on how lanes are batched."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode
from safetensors.torch import load_file

from recgym.agents import ActContext, Agent, make_agent
from recgym.agents.exploration import slot_propensities
from recgym.agents.online import Transitions, learn_online
from recgym.agents.ridge import Ridge
from recgym.agents.thompson import LaplacePosterior, ThompsonAgent
from recgym.envs.features import CANDIDATE_FEATURES
from recgym.envs.vector import RecVectorEnv
from recgym.errors import AgentError
from recgym.scenario import load_scenario
from recgym.worlds.world import World

ONLINE = ["epsilon_greedy", "linucb", "thompson"]
LANES, M, K = 40, 30, 5


def observations(world: World, seed: int = 0, lanes: int = LANES) -> dict[str, np.ndarray]:
    features = np.random.default_rng(seed).uniform(-1, 1, (lanes, M, len(CANDIDATE_FEATURES(world))))
    features[..., -1] = 0.0  # nothing was shown yet
    return {"candidates": features.astype(np.float32)}


def transitions(world: World, seed: int = 0, examined: bool = False) -> Transitions:
    rng = np.random.default_rng(seed + 100)
    consumed = rng.random((LANES, K)) < 0.3
    return Transitions(
        observations=observations(world, seed),
        slates=np.stack([rng.permutation(M)[:K] for _ in range(LANES)]),
        consumed=consumed,
        rewards=consumed.sum(1).astype(np.float32),
        ended=np.zeros(LANES, bool),
        examined=consumed | (rng.random((LANES, K)) < 0.5) if examined else None,
    )


def context(learning: bool, lanes: int = LANES, step: int = 0) -> ActContext:
    return ActContext(np.arange(lanes) + 7, np.full(lanes, step), K, learning=learning)


def design(told: Transitions) -> tuple[np.ndarray, np.ndarray]:
    """All contexts [n K, d] with a 1, and rewards [n K]."""
    features = told.observations["candidates"].astype(np.float64)
    shown = np.take_along_axis(features, told.slates[..., None], axis=1).reshape(-1, features.shape[-1])
    return np.hstack([shown, np.ones((len(shown), 1))]), told.consumed.reshape(-1).astype(np.float64)


@pytest.mark.parametrize("name", ["epsilon_greedy", "linucb"])
def test_the_estimate_is_the_ridge_solution_of_everything_seen(world: World, name: str) -> None:
    agent = make_agent(name, world, l2=2.0)
    parts = [transitions(world, seed) for seed in range(3)]
    for part in parts:
        agent.update(part)
    x, y = (np.concatenate(columns) for columns in zip(*map(design, parts), strict=True))
    gram = x.T @ x + 2.0 * np.eye(x.shape[1])
    theta = np.linalg.solve(gram, x.T @ y)
    np.testing.assert_allclose(agent.ridge.theta.numpy(), theta, rtol=0, atol=1e-10)
    some = torch.from_numpy(x[:12]).view(3, 4, -1)
    width = np.sqrt(np.einsum("ni,ij,nj->n", x[:12], np.linalg.inv(gram), x[:12])).reshape(3, 4)
    np.testing.assert_allclose(agent.ridge.deviation(some).numpy(), width, rtol=0, atol=1e-10)


def test_linucb_ranks_by_the_bound_while_learning_and_by_the_mean_otherwise(world: World) -> None:
    agent = make_agent("linucb", world, alpha=2.0)
    agent.update(transitions(world))
    seen = observations(world, 9)
    x = torch.from_numpy(np.concatenate([seen["candidates"], np.ones((LANES, M, 1), np.float32)], axis=2)).double()
    mean, width = agent.ridge.mean(x), agent.ridge.deviation(x)
    for learning, score in ((True, mean + 2.0 * width), (False, mean)):
        best = score.argsort(dim=1, descending=True)[:, :K].numpy()
        np.testing.assert_array_equal(agent.act(seen, context(learning)), best)


def test_only_what_was_examined_counts_where_the_platform_tells(world: World) -> None:
    told = transitions(world, examined=True)
    agent = make_agent("linucb", world)
    agent.update(told)
    x, y = design(told)
    looked = told.examined.reshape(-1)
    assert 0 < looked.sum() < len(looked)
    expected = Ridge(x.shape[1], 1.0)
    expected.update(torch.from_numpy(x[looked]), torch.from_numpy(y[looked]))
    torch.testing.assert_close(agent.ridge.theta, expected.theta, rtol=0, atol=1e-12)


def test_what_the_trip_has_shown_comes_last(world: World) -> None:
    seen = observations(world)
    seen["candidates"][:, : M - K, -1] = 1.0
    for name in ONLINE:
        slates = make_agent(name, world).act(seen, context(learning=False))
        assert (np.sort(slates, axis=1) == np.arange(M - K, M)).all()


def test_epsilon_greedy_explores_as_often_as_it_says(world: World) -> None:
    lanes = 4000
    agent = make_agent("epsilon_greedy", world, epsilon=0.2)
    agent.update(transitions(world))
    seen = {"candidates": np.repeat(observations(world, lanes=1)["candidates"], lanes, axis=0)}
    best = agent.act(seen, context(learning=False, lanes=lanes))
    slates = agent.act(seen, context(learning=True, lanes=lanes))
    first = (slates[:, 0] == best[:, 0]).mean()
    assert first == pytest.approx(0.8 + 0.2 / M, abs=4 * np.sqrt(0.2 * 0.8 / lanes))
    chances = agent.propensities(seen, context(learning=True, lanes=lanes), slates)
    assert chances[:, 0].min() == pytest.approx(0.2 / M) and chances[:, 0].max() == pytest.approx(0.8 + 0.2 / M)
    ranking = agent.act(seen, dataclasses.replace(context(learning=False, lanes=lanes), slate_size=M))
    np.testing.assert_array_equal(chances, slot_propensities(ranking, slates, 0.2))
    assert (agent.propensities(seen, context(learning=False, lanes=lanes), best) == 1).all()


def test_linear_thompson_draws_from_its_posterior(world: World) -> None:
    agent = make_agent("thompson", world, likelihood="linear", scale=0.5)
    assert isinstance(agent, ThompsonAgent)
    told = transitions(world)
    agent.update(told)
    x, y = design(told)
    gram = x.T @ x + np.eye(x.shape[1])
    mean, covariance = np.linalg.solve(gram, x.T @ y), 0.25 * np.linalg.inv(gram)
    draws = agent.draw(context(learning=True, lanes=40_000)).numpy()
    spread = np.sqrt(np.diag(covariance))
    assert (np.abs(draws.mean(0) - mean) < 5 * spread / 200).all()
    correlation = np.cov(draws.T) / np.outer(spread, spread)
    assert np.abs(correlation - covariance / np.outer(spread, spread)).max() < 0.03
    np.testing.assert_allclose(agent.draw(context(learning=False))[0].numpy(), mean, atol=1e-12)


def test_the_laplace_posterior_has_the_mode_and_the_curvature_there() -> None:
    rng = np.random.default_rng(3)
    x, w = rng.normal(size=(500, 3)), np.array([1.5, -2.0, 0.3])
    y = (rng.random(500) < 1 / (1 + np.exp(-x @ w))).astype(np.float64)
    posterior = LaplacePosterior(3, 0.7, diagonal=False)
    posterior.update(torch.from_numpy(x), torch.from_numpy(y))
    mode = posterior.mean.numpy()
    p = 1 / (1 + np.exp(-x @ mode))
    assert np.abs(0.7 * mode + x.T @ (p - y)).max() < 1e-8  # the gradient vanishes
    precision = 0.7 * np.eye(3) + (x * (p * (1 - p))[:, None]).T @ x
    np.testing.assert_allclose(posterior.precision.numpy(), precision, rtol=1e-9)
    assert np.abs(mode - w).max() < 0.6
    diagonal = LaplacePosterior(3, 0.7, diagonal=True)
    diagonal.update(torch.from_numpy(x), torch.from_numpy(y))
    np.testing.assert_allclose(diagonal.precision.numpy(), np.diag(np.diag(precision)), rtol=1e-9)


def test_a_one_dimensional_posterior_is_the_exact_one() -> None:
    """Against the posterior on a grid, after three batches: the approximation is of each batch, so it is only close."""
    rng = np.random.default_rng(5)
    posterior, grid = LaplacePosterior(1, 1.0, diagonal=True), np.linspace(-4, 4, 8001)
    log_density = -0.5 * grid**2
    for _ in range(3):
        x = rng.normal(size=200)
        y = (rng.random(200) < 1 / (1 + np.exp(-0.8 * x))).astype(np.float64)
        posterior.update(torch.from_numpy(x)[:, None], torch.from_numpy(y))
        log_density -= np.logaddexp(0, -np.outer(grid, x * (2 * y - 1))).sum(1)
    density = np.exp(log_density - log_density.max())
    density /= density.sum()
    mean = float(density @ grid)
    deviation = float(np.sqrt(density @ (grid - mean) ** 2))
    assert float(posterior.mean) == pytest.approx(mean, abs=0.1 * deviation)
    assert float(posterior.precision) ** -0.5 == pytest.approx(deviation, rel=0.05)


def environment(world: World, agent: Agent, lanes: int = 6, examined: bool = False) -> RecVectorEnv:
    scenario = load_scenario("default", {"observation.examined": examined})
    mode = AutoresetMode.SAME_STEP
    return RecVectorEnv(world=world, scenario=scenario, num_envs=lanes, observation=agent.observes, autoreset_mode=mode)


@pytest.mark.parametrize("examined", [False, True])
def test_the_loop_tells_what_happened(world: World, examined: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    agent = make_agent("epsilon_greedy", world, segment_steps=5)
    told: list[Transitions] = []
    monkeypatch.setattr(agent, "update", told.append)
    learn_online(agent, environment(world, agent, examined=examined), 60)
    assert len(told) == 10
    for one in told:
        assert one.observations["candidates"].shape[0] == 6 and one.slates.shape == one.consumed.shape == (6, 10)
        np.testing.assert_array_equal(one.rewards, one.consumed.sum(1))
        np.testing.assert_allclose(one.credits(), np.where(one.consumed.any(1)[:, None], one.consumed, 0.0))
        assert one.propensities is not None and (one.propensities > 0).all()
        assert (one.examined is not None) == examined
        if one.examined is not None:
            assert (one.examined | ~one.consumed).all() and not one.examined.all()
    assert any(one.ended.any() for one in told)


@pytest.mark.parametrize("name", ONLINE)
def test_interrupted_and_resumed_is_the_same_as_in_one_go(world: World, tmp_path: Path, name: str) -> None:
    def fresh() -> Agent:
        return make_agent(name, world, num_envs=6, segment_steps=3)

    def stop(done: int) -> None:
        if done >= 48:
            raise KeyboardInterrupt

    whole, cut = fresh(), fresh()
    whole.train(environment(world, whole), 72)
    with pytest.raises(KeyboardInterrupt):
        cut.train(environment(world, cut), 72, directory=tmp_path, progress=stop)
    assert int(load_file(tmp_path / "checkpoint.safetensors")["slates_shown"]) == 36
    resumed, seen = fresh(), []
    resumed.train(environment(world, resumed), 72, directory=tmp_path, resume=True, progress=seen.append)
    assert seen == [42, 48, 54, 60, 66, 72]
    assert all(torch.equal(tensor, resumed.tensors()[key]) for key, tensor in whole.tensors().items())


@pytest.mark.parametrize("name", ONLINE)
def test_a_clone_learns_on_its_own(world: World, name: str) -> None:
    agent = make_agent(name, world)
    agent.update(transitions(world))
    before = {key: tensor.clone() for key, tensor in agent.tensors().items()}
    copy = agent.clone()
    assert all(torch.equal(tensor, before[key]) for key, tensor in copy.tensors().items())
    copy.update(transitions(world, 1))
    assert all(torch.equal(tensor, before[key]) for key, tensor in agent.tensors().items())
    assert not all(torch.equal(tensor, before[key]) for key, tensor in copy.tensors().items())


@pytest.mark.parametrize("name", ONLINE)
def test_draws_are_keyed_by_lane_and_step(world: World, name: str) -> None:
    agent = make_agent(name, world, **({"epsilon": 0.5} if name == "epsilon_greedy" else {}))
    agent.update(transitions(world))
    seen = observations(world, 5)
    whole = agent.act(seen, context(learning=True))
    part = ActContext(np.arange(LANES)[10:13] + 7, np.zeros(3, np.int64), K, learning=True)
    np.testing.assert_array_equal(agent.act({"candidates": seen["candidates"][10:13]}, part), whole[10:13])
    if name != "linucb":
        assert not np.array_equal(agent.act(seen, context(learning=True, step=1)), whole)


def test_others_do_not_learn_online(world: World) -> None:
    with pytest.raises(AgentError, match="'popularity' does not learn online"):
        make_agent("popularity", world).update(transitions(world))
