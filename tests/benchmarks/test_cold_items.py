"""The benchmark of removed items on a small shop: frozen and tuned encoders on the same households."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
import torch

from recgym.data import Interactions
from recgym.user_models.preference.config import ModelConfig, NetworkConfig, TrainingConfig
from recgym.worlds.prepare import prepare
from recgym.worlds.recipes import Recipe

RECIPE = Recipe(
    name="shop",
    title="Shop",
    dataset="shop",
    kind="purchase",
    min_item_users=3,
    model=ModelConfig(
        network=NetworkConfig(dim=16, layers=1, heads=2, feedforward=32, window=8, hidden=16, repeat_hidden=8),
        training=TrainingConfig(own_negatives=8, other_negatives=8),
    ),
)


def shop() -> Interactions:
    """Half of the users buy food for animals, half buy tools."""
    animals = [f"{word} {kind}" for word in ("dog", "cat", "horse", "rabbit") for kind in ("food", "toy", "bowl")]
    tools = [f"{word} {kind}" for word in ("hammer", "saw", "drill", "wrench") for kind in ("steel", "set", "case")]
    titles, rng = animals + tools, np.random.default_rng(0)
    rows = [
        (f"u{user}", f"i{item}", pd.Timestamp("2024-01-01") + pd.Timedelta(days=3 * trip), f"{user}-{trip}", 1)
        for user in range(30)
        for trip in range(8)
        for item in rng.choice(np.arange(12) + 12 * (user % 2), rng.integers(2, 5), replace=False)
    ]
    frame = pd.DataFrame(rows, columns=["user", "item", "time", "basket", "quantity"])
    items = pd.DataFrame({"item": [f"i{i}" for i in range(24)], "title": titles, "text": titles})
    return Interactions.from_frame(frame, items=items, name="shop")


@pytest.fixture
def cold(benchmark_script: Callable[[str], ModuleType]) -> ModuleType:
    return benchmark_script("cold_items")


def test_both_kinds_are_measured_on_the_same_households(cold: ModuleType, recgym_home: Path, tmp_path: Path) -> None:
    options = argparse.Namespace(
        tuning=["frozen", "lora"],
        seeds=[0],
        share=0.25,
        components=4,
        steps=2,
        pretrain_epochs=1,
        finetune_epochs=1,
        work=tmp_path,
    )
    result = cold.run(options, shop(), RECIPE)
    assert result["households"] > 20
    for scorer in ("text", "encoder", "nearest", "similarity"):
        for negatives in ("uniform", "popularity"):
            row = result["auc"][f"{scorer} / {negatives}"]
            value, low, high = row["frozen"]
            assert low <= value <= high
            assert row["lora above frozen"][0] == pytest.approx(row["lora"][0] - value, abs=2e-4)
    for known_by_words in ("similarity", "nearest", "text"):
        assert result["auc"][f"{known_by_words} / uniform"]["frozen"][1] > 0.6  # the words tell animals from tools
    assert cold.run(options, shop(), RECIPE)["auc"]["text / uniform"] == result["auc"]["text / uniform"]  # resumes


def test_scorers_without_a_model_are_cosines(cold: ModuleType) -> None:
    """How long the vector of a text is says nothing: evened texts differ in it."""
    prepared, rng = prepare(shop(), RECIPE), np.random.default_rng(0)
    text, unseen = (torch.tensor(rng.normal(size=(rows, 5)), dtype=torch.float32) for rows in (24, 3))
    longer = unseen * torch.tensor([0.1, 1.0, 10.0])[:, None]
    half_life_days = 30.0
    similar = cold.similarity(prepared, text, unseen, half_life_days)
    assert similar.abs().max() <= 1 + 1e-6
    torch.testing.assert_close(cold.similarity(prepared, text, longer, half_life_days), similar)
    torch.testing.assert_close(cold.nearest(prepared, text, longer), cold.nearest(prepared, text, unseen))
    mean = cold.fold_in(cold.training_part(prepared.trips), text, half_life_days)[0]
    torch.testing.assert_close(similar[0], torch.cosine_similarity(mean[None], unseen))
