"""Plackett-Luce slates: known answers by enumeration, gradients, and a policy that ignores candidate order."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from gymnasium import spaces

from recgym.adapters.plackett_luce import PlackettLuce, PlackettLucePolicy
from recgym.agents.networks import SlateScorer
from recgym.errors import AgentError


def all_slates(num_candidates: int, slate_size: int) -> torch.Tensor:
    return torch.tensor(list(itertools.permutations(range(num_candidates), slate_size)))


def distribution(scores: torch.Tensor, slate_size: int, rows: int = 1) -> PlackettLuce:
    return PlackettLuce(slate_size).proba_distribution(scores.expand(rows, -1))


def scores(num_candidates: int, scale: float = 1.0) -> torch.Tensor:
    return scale * torch.randn(1, num_candidates, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize(("num_candidates", "slate_size"), [(4, 1), (5, 3), (6, 2), (4, 4)])
@pytest.mark.parametrize("scale", [0.0, 1.0, 30.0])
def test_probabilities_sum_to_one(num_candidates: int, slate_size: int, scale: float) -> None:
    slates = all_slates(num_candidates, slate_size)
    log_prob = distribution(scores(num_candidates, scale), slate_size, len(slates)).log_prob(slates)
    assert log_prob.exp().sum().item() == pytest.approx(1.0, abs=1e-10)


def test_log_probability_matches_the_definition() -> None:
    s = scores(6)
    for slate in ([0, 3, 5], [5, 1, 2]):
        open_items, expected = list(range(6)), 0.0
        for item in slate:
            expected += s[0, item].item() - math.log(sum(math.exp(s[0, j].item()) for j in open_items))
            open_items.remove(item)
        assert distribution(s, 3).log_prob(torch.tensor([slate])).item() == pytest.approx(expected, abs=1e-12)


def test_uniform_scores_give_the_count_of_slates() -> None:
    slate = torch.arange(10)[None]
    log_prob = distribution(torch.zeros(1, 100), 10).log_prob(slate)
    assert log_prob.item() == pytest.approx(-sum(math.log(100 - k) for k in range(10)), rel=1e-6)


def test_a_repeated_item_has_probability_zero() -> None:
    assert distribution(scores(5), 3).log_prob(torch.tensor([[1, 2, 1]])).item() == -math.inf


@pytest.mark.parametrize("slate_size", [3, 5])
def test_gradients(slate_size: int) -> None:
    slates = torch.stack([torch.randperm(5, generator=torch.Generator().manual_seed(i))[:slate_size] for i in range(4)])
    s = torch.randn(4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    of = PlackettLuce(slate_size)
    assert torch.autograd.gradcheck(lambda x: of.proba_distribution(x).log_prob(slates), (s,))
    assert torch.autograd.gradcheck(lambda x: of.proba_distribution(x).entropy_along(slates), (s,))


def test_gradients_are_finite_at_extreme_scores() -> None:
    s = torch.tensor([[80.0, -80.0, 0.0, 40.0]], requires_grad=True)
    of = PlackettLuce(4).proba_distribution(s)
    slates = torch.tensor([[1, 2, 3, 0]])
    (of.log_prob(slates) + of.entropy_along(slates)).sum().backward()
    assert torch.isfinite(s.grad).all()


@pytest.mark.parametrize(("num_candidates", "slate_size"), [(5, 3), (4, 4), (6, 1)])
def test_the_entropy_estimator_is_unbiased(num_candidates: int, slate_size: int) -> None:
    slates = all_slates(num_candidates, slate_size)
    of = distribution(scores(num_candidates), slate_size, len(slates))
    log_prob = of.log_prob(slates)
    exact = -(log_prob.exp() * log_prob).sum()
    assert (log_prob.exp() * of.entropy_along(slates)).sum().item() == pytest.approx(exact.item(), abs=1e-10)


def test_samples_follow_the_distribution() -> None:
    slates = all_slates(4, 2)
    s = scores(4)
    expected = distribution(s, 2, len(slates)).log_prob(slates).exp()
    n = 40_000
    with torch.random.fork_rng():
        torch.manual_seed(0)
        drawn = distribution(s, 2, n).sample()
    codes = drawn[:, 0] * 4 + drawn[:, 1]
    found = torch.stack([(codes == a * 4 + b).double().mean() for a, b in slates.tolist()])
    assert (found - expected).abs().max() < 4 * 0.5 / math.sqrt(n)
    assert found.sum().item() == pytest.approx(1.0)  # no slate repeats an item


def test_the_mode_is_the_most_likely_slate() -> None:
    slates = all_slates(5, 3)
    s = scores(5)
    best = slates[distribution(s, 3, len(slates)).log_prob(slates).argmax()]
    assert distribution(s, 3).mode()[0].tolist() == best.tolist()


def test_too_few_candidates() -> None:
    with pytest.raises(AgentError, match="slate of 6 .* 5 candidates"):
        distribution(scores(5), 6)


def policy() -> PlackettLucePolicy:
    space = spaces.Dict(
        {"user": spaces.Box(0, 1, (3,), np.float32), "candidates": spaces.Box(0, 1, (20, 4), np.float32)}
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return PlackettLucePolicy(space, spaces.MultiDiscrete([20] * 5), lambda _: 1e-3)


def observation(rows: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {
        "user": torch.rand(rows, 3, generator=generator),
        "candidates": torch.rand(rows, 20, 4, generator=generator),
    }


def test_the_policy_is_permutation_equivariant() -> None:
    of, seen = policy(), observation(6)
    order = torch.randperm(20, generator=torch.Generator().manual_seed(2))
    permuted = {**seen, "candidates": seen["candidates"][:, order]}
    torch.testing.assert_close(of.get_distribution(permuted).scores, of.get_distribution(seen).scores[:, order])
    torch.testing.assert_close(of.predict_values(permuted), of.predict_values(seen))
    slates = of.get_distribution(seen).mode()
    positions = order.argsort()[slates]
    torch.testing.assert_close(of.evaluate_actions(permuted, positions)[1], of.evaluate_actions(seen, slates)[1])


def test_forward_and_evaluate_actions_agree() -> None:
    of, seen = policy(), observation(6)
    with torch.random.fork_rng():
        slates, values, log_prob = of(seen)
    again = of.evaluate_actions(seen, slates.float())  # SB3's buffer keeps actions as float32
    torch.testing.assert_close(again[0], values)
    torch.testing.assert_close(again[1], log_prob)
    assert again[2].shape == (6,)


def test_the_policy_names_the_spaces_it_needs() -> None:
    box = spaces.Box(0, 1, (3,), np.float32)
    with pytest.raises(AgentError, match="user, candidates"):
        PlackettLucePolicy(box, spaces.MultiDiscrete([20] * 5), lambda _: 1e-3)
    seen = spaces.Dict({"user": box, "candidates": spaces.Box(0, 1, (20, 4), np.float32)})
    with pytest.raises(AgentError, match="action mode 'slate'"):
        PlackettLucePolicy(seen, spaces.Discrete(20), lambda _: 1e-3)


def test_scores_do_not_depend_on_the_batch() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        scorer = SlateScorer(3, 4, hidden=64)
    seen = observation(70)
    whole = scorer.scores_by_block(seen["user"], seen["candidates"])
    for lane in (0, 31, 32, 69):
        alone = scorer.scores_by_block(seen["user"][lane : lane + 1], seen["candidates"][lane : lane + 1])
        assert torch.equal(alone[0], whole[lane])
    back = scorer.scores_by_block(seen["user"].flip(0), seen["candidates"].flip(0)).flip(0)
    assert torch.equal(back, whole)
