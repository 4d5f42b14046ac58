"""Items held out of all training: chosen before anything is fitted, scored by text alone, measured on the card."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from recgym.errors import WorldError
from recgym.worlds import pointwise
from recgym.worlds.views import HeldOut

NEIGHBOURS, TEMPERATURE = 30, 0.1  # chosen on what seed 1 of benchmarks/cold_items.py removes
UNSEEN_TENSORS = ("unseen_neighbours", "unseen_shares")  # item tensors of the items that a bundle holds out


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


@dataclass(frozen=True, eq=False)
class Neighbours:
    """The K known items whose texts are nearest to that of each of M new ones, with weights that fall with distance."""

    items: Tensor  # [M, K] int64 rows among the known items
    shares: Tensor  # [M, K] float32, a row sums to 1: softmax of cosine / ``TEMPERATURE``

    @classmethod
    def of(cls, new: Tensor, known: Tensor) -> Neighbours:
        """Neighbours of the texts ``new`` [M, width] among the texts ``known`` [N, width]."""
        cosine = F.normalize(new, dim=1) @ F.normalize(known, dim=1).T
        nearest, items = cosine.topk(min(NEIGHBOURS, len(known)), dim=1)
        return cls(items, torch.softmax(nearest / TEMPERATURE, dim=1))

    @classmethod
    def load(cls, tensors: Mapping[str, Tensor]) -> Neighbours:
        """Those of a bundle with the item tensors ``tensors``.

        Raises:
            WorldError: the bundle lacks them.
        """
        if missing := [name for name in UNSEEN_TENSORS if name not in tensors]:
            raise WorldError(f"the bundle's items lack the tensors {', '.join(missing)}: build the world again")
        return cls(*(tensors[name] for name in UNSEEN_TENSORS))

    def tensors(self) -> dict[str, Tensor]:
        """What a bundle holds of them."""
        return dict(zip(UNSEEN_TENSORS, (self.items, self.shares), strict=True))

    def logits(self, known: Tensor) -> Tensor:
        """Logits of q [P, M] of the new items from those of the known ones [P, N]: the weighted mean of their q.

        A kernel regression of q on texts (Nadaraya, 1964; Watson, 1964). The item encoder's own vector of a text tells
        less: what a household buys of one kind, again and again, is in the repeat term of the items of that kind.
        """
        chances = known.double().sigmoid()
        mixed = torch.zeros(len(known), len(self.items), dtype=torch.float64)
        for items, shares in zip(self.items.T, self.shares.T.double(), strict=True):
            mixed += chances[:, items] * shares
        return torch.logit(mixed, eps=1e-12).float()


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
