"""Training: no leakage into the graph, resumption, calibration; on small generated logs."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from recgym.errors import RecGymError
from recgym.user_models.preference.checkpoint import differences, load_checkpoint
from recgym.user_models.preference.config import GraphConfig, ModelConfig, NetworkConfig, TrainingConfig
from recgym.user_models.preference.loop import DivergedError
from recgym.user_models.preference.model import TrainingData
from recgym.user_models.preference.training import Trainer
from recgym.user_models.preference.trips import Trips
from tests.user_models.test_trips import random_trips

CONFIG = ModelConfig(
    network=NetworkConfig(dim=16, layers=1, heads=2, feedforward=16, window=6, group=5, hidden=16, repeat_hidden=4),
    graph=GraphConfig(),
    training=TrainingConfig(
        pretrain_epochs=1, finetune_epochs=2, batch_segments=8, segment=40, own_negatives=4, other_negatives=8
    ),
)


def small_data(trips: Trips | None = None) -> TrainingData:
    trips = trips or random_trips(5, users=20)
    generator = torch.Generator().manual_seed(0)
    return TrainingData(
        trips=trips,
        text=torch.randn(trips.num_items, 8, generator=generator),
        item_attributes=torch.randn(trips.num_items, 3, generator=generator),
        user_attributes=torch.ones(trips.num_users, 1),
        item_statistics=torch.tensor([[10.0, 1.0, 0.4]]).expand(trips.num_items, -1),
        ratings=False,
    )


@pytest.mark.parametrize("convolution", ["lightgcn", "gcn"])
def test_no_scored_edge_is_in_the_graph(tmp_path, convolution):
    data = small_data()
    config = CONFIG.model_copy(update={"graph": GraphConfig(convolution=convolution)})
    trainer = Trainer(data, config, seed=0, directory=tmp_path)
    trips = trainer.train_trips
    graph = trainer.graph.adjacency.to_dense()[: trips.num_users, trips.num_users :]
    early = np.zeros(graph.shape, bool)
    for user in range(trips.num_users):
        stop = trainer.graph.first_response_trip[user]
        early[user, trips.item[trips.events[trips.users[user]] : trips.events[stop]]] = True
    # Exactly the items of the first part of each training history are edges: nothing that responses are trained on,
    # and nothing of the validation and test trips, unless it was bought in the first part as well.
    assert np.array_equal(graph.numpy() > 0, early)
    assert np.array_equal(trainer.graph.folding.to_dense().numpy() > 0, early)


def test_an_interrupted_run_resumes_to_the_same_model(tmp_path):
    data = small_data()
    whole = Trainer(data, CONFIG, 0, tmp_path / "whole").run()
    broken = Trainer(data, CONFIG, 0, tmp_path / "broken")
    seen = 0

    def interrupt(what: str, share: float) -> None:
        nonlocal seen
        if what.startswith("finetune") and share > 0.5:
            seen += 1
            raise KeyboardInterrupt

    broken.progress = interrupt
    with pytest.raises(KeyboardInterrupt):
        broken.run()
    assert seen == 1
    resumed = Trainer(data, CONFIG, 0, tmp_path / "broken").run()
    for (name, expected), (_, found) in zip(whole.state_dict().items(), resumed.state_dict().items(), strict=True):
        torch.testing.assert_close(found, expected, msg=name, atol=1e-6, rtol=1e-5)


def test_a_seed_may_be_of_any_size(tmp_path):
    steps = []
    Trainer(small_data(), CONFIG, 2**70, tmp_path, lambda what, share: steps.append(what)).run()
    assert steps


def test_divergence_stops_with_the_step_and_the_checkpoint(tmp_path):
    data = small_data()
    trainer = Trainer(data, CONFIG, 0, tmp_path)
    with torch.no_grad():
        trainer.model.network.match.weight.fill_(float("nan"))
    with pytest.raises(DivergedError, match=r"pretrain epoch 0 step 0.*no checkpoint was written yet"):
        trainer.run()


def test_the_last_good_checkpoint_is_there_and_good(tmp_path):
    data = small_data()
    trainer = Trainer(data, CONFIG, 0, tmp_path)

    def spoil(what: str, share: float) -> None:
        if what.startswith("finetune") and share > 0.5:  # in the second of two epochs
            with torch.no_grad():
                trainer.model.network.match.weight.fill_(float("nan"))

    trainer.progress = spoil
    with pytest.raises(DivergedError, match="finetune epoch 1 step 1.*the last good checkpoint is") as caught:
        trainer.run()
    assert str(tmp_path / "finetune") in str(caught.value)
    fresh = Trainer(data, CONFIG, 0, tmp_path / "fresh")
    state = load_checkpoint(tmp_path / "finetune", fresh.model, None)
    assert state["epoch"] == 0
    assert all(torch.isfinite(value).all() for value in fresh.model.state_dict().values())


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"seed": 5}, "seed 0 there, 5 here"),
        ({"config": CONFIG.model_copy(update={"without": ("repeat",)})}, r"without \[\] there, \['repeat'\] here"),
        ({"config": CONFIG.model_copy(update={"graph": GraphConfig(layers=1)})}, "config.graph.layers 2 there, 1 here"),
        ({"data": small_data(random_trips(6, users=20))}, "trips"),
        ({"data": replace(small_data(), text=torch.randn(30, 8))}, "text"),
        ({"tables": (torch.ones(30, 16), torch.ones(30, 16))}, "tables"),
    ],
)
def test_a_checkpoint_of_another_training_is_refused(tmp_path, changes, told):
    made = {"data": small_data(), "config": CONFIG, "seed": 0, "directory": tmp_path}
    steps = []
    Trainer(**made).run()
    Trainer(**made, progress=lambda what, share: steps.append(what)).run()
    assert not steps  # its own is taken over
    with pytest.raises(RecGymError, match=f"{tmp_path.name}/pretrain is of another training .*{told}.*delete that"):
        Trainer(**{**made, **changes}).run()


def test_rounding_makes_no_other_training(tmp_path):
    data = small_data()
    first = Trainer(data, CONFIG, 0, tmp_path).origin
    again = Trainer(replace(data, text=data.text * (1 + 1e-7)), CONFIG, 0, tmp_path).origin
    assert first != again
    assert not differences(first, json.loads(json.dumps(again)))


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:100]), "cannot be read"),
        (lambda path: path.unlink(), "cannot be read"),
        (lambda path: (path.parent / "state.json").write_text("[]"), "cannot be read"),
        (lambda path: (path.parent / "state.json").write_text("{"), "cannot be read"),
        (lambda path: _rewrite(path.parent / "state.json", version=1), "was written by another version"),
        (lambda path: save_file({"model.start": torch.ones(2)}, path), "does not hold the parameters"),
    ],
)
def test_a_spoiled_checkpoint_says_what_to_do(tmp_path, spoil, told):
    Trainer(small_data(), CONFIG, 0, tmp_path).run()
    spoil(next((tmp_path / "pretrain").glob("epoch-*.safetensors")))
    with pytest.raises(RecGymError, match=f"pretrain {told}.*delete that directory to begin anew, or train in another"):
        Trainer(small_data(), CONFIG, 0, tmp_path).run()


def _rewrite(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize(("most", "rows"), [(100, range(20)), (20, range(20)), (13, None), (7, None), (1, [0])])
def test_no_more_users_validate_than_asked_for(tmp_path, most, rows):
    config = CONFIG.model_copy(update={"training": CONFIG.training.model_copy(update={"validation_users": most})})
    data = small_data()
    found = data.trips.trip_user[Trainer(data, config, 0, tmp_path).validation]
    assert len(found) == min(most, 20)
    assert rows is None or found.tolist() == list(rows)
    assert set(np.diff(found)) <= {20 // most, 20 // most + 1}  # evenly spread


def test_chances_are_told_with_dropout_off(tmp_path):
    data = small_data()
    trainer = Trainer(data, CONFIG, 0, tmp_path)
    trainer.model.train()
    targets = np.flatnonzero(data.trips.trip_user_remaining == 0)
    first, again = trainer.catalogue_logits(targets), trainer.catalogue_logits(targets)
    assert torch.equal(first, again)
    assert not trainer.model.training


def planted_trips(users: int, seed: int) -> tuple[Trips, np.ndarray]:
    """Users buy each item independently with a known chance: half the items are loved by half of the users."""
    rng = np.random.default_rng(seed)
    items, per_user = 24, 16
    chance = np.full((users, items), 0.05)
    chance[: users // 2, :6] = 0.5
    chance[users // 2 :, 6:12] = 0.35
    item, trip, owner, days = [], [], [], []
    for user in range(users):
        day = 0
        for _ in range(per_user):
            basket = np.flatnonzero(rng.random(items) < chance[user])
            if len(basket) == 0:
                continue
            day += int(rng.integers(1, 8))
            item.append(basket)
            trip.append(np.full(len(basket), len(owner)))
            owner.append(user)
            days.append(day)
    item, trip = np.concatenate(item), np.concatenate(trip)
    return Trips(item, np.ones(len(item), np.int64), trip, np.array(owner), np.array(days), users, items), chance


def equal_bins(predicted: np.ndarray, truth: np.ndarray) -> list[tuple[float, float]]:
    """The mean of what is predicted and of the truth in ten bins of equal numbers of pairs."""
    parts = np.array_split(np.argsort(predicted, kind="stable"), 10)
    return [(float(predicted[part].mean()), float(truth[part].mean())) for part in parts]


@pytest.mark.slow
def test_probabilities_are_calibrated_on_planted_users(tmp_path):
    trips, chance = planted_trips(users=400, seed=0)
    config = CONFIG.model_copy(
        update={
            "training": TrainingConfig(
                pretrain_epochs=2, finetune_epochs=16, patience=6, batch_segments=8, own_negatives=8, other_negatives=12
            )
        }
    )
    trainer = Trainer(small_data(trips), config, 0, tmp_path)
    trainer.run()
    targets = np.flatnonzero(trips.trip_user_remaining == 0)
    predicted = torch.sigmoid(trainer.catalogue_logits(targets)).numpy()
    truth = chance[trips.trip_user[targets]]
    # A trip holds at least one item, so what is seen is the chance given that; the correction is below 0.01 here.
    assert np.corrcoef(predicted.ravel(), truth.ravel())[0, 1] > 0.92
    for low, high in ((0.0, 0.1), (0.2, 0.7)):
        part = (predicted > low) & (predicted <= high)
        assert predicted[part].mean() == pytest.approx(truth[part].mean(), rel=0.15)
    assert predicted.sum(1).mean() == pytest.approx(truth.sum(1).mean(), rel=0.05)
    # In ten bins of equal numbers of pairs chances are what they promise: one sigmoid, once, dropout off. Estimates of
    # one and the same truth (0.05 for most pairs) spread by some hundredths, and sorting finds the extremes.
    told, true = np.array(equal_bins(predicted.ravel(), truth.ravel())).T
    assert np.abs(told - true).mean() < 0.02
    assert np.abs(told - true)[true > 0.1] == pytest.approx(0.0, abs=0.05)
