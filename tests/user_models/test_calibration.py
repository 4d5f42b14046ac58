"""Calibration finds the weights that the labels were drawn with, and folds them into the network."""

import numpy as np
import pytest
import torch

from recgym.user_models.preference.calibration import OrdinalCalibration, calibrate, calibrate_answers, calibrate_bins
from recgym.user_models.preference.config import NetworkConfig
from recgym.user_models.preference.metrics import rating_calibration
from recgym.user_models.preference.network import TREND_DAYS, PreferenceNetwork
from recgym.user_models.preference.scoring import Components, Moments, OwnHistory, PairOutput, score_catalogue
from recgym.user_models.preference.trips import Trips

CONFIG = NetworkConfig(dim=16, layers=1, heads=2, feedforward=16, window=4, group=4, hidden=16, repeat_hidden=4)
MOMENTS, ITEMS = 400, 60


def test_weights_are_recovered_and_folded_in():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = PreferenceNetwork(CONFIG, 3)
        torch.nn.init.normal_(net.head_purchase)
        torch.nn.init.normal_(net.repeat_out)
        torch.nn.init.normal_(net.item_bias.weight, std=0.4)
        fused, vectors = torch.randn(MOMENTS, 16), torch.randn(ITEMS, 16)
        statistics = torch.rand(ITEMS, 3) * 5 + 1
        ones = torch.ones(MOMENTS)
        moments = Moments(torch.arange(MOMENTS), fused, torch.rand(MOMENTS, 3), ones, ones * 0, ones * 0, ones)
        own = OwnHistory(
            torch.arange(MOMENTS).repeat_interleave(10),
            torch.cat([torch.randperm(ITEMS)[:10] for _ in range(MOMENTS)]),
            torch.randint(1, 9, (MOMENTS * 10,)).float(),
            torch.randint(0, 60, (MOMENTS * 10,)).float(),
            torch.randn(MOMENTS * 10, len(TREND_DAYS)) * 0.3,
        )
        parts = score_catalogue(net, fused, vectors, statistics, moments, own)
        true = 0.5 * parts.match + 0.2 * parts.hidden + 1.5 * parts.repeat + 1.2 * parts.bias - 0.4
        bought = torch.bernoulli(torch.sigmoid(true)).bool()
    bought[~bought.any(1), 0] = True
    trip, item = bought.nonzero(as_tuple=True)
    count = np.arange(MOMENTS)
    trips = Trips(item.numpy(), np.ones(len(item), np.int64), trip.numpy(), count, count, MOMENTS, ITEMS)
    weights = calibrate(net, parts, trips, count)
    assert weights == pytest.approx([0.5, 0.2, 1.5, 1.2, -0.4], abs=0.15)
    after = score_catalogue(net, fused, vectors, statistics, moments, own).logits()
    match, hidden, repeat, bias, intercept = weights
    expected = match * parts.match + hidden * parts.hidden + repeat * parts.repeat + bias * parts.bias + intercept
    torch.testing.assert_close(after, expected, atol=1e-4, rtol=1e-4)
    chance = torch.sigmoid(after).detach()
    assert float(chance.mean()) == pytest.approx(float(bought.float().mean()), rel=1e-3)


def test_a_part_that_tells_nothing_does_not_run_off():
    """A bias that hardly varies cannot be told from the intercept; Newton's whole steps would overshoot there."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        net = PreferenceNetwork(CONFIG, 3)
        parts = Components(
            match=torch.randn(98, 600) * 0.5,
            hidden=torch.randn(98, 600) * 0.004 - 0.014,
            repeat=torch.zeros(98, 600),
            bias=torch.randn(600) * 0.01 - 4.6,
        )
        bought = torch.bernoulli(torch.sigmoid(parts.logits())).bool()
    bought[~bought.any(1), 0] = True
    trip, item = bought.nonzero(as_tuple=True)
    count = np.arange(98)
    trips = Trips(item.numpy(), np.ones(len(item), np.int64), trip.numpy(), count, count, 98, 600)
    match, hidden, repeat, bias, intercept = calibrate(net, parts, trips, count)
    after = match * parts.match + hidden * parts.hidden + repeat * parts.repeat + bias * parts.bias + intercept
    assert float(torch.sigmoid(after).sum()) == pytest.approx(float(bought.sum()), rel=0.01)
    assert match == pytest.approx(1.0, abs=0.3)
    assert max(abs(hidden), abs(repeat), abs(bias)) < 5


def test_bins_come_as_often_as_they_were_seen():
    """And what a head knows of each moment stays: the order of its logits' differences between moments."""
    with torch.random.fork_rng():
        torch.manual_seed(2)
        net = PreferenceNetwork(CONFIG, 3)
        torch.nn.init.normal_(net.gap_head[-1].weight)
        fused = torch.randn(500, 16)
        before = net.gap_head(fused).detach()
        truth = torch.linspace(-2, 2, before.shape[1])
        bins = torch.distributions.Categorical(logits=before + truth).sample()
    calibrate_bins(net.gap_head, fused, bins)
    after = net.gap_head(fused).detach()
    seen = torch.bincount(bins, minlength=after.shape[1]) + 0.5
    torch.testing.assert_close(after.softmax(1).mean(0), seen / seen.sum(), atol=1e-4, rtol=1e-3)
    shift = after - before
    torch.testing.assert_close(shift, shift[:1].expand_as(shift), atol=1e-4, rtol=0)


@pytest.mark.parametrize("ratings", [False, True], ids=["quantities", "ratings"])
def test_answers_drawn_otherwise_are_found_out_and_folded_in(ratings: bool):
    with torch.random.fork_rng():
        torch.manual_seed(2)
        net = PreferenceNetwork(CONFIG, 3)
        torch.nn.init.normal_(net.head_quantity)
        torch.nn.init.normal_(net.head_rating)
        hidden = torch.randn(20_000, 16)
        stop = (hidden @ net.head_quantity + net.quantity_bias).detach()
        output = PairOutput(torch.zeros(20_000), stop, (hidden @ net.head_rating).detach())
        if ratings:
            cuts = torch.tensor([-2.0, -1.0, 0.5, 1.5])
            cdf = torch.sigmoid(cuts - 0.5 * output.rating[:, None])
            answers = 1 + (torch.rand(20_000, 1) > cdf).sum(1)
        else:
            answers = torch.distributions.Geometric(torch.sigmoid(0.5 * output.stop - 0.3)).sample() + 1
    head = (net.head_rating if ratings else net.head_quantity).detach().clone()
    bias = float(net.quantity_bias.detach())
    with torch.no_grad():
        calibrate_answers(net, output, answers.float(), ratings)
    if ratings:
        assert torch.allclose(net.head_rating, 0.5 * head, rtol=0.1, atol=1e-3)
        assert torch.allclose(net.rating_thresholds(), cuts, atol=0.1)
    else:
        assert torch.allclose(net.head_quantity, 0.5 * head, rtol=0.1, atol=1e-3)
        assert float(net.quantity_bias.detach()) == pytest.approx(0.5 * bias - 0.3, abs=0.08)


def test_no_answers_change_nothing():
    net = PreferenceNetwork(CONFIG, 3)
    before = net.quantity_bias.detach().clone()
    nothing = torch.zeros(0)
    calibrate_answers(net, PairOutput(nothing, nothing, nothing), nothing, ratings=False)
    assert torch.equal(net.quantity_bias, before)


def test_chances_of_ratings_are_told_from_held_out_ones_how_sure_to_be():
    drawn = torch.Generator().manual_seed(0)
    place = torch.randn(20_000, 1, generator=drawn, dtype=torch.float64)
    cdf = torch.sigmoid(torch.tensor([-3.0, -1.0, 1.0, 2.0]) - 2 * place)
    shifts = torch.tensor([0.3, -0.2, 0.1, 0.4])
    true = torch.sigmoid(0.6 * torch.logit(cdf) + shifts)
    real = 1.0 + (torch.rand(20_000, 1, generator=drawn, dtype=torch.float64) > true).sum(1)
    found = OrdinalCalibration.fit(cdf.float(), real)
    assert found.slope == pytest.approx(0.6, abs=0.03)
    assert (found.shifts - shifts).abs().max() < 0.08
    told = found(cdf)
    assert rating_calibration(told, real).error < 0.3 * rating_calibration(cdf, real).error
    assert (told.diff(dim=1) >= 0).all()
    few = OrdinalCalibration.fit(cdf[:1], real[:1])
    assert few.slope == pytest.approx(1.0, abs=0.2)
