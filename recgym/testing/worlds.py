"""Small worlds with random weights, for tests and for trying things out: nothing in them was fitted."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import torch

from recgym.user_models.preference.config import ModelConfig, NetworkConfig
from recgym.user_models.preference.network import TREND_DAYS, PreferenceNetwork
from recgym.worlds.bundle import write_bundle
from recgym.worlds.spec import FORMAT_VERSION, Parameter, WorldSpec
from recgym.worlds.world import World, load_world


def tiny_world(
    path: Path | None = None,
    *,
    kind: Literal["purchase", "rating"] = "purchase",
    num_items: int = 300,
    num_users: int = 40,
    seed: int = 0,
    dim: int = 16,
    window: int = 8,
    name: str = "tiny",
) -> World:
    """A world of random items, users, histories and network weights, written as a bundle and loaded from it.

    Args:
        path: where the bundle is written; a temporary directory that outlives the call where None.
        kind: "purchase" (responses purchase and quantity) or "rating" (watch and rating).
        num_items: N.
        num_users: U; the first two have no history at all.
        seed: everything follows from it.
        dim: width of the network.
        window: tokens that attention looks back on.
        name: the world's name.
    """
    rng = np.random.default_rng(seed)
    network = NetworkConfig(
        dim=dim, layers=2, heads=2, feedforward=2 * dim, window=window, group=10, hidden=dim, repeat_hidden=8
    )
    config = ModelConfig(network=network)
    popularity = np.sort(rng.zipf(1.6, num_items).clip(1, 2000))[::-1].astype(np.int64)
    categories = [f"Category {i}" for i in range(8)]
    items = pd.DataFrame(
        {
            "item_id": [f"i{i}" for i in range(num_items)],
            "title": [f"Item {i}" for i in range(num_items)],
            "category": rng.choice(categories, num_items),
            "subcategory": rng.choice([f"Sub {i}" for i in range(20)], num_items),
            "brand": rng.choice(["National", "Private"], num_items),
            "price": rng.uniform(0.5, 20.0, num_items).round(2),
            "discount": rng.uniform(0.0, 0.3, num_items).round(3),
            "popularity": popularity,
            "interval_days": rng.uniform(5.0, 60.0, num_items),
            "repeat_share": rng.uniform(0.0, 0.9, num_items),
            **{f"trend_{days}": rng.normal(0.0, 0.5, num_items) for days in TREND_DAYS},
        }
    )
    lengths = rng.integers(1, 30, num_users)
    lengths[:2] = 0
    chance = popularity / popularity.sum()
    owned = [np.sort(rng.choice(num_items, n, replace=False, p=chance)) for n in lengths]
    total, last_day = int(lengths.sum()), 300
    tokens = int(lengths.sum())
    token_items = np.full((tokens, 10), -1, np.int32)
    sizes = rng.integers(0, 11, tokens)
    for row, size in enumerate(sizes):
        token_items[row, :size] = rng.choice(num_items, size, replace=False)
    top = 5 if kind == "rating" else 3
    feedback = np.where(token_items >= 0, rng.integers(1, top + 1, token_items.shape), 0)
    offsets = torch.from_numpy(np.concatenate([[0], np.cumsum(lengths)])).long()
    ages, genders = ("19-34", "35-54", "55+"), ("F", "M")
    users = pd.DataFrame(
        {
            "user_id": [str(i) for i in range(num_users)],
            "age": [None if rng.random() < 0.4 else ages[rng.integers(3)] for _ in range(num_users)],
            "gender": [None if rng.random() < 0.4 else genders[rng.integers(2)] for _ in range(num_users)],
            "num_trips": lengths,
            "num_events": lengths * 3,
            "last_day": np.where(lengths > 0, last_day - rng.integers(0, 20, num_users), last_day),
            "last_gap": np.where(lengths > 0, rng.integers(0, 9, num_users), 0),
            "last_size": np.where(lengths > 0, rng.integers(1, 9, num_users), 0),
            "mean_log_size": rng.normal(1.3, 0.4, num_users).clip(0),
            "mean_log_gap": rng.normal(1.5, 0.4, num_users).clip(0),
        }
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        num_attributes = len(ages) + 1 + len(genders) + 1
        model = PreferenceNetwork(network, num_attributes)
        torch.nn.init.constant_(model.item_bias.bias, -2.0)
        for head in (model.head_purchase, model.repeat_out):
            torch.nn.init.normal_(head, std=0.3)
        for block in model.blocks:
            torch.nn.init.normal_(block.distance, std=0.3)
        vectors = torch.randn(num_items, dim)
        graph = torch.randn(num_users, dim) * 0.5
        text = torch.randn(num_items, 16) * 0.3
    others = []
    for member in (1, 2):
        with torch.random.fork_rng():
            torch.manual_seed(seed + member)
            other = PreferenceNetwork(network, num_attributes)
            torch.nn.init.constant_(other.item_bias.bias, -2.0)
            others.append(other)
    repeat_counts = rng.integers(1, 12, total).astype(np.int16)
    repeat_days = (last_day - rng.integers(0, 120, total)).astype(np.int16)
    spec = WorldSpec(
        format_version=FORMAT_VERSION,
        name=name,
        title="A tiny world with random weights",
        kind=kind,
        responses=("purchase", "quantity") if kind == "purchase" else ("watch", "rating"),
        reward="purchase" if kind == "purchase" else "liked",
        currency="USD" if kind == "purchase" else None,
        num_users=num_users,
        num_items=num_items,
        attributes={"age": ages, "gender": genders},
        data={"name": "generated", "hash": "0" * 64, "source": {}, "filters": []},
        config={"model": config.model_dump()},
        seeds={"build": seed},
        versions={"torch": torch.__version__},
        parameters=(Parameter(name="everything", status="assumed", value="random", evidence="generated for tests"),),
        behaviour={"satisfaction_reference": 0.5},
        metrics={},
        files={},
    )
    where = path or Path(tempfile.mkdtemp(prefix="recgym-tiny-")) / name
    write_bundle(
        where,
        spec,
        items,
        users,
        {"vectors": vectors, "text_pca": text},
        {
            "graph": graph,
            "token_offsets": offsets,
            "token_items": torch.from_numpy(token_items),
            "token_feedback": torch.from_numpy(feedback.astype(np.uint8)),
            "token_gap": torch.from_numpy(rng.integers(-1, 20, tokens).astype(np.int16)),
            "repeat_offsets": offsets.clone(),
            "repeat_items": torch.from_numpy(np.concatenate(owned).astype(np.int32)),
            "repeat_counts": torch.from_numpy(repeat_counts),
            "repeat_last_days": torch.from_numpy(repeat_days),
        },
        {key: value.detach() for key, value in model.state_dict().items()},
        members=[{key: value.detach() for key, value in other.state_dict().items()} for other in others],
        documents={"card.md": b"# tiny\n\nRandom weights; nothing was fitted.\n"},
    )
    return load_world(where)
