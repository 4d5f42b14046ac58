"""The scorers and collaborative filters one by one: known answers, gradients, reports, and users nobody has met."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode
from torch import Tensor

from recgym.agents import ActContext, make_agent
from recgym.agents.als import ALSConfig, factorise
from recgym.agents.collaborative import measure
from recgym.agents.features.columns import initialise
from recgym.agents.features.factors import Factors
from recgym.agents.features.inputs import Batch, ScoringModel, Sizes
from recgym.agents.features.pairs import Pairs
from recgym.agents.features.slates import OBSERVED
from recgym.agents.fm import Fields
from recgym.agents.lightgcn import _adjacency
from recgym.agents.protocol import agent_class, parse_config
from recgym.agents.sasrec import SelfAttention
from recgym.agents.scorer import OneHiddenLayer
from recgym.agents.scoring import ScoringAgent
from recgym.agents.svdpp import SVDpp, SVDppConfig, learn_ratings
from recgym.agents.training import train_agent
from recgym.envs.vector import RecVectorEnv
from recgym.errors import AgentError
from recgym.registration import AGENTS
from recgym.testing.worlds import tiny_world
from recgym.worlds.world import World

SCORERS = [name for name in AGENTS.names() if issubclass(agent_class(name), ScoringAgent)]
FILTERS = ["content", "user_knn", "item_knn", "als", "bpr", "svdpp", "lightgcn"]
SHORT = {"num_envs": 16, "epochs": 2, "total_steps": 160}


def trained(name: str, world: World, seed: int = 0, **settings: Any) -> ScoringAgent:
    cls = agent_class(name)
    agent = cls(world, parse_config(cls, {**SHORT, **settings}), seed)
    env = RecVectorEnv(world, "default", 16, observation=agent.observes, autoreset_mode=AutoresetMode.SAME_STEP)
    agent.train(env, 160)
    assert isinstance(agent, ScoringAgent)
    return agent


def batch(sizes: Sizes, lanes: int = 6, items: int = 4, seed: int = 0) -> Batch:
    g = torch.Generator().manual_seed(seed)
    return Batch(
        user_id=torch.randint(-1, sizes.num_users, (lanes,), generator=g),
        user=torch.randn(lanes, sizes.user, generator=g),
        history=torch.randint(-1, sizes.num_items, (lanes, 5), generator=g).sort(1, descending=True).values,
        item_id=torch.randint(0, sizes.num_items, (lanes, items), generator=g),
        item=torch.randn(lanes, items, sizes.item, generator=g),
        context=torch.randn(lanes, items, sizes.context, generator=g),
    )


def model(name: str, sizes: Sizes) -> ScoringModel:
    cls = agent_class(name)
    assert issubclass(cls, ScoringAgent)
    made = ScoringModel(cls.network(sizes, cls.Config()), sizes)
    initialise(made, torch.Generator().manual_seed(1))
    return made


TEXTS = torch.randn(9, 4, generator=torch.Generator().manual_seed(0))
SIZES = Sizes(num_users=7, num_items=9, user=3, item=2, context=2, texts=TEXTS)


# ---------------------------------------------------------------- networks


def test_the_closed_form_gradient_is_that_of_autograd() -> None:
    g = torch.Generator().manual_seed(0)
    layer = OneHiddenLayer(3, 4, 5).double()
    x, y, target = (torch.randn(*shape, generator=g).double() for shape in ((6, 3), (6, 2, 4), (6, 2)))
    x.requires_grad_(), y.requires_grad_()
    scores = layer(x, y)
    (scores - target).square().mean().backward()
    with torch.no_grad():
        h = (layer.u(x)[:, None] + layer.v(y)).sigmoid()
        e = 2 * (scores - target)[..., None] / target.numel()
        d = e * layer.w.line.weight[0] * h * (1 - h)  # [B, M, hidden]
        expected = {
            "w.line.weight": (e * h).sum((0, 1))[None],
            "w.line.bias": e.sum((0, 1)),
            "u.bias": d.sum((0, 1)),
            "u.weight": torch.einsum("bmh,bi->hi", d, x),
            "v.weight": torch.einsum("bmh,bmj->hj", d, y),
        }
    for name, parameter in layer.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name])
    torch.testing.assert_close(x.grad, (d @ layer.u.weight).sum(1))
    torch.testing.assert_close(y.grad, d @ layer.v.weight)


def test_pooled_interactions_are_the_sum_over_all_pairs() -> None:
    fields = Fields(SIZES, 3)
    initialise(fields, torch.Generator().manual_seed(0))
    torch.nn.init.normal_(fields.user_ids.table.weight)
    one = batch(SIZES, lanes=1, items=1)
    _, pooled = fields(one)
    vectors = [fields.user_ids(one.user_id)[0], fields.tokens.mean(one.history)[0], fields.item_ids(one.item_id)[0, 0]]
    for name in ("user", "item", "context"):
        values = getattr(one, name).reshape(-1)
        vectors += [value * column for value, column in zip(values, fields.factors[name].weight.T, strict=True)]
    expected = sum(a * b for i, a in enumerate(vectors) for b in vectors[:i])
    torch.testing.assert_close(pooled[0, 0], expected)


@pytest.mark.parametrize("name", SCORERS)
def test_networks_score_items_one_by_one_and_take_sources_of_no_width(name: str) -> None:
    made = model(name, SIZES)
    whole = batch(SIZES)
    scores = made(whole)
    assert scores.shape == (6, 4) and torch.isfinite(scores).all() and scores.std() > 0
    last = replace(whole, item_id=whole.item_id[:, 3:], item=whole.item[:, 3:], context=whole.context[:, 3:])
    torch.testing.assert_close(made(last), scores[:, 3:])  # what else is on the slate changes nothing
    bare = Sizes(7, 9, 0, 0, 0, torch.zeros(9, 0))
    assert model(name, bare)(batch(bare)).shape == (6, 4)


@pytest.mark.parametrize("name", SCORERS)
def test_every_weight_learns(name: str) -> None:
    """The numbers of every source reach the score: no part of a network is left out."""
    made = model(name, SIZES)
    for _ in range(2):  # user tables start at 0, which hides what they are multiplied with from a first gradient
        (made(batch(SIZES, lanes=64)) * torch.randn(64, 4, generator=torch.Generator().manual_seed(3))).sum().backward()
        with torch.no_grad():
            for parameter in made.parameters():
                parameter += 0.01
    silent = [key for key, value in made.named_parameters() if value.grad is None or not value.grad.any()]
    assert [key for key in silent if not key.endswith("missing")] == []


def test_attention_looks_at_the_history_in_order_and_past_padding() -> None:
    attention = SelfAttention(SIZES, 8, length=5, blocks=2, fusion="gated")
    initialise(attention, torch.Generator().manual_seed(0))
    history = torch.tensor([[1, 2, 3, -1, -1]])
    state = attention.state(history)
    assert not torch.allclose(state, attention.state(torch.tensor([[1, 3, 2, -1, -1]])))
    torch.testing.assert_close(state, attention.state(torch.tensor([[1, 2, 3]])))  # padding is nothing
    torch.testing.assert_close(
        attention.state(torch.tensor([[1, 2, 3, 4, 5, 6, 7]])), attention.state(torch.tensor([[1, 2, 3, 4, 5]]))
    )
    assert torch.isfinite(attention.state(torch.full((1, 5), -1))).all()


# ---------------------------------------------------------------- filters


def blocks() -> Pairs:
    """Two groups of ten users and six items each; everybody bought four of the own group's six items."""
    pairs = [(u, 6 * (u // 10) + i) for u in range(20) for i in range(6) if (i + u) % 6 < 4]
    users, items = torch.tensor(pairs).T
    return Pairs.of(users, items, torch.ones(len(pairs)), 20, 12)


@pytest.mark.parametrize("name", [name for name in FILTERS if name != "content"])
def test_filters_recommend_what_the_own_group_buys(name: str, world: World) -> None:
    cls = agent_class(name)
    settings = {"als": {"factors": 4}, "bpr": {"factors": 8, "iterations": 200}, "item_knn": {"shrinkage": 0.0}}
    agent = cls(world, parse_config(cls, settings.get(name, {})), seed=0)
    learned = agent.learn(blocks())  # type: ignore[attr-defined]
    everything = torch.arange(12).expand(20, -1)
    scores = learned.score(torch.arange(20), everything, torch.full((20, 1), -1))
    own = (everything // 6) == (torch.arange(20) // 10)[:, None]
    assert (scores.masked_fill(~own, torch.inf).amin(1) > scores.masked_fill(own, -torch.inf).amax(1)).all()
    stranger = learned.score(torch.tensor([-1]), everything[:1], torch.tensor([[6, 7, -1]]))
    assert stranger[0, 6:].mean() > stranger[0, :6].mean()


def test_content_follows_the_text(world: World) -> None:
    agent = make_agent("content", world)
    text = world.item_tensors["text_pca"]
    like = torch.nn.functional.normalize(text, dim=1) @ torch.nn.functional.normalize(text[17], dim=0)
    bought = Pairs.of(torch.tensor([0]), torch.tensor([17]), torch.ones(1), 2, world.num_items)
    learned = agent.learn(bought)  # type: ignore[attr-defined]
    scores = learned.score(
        torch.tensor([0, -1]), torch.arange(world.num_items).expand(2, -1), torch.tensor([[17], [17]])
    )
    torch.testing.assert_close(scores[0], like)
    assert torch.equal(scores[1].argsort(stable=True)[-20:], like.argsort(stable=True)[-20:])


def test_als_solves_its_normal_equations() -> None:
    """At convergence p_u is the weighted ridge regression of 1 on what u bought and 0 on all else."""
    config = ALSConfig(factors=3, alpha=2.0, regularization=0.5, iterations=200)
    pairs = blocks()
    factors = factorise(pairs, config, seed=0)
    q, w = factors.items, torch.from_numpy(pairs.matrix().toarray())
    for user in (0, 13):
        confidence = torch.where(w[user] > 0, config.alpha * w[user], 1.0)
        gram = q.T @ (confidence[:, None] * q) + config.regularization * torch.eye(3)
        expected = torch.linalg.solve(gram, q.T @ (confidence * (w[user] > 0)))
        torch.testing.assert_close(factors.users[user], expected, rtol=0.02, atol=0.02)


def test_adjacency_is_symmetric_and_normalised() -> None:
    pairs = Pairs.of(torch.tensor([0, 0, 1]), torch.tensor([0, 1, 1]), torch.ones(3), 2, 3)
    dense = _adjacency(pairs).to_dense()
    expected = torch.zeros(5, 5)
    for user, item, weight in ((0, 2, 2**-0.5), (0, 3, 0.5), (1, 3, 2**-0.5)):
        expected[user, item] = expected[item, user] = weight
    torch.testing.assert_close(dense, expected)


def test_svdpp_predicts_what_it_says() -> None:
    seen = Pairs.of(torch.tensor([0, 0, 1]), torch.tensor([0, 2, 1]), torch.tensor([5.0, 3.0, 1.0]), 2, 3)
    svdpp = SVDpp(seen, 2, mean=3.0)
    p, q, y = svdpp.p.weight, svdpp.q.weight, svdpp.y.weight
    vector = p[0] + (y[0] + y[2]) / 2**0.5
    expected = 3.0 + svdpp.user_bias.weight[0, 0] + svdpp.item_bias.weight[1, 0] + q[1] @ vector
    torch.testing.assert_close(svdpp(torch.tensor([0]), torch.tensor([1]))[0], expected)


def test_svdpp_finds_planted_ratings() -> None:
    g = torch.Generator().manual_seed(0)
    bias_u, bias_i = torch.randn(60, generator=g) * 0.5, torch.randn(40, generator=g) * 0.5
    users, items = torch.arange(60).repeat_interleave(40), torch.arange(40).repeat(60)
    ratings = Pairs.of(users, items, 3.0 + bias_u[users] + bias_i[items], 60, 40)
    kept, held = ratings.split(0.2, g)
    config = SVDppConfig(factors=4, bias_penalty=1e-4, factor_penalty=1e-3, rating_epochs=30, rating_batch_size=64)
    fitted = learn_ratings(kept, None, config, seed=0)
    with torch.no_grad():
        error = (fitted.model(held.users, held.items) - held.values).square().mean().sqrt()
    assert error < 0.1 < held.values.std() / 4


def test_measures_of_filters_are_of_what_was_held_out() -> None:
    users, items = torch.tensor([0, 0, 1]), torch.tensor([0, 1, 2])
    kept = Pairs.of(users[:1], items[:1], torch.ones(1), 2, 4)
    held = Pairs.of(users[1:], items[1:], torch.ones(2), 2, 4)
    best = Factors(
        torch.eye(2), torch.tensor([[9.0, 0], [2, 0], [0, 1], [1, 0]]), torch.zeros(4), torch.eye(2), torch.ones(())
    )
    assert measure(best, kept, held, seed=0) == {
        "auc": 1.0,
        "ndcg@10": 1.0,
        "num_users": 2,
    }  # what is known is left out


# ---------------------------------------------------------------- agents


@pytest.mark.parametrize("name", ["scorer", "sasrec"])
def test_reports_of_a_rating_world(name: str, tmp_path: Path) -> None:
    world = tiny_world(tmp_path / "rated", kind="rating", num_items=200, num_users=20)
    report = trained(name, world).report()
    assert 0 <= report["auc"] <= 1 and 0 <= report["ndcg@10"] <= 1
    assert 0 < report["mae"] <= report["rmse"] < 4 and report["num_ratings"] > 0
    assert report["importance"]


def test_svdpp_reports_rating_errors(tmp_path: Path) -> None:
    world = tiny_world(tmp_path / "rated", kind="rating", num_items=100, num_users=20)
    report = make_agent("svdpp", world, epochs=1, rating_epochs=2).report()
    assert 0 < report["mae"] <= report["rmse"] < 4 and report["num_ratings"] > 0


def test_the_record_of_a_run_holds_the_report(world: World, tmp_path: Path) -> None:
    agent = train_agent("multiway", world, out=tmp_path / "run", config=SHORT)
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["report"] == agent.report() and 0 <= record["report"]["auc"] <= 1


def test_a_log_without_purchases_is_refused(world: World) -> None:
    agent = trained("fm", world)
    slates = _slates(world)
    with pytest.raises(AgentError, match="'fm' cannot learn: no item shown in the log was bought"):
        agent.learn(replace(slates, consumed=torch.zeros_like(slates.consumed)))


def _slates(world: World):
    from recgym.agents.features.slates import collect

    env = RecVectorEnv(world, "default", 8, observation=OBSERVED, autoreset_mode=AutoresetMode.SAME_STEP)
    return collect(env, 64, seed=0)


@pytest.mark.parametrize("name", [*SCORERS, *FILTERS])
def test_unknown_users_and_items_get_valid_slates(name: str, world: World) -> None:
    agent = trained(name, world) if name in SCORERS else make_agent(name, world)
    env = RecVectorEnv(world, "default", 4, observation=OBSERVED)
    observations, _ = env.reset(seed=0)
    strange = {**observations, "user_id": np.array([[-1], [10**6], [40], [0]])}
    strange["history"] = np.full_like(observations["history"], -1)
    slates = agent.act(strange, ActContext(np.arange(4), np.zeros(4, np.int64), 10))
    assert slates.shape == (4, 10) and (np.diff(np.sort(slates)) > 0).all()


@pytest.mark.parametrize("name", ["fm", "two_tower"])
def test_users_of_another_world_are_unknown_ones(name: str, world: World, tmp_path: Path) -> None:
    agent = trained(name, world, id_dropout=0.0)
    path = agent.save(tmp_path / "run")
    other = tiny_world(tmp_path / "other", num_items=300, num_users=25)
    loaded = agent_class(name).load(path, other)
    assert isinstance(loaded, ScoringAgent)
    again = agent_class(name).load(loaded.save(tmp_path / "again"), world)  # saved elsewhere, it still knows its users
    assert isinstance(again, ScoringAgent)
    observations, _ = RecVectorEnv(other, "default", 8, observation=OBSERVED).reset(seed=0)
    seen = [torch.as_tensor(observations[key]) for key in OBSERVED]
    assert (loaded._batch(*seen).user_id == -1).all()
    assert torch.equal(agent._batch(*seen).user_id, again._batch(*seen).user_id)
    assert not (again._batch(*seen).user_id == -1).any()


def test_global_generators_are_left_alone(world: World) -> None:
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()  # noqa: NPY002
    for name in SCORERS:
        trained(name, world)
    assert random.getstate() == before[0]
    assert np.random.get_state()[1].tolist() == before[1]  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), before[2])


@pytest.mark.parametrize("name", SCORERS)
def test_trained_twice_with_one_seed_is_the_same(name: str, world: World) -> None:
    def weights(seed: int) -> list[Tensor]:
        return list(trained(name, world, seed).tensors().values())

    first, second, other = weights(0), weights(0), weights(1)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert any(not torch.equal(a, b) for a, b in zip(first, other, strict=True))
