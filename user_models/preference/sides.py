"""What a catalogue and its people say of themselves, as numeric columns: texts, word lists, categories and numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

NUM_BINS = 10  # equal-mass bins of a numeric column
MAX_LEVELS = 50  # distinct words or values of a column that are told apart, the most frequent ones


@dataclass(frozen=True, eq=False)
class Sides:
    """What is known of N items and U users apart from the ratings."""

    text: Tensor  # [N, width] frozen text embeddings, zero where there is no text
    items: Tensor  # [N, F] item attributes
    users: Tensor  # [U, A] user attributes


def indicator_columns(table: pd.DataFrame, columns: Sequence[str]) -> Tensor:
    """Columns as indicators, float32 [rows, F]: words of a text, equal-mass bins of numbers; missing is all zero.

    Words rather than whole values, so that a list such as ``Animation Comedy`` counts as both. At least one column.
    """
    parts = [
        _bins(table[name]) if pd.api.types.is_numeric_dtype(table[name]) else _words(table[name]) for name in columns
    ]
    parts = [part for part in parts if part.shape[1]] or [np.zeros((len(table), 1), np.float32)]
    return torch.from_numpy(np.concatenate(parts, axis=1))


def _words(column: pd.Series) -> np.ndarray:
    rows = [set(str(value).split()) if isinstance(value, str) else set() for value in column]
    counts = pd.Series([word for words in rows for word in sorted(words)], dtype=object).value_counts(sort=False)
    levels = sorted(counts.sort_values(ascending=False, kind="stable").index[:MAX_LEVELS])
    return np.array([[level in words for level in levels] for words in rows], np.float32).reshape(len(rows), -1)


def _bins(column: pd.Series) -> np.ndarray:
    values = column.astype("Float64").to_numpy(dtype=np.float64, na_value=np.nan)
    known = values[np.isfinite(values)]
    if not len(known):
        return np.zeros((len(values), 0), np.float32)
    edges = np.unique(np.quantile(known, np.linspace(0, 1, NUM_BINS + 1)[1:-1]))
    place = np.searchsorted(edges, values, side="right")
    return (np.eye(len(edges) + 1)[place] * np.isfinite(values)[:, None]).astype(np.float32)
