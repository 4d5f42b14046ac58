"""Items held out of all training: chosen before anything is fitted, scored by text alone, measured on the card."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from recgym.user_models.preference.attributes import new_item_attributes
from recgym.user_models.preference.model import PreferenceModel
from recgym.worlds import pointwise
from recgym.worlds.views import HeldOut


@dataclass(frozen=True, eq=False)
class Unseen:
    """M items held out of all training, and who bought them."""

    items: pd.DataFrame  # [M] what is known of each without its sales: text, category, ..., price, discount
    user: np.ndarray  # [Q] int64 user row of each (user, item) pair
    item: np.ndarray  # [Q] int64 row among the M items

    @property
    def popularity(self) -> np.ndarray:
        """[M] users who bought each item."""
        return np.bincount(self.item, minlength=len(self.items))


def choose_unseen(items: np.ndarray, share: float, seed: int) -> np.ndarray:
    """``share`` of ``items``, at random, ascending."""
    rng = np.random.default_rng([seed, 53])
    return np.sort(rng.choice(items, round(share * len(items)), replace=False))


@torch.no_grad()
def unseen_vectors(model: PreferenceModel, items: pd.DataFrame, unseen: Unseen, text: Tensor) -> Tensor:
    """Item vectors [M, d] of items without an id and without sales, from their text [M, width] and attributes.

    Args:
        model: the trained model.
        items: the table of the N items that it was trained on.
        unseen: the M others.
        text: their text embeddings.
    """
    vectors: Tensor = model.items.new(text, new_item_attributes(unseen.items, items))
    return vectors


def unseen_areas(
    logits: Tensor, users: np.ndarray, unseen: Unseen, seed: int
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """AUC per user: items of the held-out ones that the user bought at any time, against others of them.

    Args:
        logits: [P, M] of the M items.
        users: int64 [P] the users that they are for.
        unseen: the M items and their buyers.
        seed: of the negatives.

    Returns:
        The users who have both kinds, int64 [R], and the AUC of each, [R], by how the negatives are sampled.
    """
    owned = pd.Series(unseen.item).groupby(unseen.user).apply(lambda part: np.sort(part.to_numpy()))
    owned = owned[owned.map(len) < len(unseen.items)]
    owned = owned[owned.index.isin(users)]
    held = HeldOut(
        baskets=[torch.from_numpy(part) for part in owned],
        own_counts=torch.zeros(len(owned), len(unseen.items)),
        popularity=torch.from_numpy(unseen.popularity).float(),
        num_trips=max(len(unseen.user), 1),
    )
    scores = logits[torch.from_numpy(pd.Index(users).get_indexer(owned.index))]
    found = pointwise.areas(scores, held, len(unseen.items), seed)
    return owned.index.to_numpy(), {kind: scorers["model"] for kind, scorers in found.items()}


def measure_unseen(logits: Tensor, users: np.ndarray, unseen: Unseen, seed: int) -> dict[str, Any]:
    """The ``unseen_areas`` as JSON values."""
    measured, areas = unseen_areas(logits, users, unseen, seed)
    return {
        "num_items": len(unseen.items),
        "users": len(measured),
        "positives": int(np.isin(unseen.user, measured).sum()),
        **{kind: {"model": pointwise.summary(values, measured)} for kind, values in areas.items()},
    }
