"""What the networks of ranking agents promise."""

from __future__ import annotations

import torch

from recgym.agents.networks import RankNetwork


def weights_network() -> RankNetwork:
    network = RankNetwork(num_user=2, num_candidate=3, hidden=4, actions="weights")
    network.candidate_norm.calibrate(torch.tensor([[0.0, 0.0, 0.0], [0.2, 2.0, 0.4]]))  # deviations 0.1, 1 and 0.2
    return network


def test_weights_reach_as_far_as_their_feature_varies_little() -> None:
    torch.testing.assert_close(weights_network().reach, torch.tensor([1.0, 0.1, 0.5]))


def test_weights_keep_their_direction_however_long() -> None:
    network = weights_network()
    raw = torch.tensor([[2.0, -1.0, 0.5]])
    bounded = network.bounded(raw)
    torch.testing.assert_close(network.bounded(100.0 * raw), bounded)
    torch.testing.assert_close(bounded, torch.tensor([[1.0, -0.05, 0.125]]))
    torch.testing.assert_close(network.bounded(0.1 * raw), 0.1 * raw * network.reach)  # short ones are left as they are


def test_long_weights_can_still_turn() -> None:
    raw = torch.tensor([[100.0, -80.0, 90.0]], requires_grad=True)
    weights_network().bounded(raw)[0, 1].backward()
    assert raw.grad is not None
    assert raw.grad[0, 1] > 1e-4  # squashed one by one, no gradient would be left


def test_scores_are_squashed_one_by_one() -> None:
    network = RankNetwork(num_user=2, num_candidate=3, hidden=4, actions="scores")
    raw = torch.randn(2, 5)
    torch.testing.assert_close(network.bounded(raw), torch.tanh(raw))
