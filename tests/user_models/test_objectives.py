"""Pre-training objectives: what is masked, how views differ, what is learned."""

import math
from dataclasses import replace

import numpy as np
import pydantic
import pytest
import torch

from recgym.user_models.preference import losses, objectives
from recgym.user_models.preference.config import TrainingConfig
from recgym.user_models.preference.exposures import Exposures
from recgym.user_models.preference.samples import Segment, cut_segments, segment_index
from recgym.user_models.preference.scoring import Groups, embed
from recgym.user_models.preference.training import Trainer
from recgym.user_models.preference.trips import draw_tokens
from tests.user_models.test_training import CONFIG, planted_trips, small_data
from tests.user_models.test_trips import random_trips


def trainer(tmp_path, trips=None, **changes) -> Trainer:
    training = CONFIG.training.model_copy(update=changes)
    return Trainer(small_data(trips), CONFIG.model_copy(update={"training": training}), 0, tmp_path)


def drawn(made: Trainer, seed: int = 0):
    trips = made.train_trips
    tokens = draw_tokens(trips, np.random.default_rng(seed), 5, 0.15)
    index, _, _ = segment_index(cut_segments(tokens, tokens.users[:-1], 40, 10)[:8])
    return trips, tokens, index


def test_no_objective_is_an_error():
    with pytest.raises(pydantic.ValidationError, match="pre-training has no objective"):
        TrainingConfig(next_item=0)
    TrainingConfig(next_item=0, pretrain_epochs=0)


def test_the_plain_model_holds_nothing_of_other_objectives(tmp_path):
    assert trainer(tmp_path).model.heads is None
    assert trainer(tmp_path, contrastive=0.1).model.heads is not None


def test_a_masked_token_hides_its_items_and_keeps_its_place(tmp_path):
    made = trainer(tmp_path, masked_item=1.0)
    trips, tokens, index = drawn(made)
    network, groups = made.model.network, Groups.of(trips, tokens, index)
    mask = torch.zeros(index.shape, dtype=torch.bool)
    mask[0, 3] = True
    vectors = torch.randn(trips.num_items, 16, generator=torch.Generator().manual_seed(1))
    vector = torch.ones(16)
    plain, hidden = embed(network, vectors, groups), embed(network, vectors, groups, (mask, vector))
    assert torch.equal(plain[~mask], hidden[~mask])
    assert not torch.allclose(plain[mask], hidden[mask])
    # Other items of the same number say the same: nothing of what was bought is left but how many.
    swapped = Groups(torch.where(groups.items >= 0, 0, -1), torch.ones_like(groups.feedback), groups.level)
    torch.testing.assert_close(embed(network, vectors, swapped, (mask, vector))[mask], hidden[mask])


def test_views_are_parts_of_the_history_they_come_from(tmp_path):
    trips, tokens, index = drawn(trainer(tmp_path))
    rng = np.random.default_rng(0)
    for _ in range(20):
        kept = objectives.crop(index, rng)
        view = objectives.augment(trips, tokens, kept, rng)
        plain = Groups.of(trips, tokens, kept)
        assert torch.equal(view.level, plain.level)  # gaps stay where they are
        for row, run in enumerate(kept):
            length, whole = (run >= 0).sum(), index[row][index[row] >= 0]
            assert length == math.ceil(objectives.CROPPED * len(whole))
            begin = np.flatnonzero(whole == run[0])[0]
            assert np.array_equal(whole[begin : begin + length], run[:length])
            for trip in np.unique(tokens.trip[run[:length]]):
                here = tokens.trip[np.maximum(run, 0)] == trip
                here &= run >= 0
                seen, real = (g.items[row][torch.from_numpy(here)].flatten() for g in (view, plain))
                assert set(seen.tolist()) - {-1} <= set(real.tolist())
        assert (view.items[kept < 0] == -1).all()
    left = float((view.items >= 0).sum() / (plain.items >= 0).sum())
    assert left == pytest.approx(1 - objectives.DROPPED, abs=0.1)


def test_the_loss_of_two_views_has_its_known_values():
    views, users = torch.eye(4), torch.arange(4)
    cold = losses.view_loss(views, views, users, 0.01)
    assert float(cold) == pytest.approx(0.0, abs=1e-6)
    even = losses.view_loss(torch.ones(4, 3), torch.ones(4, 3), users, 1.0)
    assert float(even) == pytest.approx(math.log(7))
    # Another history of the same user is no negative: of eight views each sees its partner and four of others.
    same = losses.view_loss(torch.ones(4, 3), torch.ones(4, 3), torch.tensor([0, 0, 1, 1]), 1.0)
    assert float(same) == pytest.approx(math.log(5))


@pytest.mark.parametrize("name", ["masked_item", "contrastive"])
def test_each_objective_alone_is_learned(tmp_path, name):
    trips, _ = planted_trips(users=60, seed=0)
    changes = {"next_item": 0.0, "masked_item": 0.0, "contrastive": 0.0, name: 1.0}
    made = trainer(tmp_path, trips, pretrain_epochs=10, finetune_epochs=1, patience=10, learning_rate=5e-3, **changes)
    made.run()
    curve = [row[f"loss/{name}"] for row in made.history if row["stage"] == "pretrain"]
    assert curve[-1] < 0.95 * curve[0]


@pytest.mark.parametrize("weights", [{}, {"next_item": 0.0, "masked_item": 1.0}])
def test_what_a_batch_holds_nothing_of_is_a_zero_with_a_gradient(tmp_path, monkeypatch, weights):
    monkeypatch.setattr(objectives, "SCORED", 0.0)
    monkeypatch.setattr(objectives, "MASKED", 0.0)
    made = trainer(tmp_path, inner_positions=0.0, **weights)
    tokens = draw_tokens(made.train_trips, np.random.default_rng(0), 5, 0.15)
    token = int(np.flatnonzero(~tokens.first)[0])  # neither the start of a trip nor the end of one
    for objective in (made.objectives.pretrain, made.objectives.finetune):
        parts = objective(tokens, [Segment(token, token, token + 1)], np.random.default_rng(1), made.model)
        assert {name: float(value.detach()) for name, value in parts.items()} == dict.fromkeys(parts, 0.0)
        for value in parts.values():
            value.backward(retain_graph=True)
        gradients = [p.grad for p in made.model.parameters() if p.grad is not None]
        assert gradients and all((gradient == 0).all() for gradient in gradients)


def test_a_log_is_learned_whose_batches_lack_something(tmp_path):
    """Everything that was bought had been shown: the exposures take what there is to learn of quantities."""
    trips = random_trips(5, users=20)
    order = np.lexsort((trips.item, trips.trip))
    shown = Exposures(trips.trip[order], trips.item[order], np.ones(len(order)), trips.num_items)
    made = trainer(tmp_path, replace(trips, exposures=shown), finetune_epochs=1)
    made.run()
    assert made.history[-1]["loss/quantity"] == 0.0
