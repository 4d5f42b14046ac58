"""Reinforcement learning agents against answers that can be worked out: losses, factors, decompositions, neighbours."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sb3_contrib.common.utils import quantile_huber_loss

from recgym.agents import ActContext
from recgym.agents.dqn import DQNAgent, DQNConfig
from recgym.agents.hac import affinity, inverse
from recgym.agents.maskable_ppo import MaskedVecEnv
from recgym.agents.ppo import PPOAgent, PPOConfig
from recgym.agents.protocol import agent_class, parse_config
from recgym.agents.qrdqn import QRDQNAgent, QRDQNConfig
from recgym.agents.reinforce import ReinforceAgent, top_k_factor
from recgym.agents.reinforce import _Trainer as ReinforceTrainer
from recgym.agents.replay import Replay
from recgym.agents.sac import RankActor, RankCritics, hard_top, soft_top
from recgym.agents.sb3 import ItemValues, LaneByLane
from recgym.agents.slateq import item_targets, slate_value
from recgym.agents.training import training_env
from recgym.agents.wolpertinger import nearest, refined
from recgym.envs.actions import squared_distances
from recgym.scenario import load_scenario
from recgym.worlds.world import World


def test_ppo_looks_over_all_visits_where_an_episode_holds_several(world: World) -> None:
    agent = PPOAgent(world, PPOConfig(num_envs=4, num_steps=4, batch_size=8, calibration_steps=2))
    discounts = {}
    for kind in ("session", "horizon"):
        env = training_env(agent, world, load_scenario("default", {"episode.kind": kind}))
        discounts[kind] = agent.make(agent.wrap(env)).gamma
    assert discounts == {"session": 0.0, "horizon": 1.0}
    rewards = torch.tensor([[1.0, 3.0, 5.0], [2.0, 2.0, 2.0]])  # returns 2, 4 and 6 with a discount of a half
    assert agent.reward_scale(rewards, 0.5) == pytest.approx(1 / 2)
    assert agent.reward_scale(torch.zeros(2, 3), 0.5) == pytest.approx(1e3)  # nobody bought anything


def test_top_k_factor() -> None:
    p = torch.tensor([0.0, 0.1, 0.5, 1.0])
    torch.testing.assert_close(top_k_factor(p, 3), torch.tensor([3.0, 3 * 0.81, 0.75, 0.0]))
    torch.testing.assert_close(top_k_factor(p, 1), torch.ones(4))  # a slate of one: the usual gradient
    leaf = p.clone().requires_grad_()
    (1.0 - (1.0 - leaf) ** 3).sum().backward()  # the chance of being among three draws
    torch.testing.assert_close(leaf.grad, top_k_factor(p, 3))


def test_reinforce_follows_the_corrected_gradient(world: World) -> None:
    agent = ReinforceAgent(world, parse_config(ReinforceAgent, {"batch_size": 2, "entropy_coef": 0.0, "gamma": 0.5}))
    trainer = ReinforceTrainer(agent, slate_size=2)
    user, candidates = torch.rand(1, len(agent.network.user_norm.mean)), torch.rand(1, 5, len(agent.network.direct))
    slate, log_beta = torch.tensor([[3, 1]]), torch.tensor([[-1.0, -4.0]])
    row = {"slate": slate, "log_beta": log_beta, "reward": torch.ones(1), "own": torch.tensor([[1.0, 0.0]])}
    ends = torch.tensor([True]), torch.tensor([False])
    trainer.replay.add(user, candidates, *ends, row)
    before = agent.network(user.half().float(), candidates.half().float()).log_softmax(1).detach()
    p = float(before[0, 3].exp())
    told = trainer.update(torch.Generator().manual_seed(0))
    weight = min(p / np.exp(-1.0), agent.config.weight_cap) * 2 * (1 - p)
    assert told["loss"] == pytest.approx(-weight * 1.0 * float(before[0, 3]), rel=1e-4)
    after = agent.network(user, candidates).log_softmax(1)
    assert float(after.detach()[0, 3]) > float(before[0, 3])  # what was bought became likelier


def test_later_rewards_are_those_of_the_same_episode() -> None:
    replay = Replay(capacity=8)
    blank = torch.zeros(2, 1), torch.zeros(2, 1, 1)
    none = torch.zeros(2, dtype=torch.bool)
    for reward, terminated in ((1.0, none), (2.0, torch.tensor([True, False])), (4.0, none), (8.0, none)):
        replay.add(*blank, terminated, none, {"reward": torch.full((2,), reward)})
    later = replay.later(0.5)
    torch.testing.assert_close(later[:, 0], torch.tensor([2.0, 0.0, 8.0, 0.0]))
    torch.testing.assert_close(later[:, 1], torch.tensor([2.0 + 0.5 * (4.0 + 0.5 * 8.0), 4.0 + 0.5 * 8.0, 8.0, 0.0]))


def test_replay_draws_only_what_has_a_successor() -> None:
    replay = Replay(capacity=12)
    for step in range(9):
        seen = torch.full((3, 2), step / 16.0)
        ended = torch.tensor([step == 4, False, False]), torch.tensor([False, step == 4, False])
        replay.add(seen, seen[:, :, None].expand(3, 2, 2), *ended, {"step": torch.full((3,), step)})
        if step == 6:
            replay.cut()
    batch = replay.sample(500, torch.Generator().manual_seed(0))
    step, ended = batch.more["step"], batch.terminated.bool()
    assert set(step.tolist()) == {5, 7}  # four rows are kept: 5 to 8; 6 is cut off, and 8 is the newest
    assert not ended.any()
    torch.testing.assert_close(batch.user[:, 0] * 16, step.float())
    torch.testing.assert_close(batch.next_user[:, 0] * 16, step + 1.0)
    assert len(replay) == 6
    again = Replay(capacity=12)
    again.restore(replay.tensors())
    drawn = again.sample(500, torch.Generator().manual_seed(0))
    assert torch.equal(drawn.candidates, batch.candidates)


def test_replay_keeps_ends_without_successors_but_not_cuts() -> None:
    replay = Replay(capacity=8)
    seen = torch.zeros(2, 1), torch.zeros(2, 1, 1)
    replay.add(*seen, torch.tensor([True, False]), torch.tensor([False, True]), {})
    assert replay.usable[0].tolist() == [True, False]


def test_slateq_solves_a_two_item_world() -> None:
    """Two states, two items, slates of one: the decomposition's fixed point is the solution of the Bellman equation.

    Item i is consumed with chance c[s, i] and pays pay[i]; consuming moves to state 1, declining to state 0.
    """
    c, pay, gamma = torch.tensor([[0.9, 0.3], [0.2, 0.6]]), torch.tensor([1.0, 2.0]), 0.8
    v = torch.zeros(2)
    for _ in range(500):  # value iteration on slates
        q = c * (pay + gamma * v[1]) + (1 - c) * gamma * v[0]
        v = q.max(1).values
    items, nothing = torch.zeros(2, 2), torch.zeros(2)
    for _ in range(500):  # item-wise, by the agent's own targets
        values = slate_value(c.reshape(-1, 1), items.reshape(-1, 1), nothing.repeat_interleave(2)).reshape(2, 2)
        best = values.max(1).values
        consumed, declined = torch.ones(2, 1, dtype=torch.bool), torch.zeros(2, 1, dtype=torch.bool)
        taken = [item_targets(pay[:, None], consumed, gamma * best[1].expand(2), left.expand(2))[0] for left in nothing]
        _, left = item_targets(torch.zeros(2, 1), declined, gamma * best[0].expand(2), nothing)
        items, nothing = torch.stack(taken)[..., 0], left
    torch.testing.assert_close(values, q, rtol=1e-5, atol=1e-5)


def test_slateq_ranks_by_what_an_item_adds_to_what_follows_anyway(world: World) -> None:
    agent = agent_class("slateq")(world)
    likely, unlikely, harmful = 2.0, -2.0, 3.0  # logits of being consumed
    logits = torch.tensor([[likely, unlikely, harmful]])
    above = torch.tensor([[0.1, 5.0, -1.0]])  # what lies above the 40 that follow where nothing is consumed
    agent.network = lambda user, candidates: (logits, above, torch.tensor([40.0]))
    scores = agent.scores(torch.zeros(1, 1), torch.zeros(1, 3, 1))
    torch.testing.assert_close(scores, logits.sigmoid() * above)
    assert scores.argsort(descending=True).tolist() == [[1, 0, 2]]


def test_slateq_targets_sum_to_the_slates_return() -> None:
    own = torch.tensor([[1.0, 0.0, 2.0], [0.0, 0.0, 0.0]])
    consumed = torch.tensor([[True, False, True], [False, False, False]])
    after = torch.tensor([5.0, 7.0])
    estimate = torch.tensor([4.0, 100.0])
    items, nothing = item_targets(own, consumed, after, estimate)
    total = torch.where(consumed, items, 0.0).sum(1) + torch.where(consumed.any(1), estimate, nothing)
    torch.testing.assert_close(total, own.sum(1) + after)
    chance, above = torch.tensor([[0.5, 0.2]]), torch.tensor([[2.0, 10.0]])
    torch.testing.assert_close(slate_value(chance, above, torch.tensor([3.0])), torch.tensor([3.0 + 1.0 + 2.0]))


def test_quantile_huber_loss_of_one_pair() -> None:
    """rho(u) = |tau - 1{u < 0}| huber(u), summed over quantiles and averaged over targets."""
    current, target = torch.tensor([[0.0, 3.0]]), torch.tensor([[0.5, 1.0]])
    expected = 0.0
    for tau, theta in ((0.25, 0.0), (0.75, 3.0)):
        for value in (0.5, 1.0):
            u = value - theta
            huber = 0.5 * u * u if abs(u) <= 1 else abs(u) - 0.5
            expected += abs(tau - (u < 0)) * huber / 2
    assert float(quantile_huber_loss(current, target)) == pytest.approx(expected)


def test_quantiles_come_as_the_algorithm_takes_them_and_their_mean_ranks(world: World) -> None:
    agent = QRDQNAgent(world, QRDQNConfig(num_quantiles=4))
    user, candidates = torch.rand(3, len(agent.network.user_norm.mean)), torch.rand(3, 7, agent.network.direct.shape[1])
    with torch.no_grad():
        agent.network.direct.normal_(generator=torch.Generator().manual_seed(0))
        quantiles = ItemValues(agent.network)({"user": user, "candidates": candidates})
        assert quantiles.shape == (3, 4, 7)
        torch.testing.assert_close(quantiles.mean(1), agent.scores(user, candidates))
        best = ItemValues(agent.network)._predict({"user": user, "candidates": candidates})
    assert best.tolist() == agent.scores(user, candidates).argmax(1).tolist()


def test_lanes_explore_each_by_itself() -> None:
    class Best:
        @staticmethod
        def predict(observations: Any, deterministic: bool) -> tuple[np.ndarray, None]:
            return np.full(2000, 7), None

    one = LaneByLane()
    one.policy, one._last_obs, one.exploration_rate = Best(), {"candidates": np.zeros((2000, 100, 1))}, 0.25
    with torch.random.fork_rng():
        torch.manual_seed(0)
        actions, kept = one._sample_action(0, n_envs=2000)
    assert np.array_equal(actions, kept)
    assert abs((actions != 7).mean() - 0.25 * 0.99) < 0.03
    assert len(set(actions.tolist())) > 90


def test_item_agents_are_deaf_to_what_grows_with_slates(world: World) -> None:
    from recgym.envs.features import USER_FEATURES

    agent = DQNAgent(world, DQNConfig(num_envs=4, num_steps=2, num_updates=1, batch_size=8, calibration_steps=2))
    agent.train(training_env(agent, world, load_scenario("default")), 8)
    heard = agent.network.user_norm.scale != 0
    names = np.array(USER_FEATURES(world))
    assert {"step", "bought", "last_hits"} <= set(names[~heard.numpy()])
    assert {"num_trips", "days_since_visit"} <= set(names[heard.numpy()])


def test_what_the_trip_has_shown_comes_last(world: World) -> None:
    agent = DQNAgent(world)
    width = agent.network.direct.shape[0]
    candidates = torch.zeros(1, 4, width)
    candidates[0, 2, agent._shown] = 1.0
    scores = torch.tensor([[1.0, 3.0, 9.0, 2.0]])
    assert agent.shown_last(scores, candidates).argsort(descending=True).tolist() == [[1, 3, 0, 2]]
    assert agent_class("ppo")(world).shown_last(scores, candidates) is scores


def test_wolpertinger_finds_the_nearest_and_ranks_them_by_value() -> None:
    candidates = torch.tensor([[[0.0, 0.0], [1.0, 1.0], [0.9, 1.0], [-1.0, 0.0]]])
    assert nearest(torch.tensor([[1.0, 1.0]]), candidates, 3).tolist() == [[1, 2, 0]]
    distances = squared_distances(torch.tensor([[1.0, 1.0]]), candidates)
    values = torch.tensor([[9.0, 1.0, 2.0, 8.0]])
    for neighbours, order in ((2, [2, 1, 0, 3]), (3, [0, 2, 1, 3]), (4, [0, 3, 2, 1]), (1, [1, 2, 0, 3])):
        assert refined(values, distances, neighbours).argsort(descending=True).tolist() == [order]


def test_hac_inverts_slates() -> None:
    places = torch.tensor([[[1.0, 0.0], [0.0, 2.0], [4.0, 4.0]]])
    torch.testing.assert_close(inverse(places, torch.tensor([[0, 2]])), torch.tensor([[2.5, 2.0]]))
    torch.testing.assert_close(inverse(places, torch.tensor([[1, 1]])), places[:, 1])
    torch.testing.assert_close(affinity(places, torch.tensor([[1.0, -1.0]])), torch.tensor([[1.0, -2.0, 0.0]]))


def test_sac_density_and_soft_slates() -> None:
    scores = torch.tensor([[0.9, -0.9, 0.5, 0.1]])
    shown = soft_top(scores, 2)
    assert (shown[0, [0, 2]] > 0.6).all() and (shown[0, [1, 3]] < 0.4).all()
    assert float(shown.sum()) == pytest.approx(2.0)
    assert hard_top(scores, 2).tolist() == [[1.0, 0.0, 1.0, 0.0]]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        actor = RankActor(2, 3, 4, "scores", outputs=2)
        seen = {"user": torch.rand(5, 2), "candidates": torch.rand(5, 6, 3)}
        torch.manual_seed(1)
        actions, log_prob = actor.action_log_prob(seen)
    mean, log_deviation = actor.parameters_of(seen)
    normal = torch.distributions.Normal(mean, log_deviation.exp())
    squashed = torch.distributions.TransformedDistribution(normal, torch.distributions.TanhTransform(cache_size=1))
    torch.testing.assert_close(log_prob, squashed.log_prob(actions).sum(1), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("actions", ["scores", "weights"])
def test_sacs_critics_value_what_is_shown_whatever_the_scale_of_an_action(actions: str) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        critics = RankCritics(2, 3, 4, slate_size=2, actions=actions, before=2)
        seen = {"user": torch.rand(5, 2), "candidates": torch.rand(5, 6, 3).round(decimals=1)}
        action = torch.rand(5, 6 if actions == "scores" else 3)
    seen["candidates"][:, :, 2] = 0.0
    seen["candidates"][:, 0, 2] = 1.0  # the first one was shown before
    ranked = action if actions == "scores" else (seen["candidates"] * action[:, None]).sum(-1)
    ranked = ranked.clone()
    ranked[:, 0] = -torch.inf
    item, state = critics.items[0], critics.states[0]
    values = item(seen["user"], seen["candidates"]).gather(1, ranked.topk(2).indices)  # type: ignore[operator]
    expected = state(seen["user"], seen["candidates"]) + values.sum(1, keepdim=True)  # type: ignore[operator]
    torch.testing.assert_close(critics(seen, action)[0], expected)
    torch.testing.assert_close(critics(seen, 0.1 * action)[0], expected)
    soft = critics(seen, action.clone().requires_grad_())[0]
    torch.testing.assert_close(critics(seen, (0.1 * action).requires_grad_())[0], soft)
    soft.sum().backward()
    assert all(parameter.grad is None for parameter in critics.parameters())  # the actor moves, and nothing else


def test_masks_are_what_the_trip_has_not_shown(world: World) -> None:
    agent = agent_class("maskable_ppo")(world, parse_config(agent_class("maskable_ppo"), {"num_envs": 3}))
    env = training_env(agent, world, load_scenario("default"))
    venv = MaskedVecEnv(env, agent.view(env))
    venv.seed(0)
    observations: Any = venv.reset()
    assert venv.action_masks().all() and np.stack(venv.env_method("action_masks")).shape == (3, 100)
    for _ in range(3):
        observations, *_ = venv.step(np.array([5, 6, 7]))
    shown = observations["candidates"][:, :, agent._shown] > 0
    assert np.array_equal(np.stack(venv.env_method("action_masks")), ~shown)
    venv.last_seen = {"candidates": np.ones_like(observations["candidates"])}
    assert venv.action_masks().all()  # where nothing is left, anything goes
    venv.close()


@pytest.mark.parametrize("name", ["ppo", "sac"])
@pytest.mark.parametrize("actions", ["scores", "weights"])
def test_actions_are_a_setting(world: World, name: str, actions: str) -> None:
    cls = agent_class(name)
    small = {"num_envs": 4, "num_steps": 4, "batch_size": 8, "calibration_steps": 2, "checkpoint_rollouts": 1}
    agent = cls(world, parse_config(cls, {**small, "actions": actions}), 3)
    assert agent.action_mode == actions
    env = training_env(agent, world, load_scenario("default"))
    agent.train(env, 32)
    observations, _ = env.reset(seed=0)
    slates = agent.act(observations, ActContext(np.arange(4), np.zeros(4, dtype=np.int64), 10))
    assert (np.diff(np.sort(slates, axis=1), axis=1) > 0).all()
    again = cls(world, agent.config, 3)
    again.train(training_env(again, world, load_scenario("default")), 32)
    for key, tensor in agent.tensors().items():
        assert torch.equal(tensor, again.tensors()[key])
