"""The logs, columns and measures that agents share, against answers worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode

from recgym.agents.features.columns import Fusion, Ids, Numeric, initialise
from recgym.agents.features.factors import Factors, Profiles
from recgym.agents.features.inputs import Batch, ScoringModel, Sizes, Weights
from recgym.agents.features.learning import Examples, Schedule, importance, learn
from recgym.agents.features.measures import auc, errors, ndcg
from recgym.agents.features.pairs import Pairs, purchases_of_slates, purchases_of_world, ratings_of_world
from recgym.agents.features.slates import OBSERVED, Slates, collect, split_lanes
from recgym.envs.vector import RecVectorEnv
from recgym.errors import AgentError
from recgym.testing.worlds import tiny_world
from recgym.worlds.world import World


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def rollout(world: World, lanes: int = 8, steps: int = 64, observation: tuple[str, ...] = OBSERVED) -> Slates:
    env = RecVectorEnv(world, "default", lanes, observation=observation, autoreset_mode=AutoresetMode.SAME_STEP)
    return collect(env, steps, seed=3)


# ---------------------------------------------------------------- columns


def test_numbers_are_clipped_scaled_and_filled_in() -> None:
    rows = torch.randn(5000, 3, generator=generator()) * torch.tensor([2.0, 1.0, 0.0]) + torch.tensor([5.0, 0.0, 7.0])
    rows[0, 0], rows[1, 1] = 1e6, math.nan
    numeric = Numeric(3)
    numeric.calibrate(rows)
    scaled = numeric(rows)
    assert torch.isfinite(scaled).all() and scaled.abs().max() <= 5
    assert scaled[:, :2].mean(0).abs().max() < 0.01 and (scaled[:, :2].std(0) - 1).abs().max() < 0.02
    assert (scaled[:, 2] == 0).all()  # a constant column says nothing, and nothing is divided by 0
    assert scaled[1, 1] == numeric.missing[1]
    numeric(torch.full((1, 3), math.nan)).sum().backward()
    assert (numeric.missing.grad == 1).all()  # what a missing value stands for is learned


def test_a_rare_flag_is_not_clipped_away() -> None:
    flags = torch.zeros(10_000, 1)
    flags[:3] = 1.0
    numeric = Numeric(1)
    numeric.calibrate(flags)
    assert numeric(flags)[0] > numeric(flags)[-1] + 1


def test_unknown_ids_share_a_vector() -> None:
    ids = Ids(4, 3)
    vectors = ids(torch.tensor([-1, 4, 99, 0, 3]))
    assert torch.equal(vectors[0], vectors[1]) and torch.equal(vectors[1], vectors[2])
    assert torch.equal(vectors[3], ids.table.weight[1]) and torch.equal(vectors[4], ids.table.weight[4])


@pytest.mark.parametrize("mode", ["concat", "weighted", "gated"])
def test_fusion_brings_sources_together(mode: str) -> None:
    fusion = Fusion((2, 0, 3), 4, mode)  # type: ignore[arg-type]
    initialise(fusion, generator())
    a, nothing, b = torch.randn(5, 2), torch.zeros(5, 0), torch.randn(5, 3)
    fused = fusion((a, nothing, b))
    assert fused.shape == (5, 4)
    mapped = [each(x) for each, x in zip(fusion.maps, (a, b), strict=True)]
    if mode == "concat":
        torch.testing.assert_close(fused, mapped[0] + mapped[1])
    elif mode == "weighted":
        torch.testing.assert_close(fused, (mapped[0] + mapped[1]) / 2)
    else:
        gates = [gate(torch.cat(mapped, -1).tanh()).sigmoid() for gate in fusion.gates]
        torch.testing.assert_close(fused, gates[0] * mapped[0] + gates[1] * mapped[1])


def test_initial_weights_follow_the_generator_alone() -> None:
    models = [torch.nn.Sequential(Ids(5, 2), torch.nn.Linear(2, 3)) for _ in range(2)]
    for model in models:
        initialise(model, generator(4))
    for a, b in zip(*(model.state_dict().values() for model in models), strict=True):
        assert torch.equal(a, b)


# ---------------------------------------------------------------- measures


def test_auc_counts_pairs() -> None:
    scores, good = torch.tensor([3.0, 1.0, 2.0, 2.0]), torch.tensor([True, False, True, False])
    assert auc(scores, good) == (1 + 1 + 1 + 0.5) / 4
    assert math.isnan(auc(scores, torch.zeros(4, dtype=torch.bool)))


def test_ndcg_discounts_ranks() -> None:
    scores = torch.tensor([[3.0, 2.0, 1.0], [3.0, 2.0, 1.0], [1.0, 2.0, 3.0]])
    good = torch.tensor([[True, False, False], [False, True, False], [False, False, False]])
    assert ndcg(scores, good) == pytest.approx((1 + 1 / math.log2(3)) / 2)
    assert errors(torch.tensor([1.0, 4.0]), torch.tensor([2.0, 2.0])) == {"rmse": math.sqrt(2.5), "mae": 1.5}


class TakesContext(torch.nn.Module):
    """Scores by the first context column alone."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = Weights(2)

    def forward(self, batch: Batch) -> torch.Tensor:
        return self.weights(batch.context)


def test_importance_names_the_column_that_decides() -> None:
    context = torch.randn(200, 5, 2, generator=generator())
    empty, ids = torch.zeros(200, 0), torch.zeros(200, dtype=torch.int64)
    items = torch.zeros(200, 5, dtype=torch.int64)
    batch = Batch(ids, empty, ids[:, None], items, torch.zeros(200, 5, 0), context)
    target = (context[..., 0] > 0).float()
    examples = Examples(batch, target, torch.ones_like(target, dtype=torch.bool))
    sizes = Sizes(1, 1, 0, 0, 2, torch.zeros(1, 0))
    model = ScoringModel(TakesContext(), sizes)
    initialise(model, generator())
    schedule = Schedule(20, 20, 32, 0.05, 0.0, 0.0)
    fitted = learn(model, examples, None, "logistic", schedule, generator())
    assert fitted.epochs == 20
    lost = importance(model, examples, {"context": ["decides", "noise"]}, generator())
    assert list(lost) == ["decides", "noise"]
    assert lost["decides"] == pytest.approx(0.5, abs=0.05) and abs(lost["noise"]) < 0.02


# ---------------------------------------------------------------- logs


def test_pairs_are_sorted_and_added_up() -> None:
    pairs = Pairs.of(torch.tensor([1, 0, 1]), torch.tensor([2, 1, 2]), torch.tensor([1.0, 3.0, 4.0]), 3, 4)
    assert pairs.users.tolist() == [0, 1] and pairs.items.tolist() == [1, 2] and pairs.values.tolist() == [3.0, 5.0]
    assert pairs.offsets().tolist() == [0, 1, 2, 2]
    np.testing.assert_allclose(pairs.matrix().toarray()[1, 2], np.log1p(5.0), rtol=1e-6)
    kept, held = purchases_split()
    assert len(kept) + len(held) == 1000 and 50 < len(held) < 150


def purchases_split() -> tuple[Pairs, Pairs]:
    keys = torch.arange(1000)
    return Pairs.of(keys // 50, keys % 50, torch.ones(1000), 20, 50).split(0.1, generator())


def test_the_world_says_who_bought_what_and_who_rated_how(world: World) -> None:
    log = world.interactions()
    pairs = purchases_of_world(world)
    assert len(pairs) == len(log) and float(pairs.values.sum()) == log["count"].sum()
    assert ratings_of_world(world) is None
    rated = tiny_world(kind="rating", num_items=50, num_users=10)
    ratings = ratings_of_world(rated)
    assert ratings is not None and len(ratings) and set(ratings.values.tolist()) <= {1.0, 2.0, 3.0, 4.0, 5.0}
    tokens, last = rated.tokens, {}
    owners = np.repeat(np.arange(10), np.diff(tokens.offsets.numpy()))
    for user, items, given in zip(owners, tokens.values["items"], tokens.values["feedback"], strict=True):
        last |= {(int(user), int(i)): float(r) for i, r in zip(items, given, strict=True) if i >= 0}
    found = zip(ratings.users.tolist(), ratings.items.tolist(), ratings.values.tolist(), strict=True)
    assert {(u, i): r for u, i, r in found} == last


def test_a_rollout_logs_what_was_shown_and_what_came_of_it(world: World) -> None:
    slates = rollout(world)
    assert len(slates) == 64 and slates.candidates.shape[:2] == (64, 10) == slates.items.shape
    assert (slates.items.sort(1).values.diff(dim=1) > 0).all()  # no repeats
    assert slates.consumed.any() and not slates.consumed.all()
    assert torch.equal(slates.items, rollout(world).items)
    bought = purchases_of_slates(slates, world)
    assert bought.values.sum() == slates.consumed.sum()
    anonymous = rollout(world, observation=OBSERVED[1:])
    assert anonymous.user.shape == (64, 0) and torch.equal(anonymous.items, slates.items)
    with pytest.raises(AgentError, match="observes user_id, history too"):
        rollout(world, observation=("candidates", "candidate_items"))


def test_good_is_what_the_world_rewards(world: World) -> None:
    slates = rollout(world)
    assert torch.equal(slates.good(world), slates.consumed.float())
    rated = tiny_world(kind="rating", num_items=200, num_users=10)
    watched = rollout(rated)
    assert torch.equal(watched.good(rated) > 0, watched.ratings >= 4) and (watched.ratings >= 4).any()


def test_parts_of_a_log_share_no_visit(world: World) -> None:
    parts = split_lanes(rollout(world, lanes=20), 0.1, generator())
    lanes = [set(part.lane.tolist()) for part in parts]
    assert [len(each) for each in lanes] == [16, 2, 2] and not (lanes[0] & lanes[1] | lanes[0] & lanes[2])
    with pytest.raises(AgentError, match="3 lanes needed, got 2"):
        split_lanes(rollout(world, lanes=2), 0.1, generator())


# ---------------------------------------------------------------- factors


def test_unknown_users_are_folded_in_by_ridge_regression() -> None:
    items = torch.randn(6, 3, generator=generator())
    factors = Factors(torch.ones(2, 3), items, torch.arange(6.0), 2.0 * torch.eye(3), torch.tensor(4.0))
    history = torch.tensor([[-1, -1], [2, 5], [-1, -1]])
    scores = factors.score(torch.tensor([1, 2, -1]), torch.arange(6).expand(3, -1), history)
    torch.testing.assert_close(scores[0], items.sum(1) + torch.arange(6.0))
    q = items[[2, 5]]
    vector = torch.linalg.solve(2.0 * torch.eye(3) + 4.0 * q.T @ q, 4.0 * q.sum(0))
    torch.testing.assert_close(scores[1], items @ vector + torch.arange(6.0))
    torch.testing.assert_close(scores[2], torch.arange(6.0))  # nothing is known of this user


def test_profiles_join_the_log_with_the_history() -> None:
    pairs = Pairs.of(torch.tensor([0, 0, 1]), torch.tensor([0, 2, 1]), torch.tensor([3.0, 1.0, 7.0]), 2, 4)
    dense = Profiles.of(pairs).dense(torch.tensor([0, 9]), torch.tensor([[0, 3], [1, -1]]))
    expected = np.log1p([[3, 0, 1, 1, 0], [0, 1, 0, 0, 0]])
    np.testing.assert_allclose(dense.numpy(), expected, rtol=1e-6)
