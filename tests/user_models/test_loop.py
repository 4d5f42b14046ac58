"""The best epoch is kept, and no epoch beyond the patience is trained."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from recgym.errors import RecGymError
from recgym.user_models.preference.loop import BestEpoch, DivergedError, descend, luck_of, pace, unsaved


def test_the_best_epochs_weights_come_back() -> None:
    model, best = nn.Linear(1, 1), BestEpoch(patience=2)
    stops = []
    for epoch, error in enumerate([3.0, 1.0, 2.0, 1.5]):
        nn.init.constant_(model.weight, error)
        stops.append(best.enough(epoch, error, model))
    assert stops == [False, False, False, True]
    best.restore(model)
    assert best.epoch == 1
    assert float(model.weight.detach()) == 1.0


def test_pace_warms_up_and_falls_to_zero() -> None:
    paces = torch.tensor([pace(epoch, 50) for epoch in range(51)])
    assert 0.3 < paces[0] < 0.34
    assert int(paces.argmax()) == 2
    assert bool((paces[2:].diff() < 0).all())
    assert abs(float(paces[-1])) < 1e-12


def test_no_weight_changes_where_the_loss_or_its_gradient_is_not_finite() -> None:
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 0.0)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    flat = model.weight.sum().abs().sqrt()  # 0 at 0, where its slope is infinite
    with pytest.raises(DivergedError, match="gradient of norm .* at epoch 3 step 7"):
        descend(flat, model, optimizer, 1.0, lambda: unsaved(3, 7))
    with pytest.raises(DivergedError, match="loss nan at epoch 3 step 7; .* no checkpoint"):
        descend(model.weight.sum() * torch.nan, model, optimizer, 1.0, lambda: unsaved(3, 7))
    assert float(model.weight.detach()) == 0.0


def test_seeds_of_any_size_are_luck_and_leave_the_global_one_alone() -> None:
    before, drawn = torch.get_rng_state(), []
    for seed in (0, 7, 2**45 * 1_000_003):
        with luck_of(seed):
            drawn.append(torch.rand(3))
    torch.manual_seed(7)
    assert torch.equal(drawn[1], torch.rand(3))
    torch.set_rng_state(before)
    assert not torch.equal(drawn[0], drawn[2])
    with pytest.raises(RecGymError, match="from 0 up, got -1"), luck_of(-1):
        pass
    assert torch.equal(torch.get_rng_state(), before)
