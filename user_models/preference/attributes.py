"""Observable attributes of users and items as numeric columns."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from recgym.user_models.preference.network import TREND_DAYS

SALES = 2  # last item attributes, which only sales tell
_KINDS = ("category", "subcategory", "brand")


def attribute_columns(users: pd.DataFrame, attributes: dict[str, tuple[str, ...]]) -> Tensor:
    """Observable attributes as one-hot columns with a missing flag each, float32 [U, sum(levels + 1)]."""
    columns = []
    for name, levels in attributes.items():
        place = {level: code for code, level in enumerate(levels)}
        codes = [place.get(value, len(levels)) if isinstance(value, str) else len(levels) for value in users[name]]
        columns.append(torch.nn.functional.one_hot(torch.tensor(codes), len(levels) + 1).float())
    return torch.cat(columns, dim=1) if columns else torch.zeros((len(users), 1))


def item_statistics(items: pd.DataFrame) -> Tensor:
    """What the repeat term knows of each item at any time, float32 [N, 3]; see ``item_features``."""
    columns = np.stack((items["interval_days"], np.log1p(items["popularity"]), items["repeat_share"]), axis=1)
    return torch.from_numpy(columns.astype(np.float32))


def item_trends(items: pd.DataFrame) -> Tensor:
    """The trend of each item when the log ended, float32 [N, windows]."""
    return torch.tensor(items[[f"trend_{days}" for days in TREND_DAYS]].to_numpy(np.float32))


def item_attributes(items: pd.DataFrame) -> Tensor:
    """Item attributes: one-hot category, subcategory and brand; log price, discount, popularity and interval."""
    parts = [pd.get_dummies(items[name]).to_numpy(np.float32) for name in _KINDS]
    numbers = _numbers(items)
    numbers = (numbers - numbers.mean(0)) / numbers.std(0).clip(min=1e-6)
    return torch.from_numpy(np.concatenate((*parts, numbers), axis=1))


def new_item_attributes(new: pd.DataFrame, items: pd.DataFrame) -> Tensor:
    """``item_attributes`` of items that a model trained on ``items`` has not met, float32 [M, the same width].

    Kinds that training did not meet are no kind; popularity and interval, which only sales tell, are the mean.
    """
    parts = [(new[name].to_numpy()[:, None] == np.unique(items[name])).astype(np.float32) for name in _KINDS]
    known = _numbers(items)
    numbers = _numbers(new.assign(popularity=0, interval_days=0.0))
    numbers = (numbers - known.mean(0)) / known.std(0).clip(min=1e-6)
    numbers[:, -SALES:] = 0.0
    return torch.from_numpy(np.concatenate((*parts, numbers), axis=1))


def _numbers(items: pd.DataFrame) -> np.ndarray:
    columns = (
        np.log1p(items["price"]),
        items["discount"],
        np.log1p(items["popularity"]),
        np.log1p(items["interval_days"]),
    )
    return np.stack(columns, axis=1).astype(np.float32)
