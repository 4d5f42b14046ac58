"""What an agent may see, as bounded float features; nothing here is computed by the preference model."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recgym import compiled
from recgym.compiled import observation as kernels
from recgym.errors import unknown_name
from recgym.scenario import Scenario
from recgym.simulation.buffers import Buffers
from recgym.simulation.choice import shown_before
from recgym.simulation.record import RECENT_SIZE, lookup
from recgym.simulation.state import State
from recgym.threads import spread
from recgym.worlds.world import World

TEXT_SIZE = 16  # principal components of the item text embedding
NUM_CATEGORIES = 12  # largest categories with a column of their own
OWN_RECENCY_DAYS = 30.0
_OWN_COUNT_SCALE = 1.0 / math.log1p(64)
OBSERVATION_KEYS = ("user", "candidates", "candidate_items", "user_id", "history")


def _column(frame: object, name: str, size: int) -> np.ndarray:
    values = frame[name].to_numpy("float64") if name in frame else np.zeros(size)  # type: ignore[operator,index]
    return np.nan_to_num(values, nan=0.0)


def _log_scaled(values: np.ndarray) -> np.ndarray:
    """log1p, divided by its largest value: [0, 1]."""
    logs = np.log1p(np.maximum(values, 0.0))
    return logs / max(float(logs.max(initial=0.0)), 1e-12)


def main_categories(world: World) -> list[str]:
    """The largest categories, largest first."""
    return [str(name) for name in world.items["category"].value_counts().index[:NUM_CATEGORIES]]


def candidate_features(world: World) -> list[str]:
    """Names of the F features of a candidate, in order."""
    text = [f"text_{i}" for i in range(TEXT_SIZE)]
    categories = [f"category={name}" for name in main_categories(world)]
    static = [*text, "popularity", "price", "discount", *categories, "category=other"]
    return [*static, "own_count", "own_recency", "shown"]


def user_features(world: World) -> list[str]:
    """Names of the Du features of a user, in order."""
    attributes: list[str] = []
    for name, levels in world.spec.attributes.items():
        attributes += [*(f"{name}={level}" for level in levels), f"{name}=missing"]
    calendar = ["num_trips", "num_items", "days_since_visit", "mean_gap", "mean_size", "elapsed"]
    trip = ["step", "bought", "last_hits"]
    text = [f"{kind}_text_{i}" for kind in ("shown", "consumed") for i in range(TEXT_SIZE)]
    return [*attributes, *calendar, *trip, *text]


def text_features(world: World) -> Tensor:
    """Item text vectors [N, 16] in [-1, 1], on a scale on which clipping is rare."""
    text = world.item_tensors["text_pca"].float()
    scale = 3.0 * float(text.std(dim=0, correction=0).max()) if len(text) else 1.0
    return (text / max(scale, 1e-12)).clamp(-1.0, 1.0)


def _item_table(world: World) -> Tensor:
    """The static features [N, F]; the three of the user's own are left at 0."""
    size = world.num_items
    names = main_categories(world)
    number = {name: i for i, name in enumerate(names)}
    category = np.array([number.get(str(value), len(names)) for value in world.items["category"]])
    columns = (
        text_features(world).numpy(),
        _log_scaled(_column(world.items, "popularity", size))[:, None],
        _log_scaled(_column(world.items, "price", size))[:, None],
        np.clip(_column(world.items, "discount", size), 0.0, 1.0)[:, None],
        np.eye(len(names) + 1)[category],
        np.zeros((size, 3)),
    )
    return torch.from_numpy(np.concatenate(columns, axis=1).astype(np.float32))


def _user_table(world: World) -> Tensor:
    """One-hot attributes [U, A], each with a flag for a missing value."""
    blocks = [np.zeros((world.num_users, 0))]
    for name, levels in world.spec.attributes.items():
        number = {level: i for i, level in enumerate(levels)}
        code = [number.get(str(value), len(levels)) for value in world.users[name]]
        blocks.append(np.eye(len(levels) + 1)[np.array(code, dtype=np.int64)])
    return torch.from_numpy(np.concatenate(blocks, axis=1).astype(np.float32))


@dataclass(frozen=True)
class Entry:
    """The shape, bounds and type of one observation key, without the lane dimension."""

    shape: tuple[int, ...]
    low: float
    high: float
    dtype: torch.dtype


@dataclass(frozen=True)
class View:
    """Arguments of the compiled kernels for some lanes, but for where to write."""

    part: slice
    candidates: tuple[Any, ...]
    users: tuple[Any, ...]


class Observer:
    """Computes observations; static features are tabulated once and gathered into a reused buffer."""

    def __init__(self, world: World, scenario: Scenario, device: torch.device) -> None:
        """Tabulates the static features of the items and users of ``world``."""
        self._items = _item_table(world).to(device)
        self._users = _user_table(world).to(device)
        self.text = text_features(world).to(device)  # [N, 16]
        self._count_levels = torch.arange(65.0).log1p().mul(_OWN_COUNT_SCALE).clamp(max=1.0)  # by own count, up to 1
        self._max_slates = float(scenario.episode.max_slates)
        self._slate_size = scenario.actions.slate_size
        self._days = float(scenario.episode.horizon_days)
        size, items = scenario.actions.num_candidates, world.num_items
        self.entries = {
            "user": Entry((len(user_features(world)),), -1.0, 1.0, torch.float32),
            "candidates": Entry((size, self._items.shape[1]), -1.0, 1.0, torch.float32),
            "candidate_items": Entry((size,), 0, items - 1, torch.int64),
            "user_id": Entry((1,), 0, world.num_users - 1, torch.int64),
            "history": Entry((RECENT_SIZE,), -1, items - 1, torch.int64),
        }
        self._compute: dict[str, Callable[[State, Sequence[View] | None], Tensor]] = {
            "user": self._user,
            "candidates": self._candidates,
            "candidate_items": self._candidate_items,
            "user_id": self._user_id,
            "history": self._history,
        }
        self._buffers = Buffers(device)

    def bind(self, state: State, chunk: int | None = None) -> list[View]:
        """The kernels' arguments for ``chunk`` lanes of ``state`` each; None: all lanes together."""
        lanes, visit, on_file = len(state.user), state.visit, state.on_file
        record = on_file.record
        chunk = max(lanes, 1) if chunk is None else chunk
        table = (record.items, record.counts, record.last_days, on_file.num_items)
        own = (state.candidates, *table, visit.day, visit.step)
        trip = (on_file.gap_days, record.mean_log_gap, record.mean_log_size, visit.day, state.start_day, visit.step)
        pooled = (visit.bought, state.last_hits, state.shown_text, state.shown_count, state.consumed_text)
        of_candidates = [tensor.numpy() for tensor in (*own, state.memory.items)]
        of_users = [tensor.numpy() for tensor in (state.user, record.num_trips, on_file.num_items, *trip, *pooled)]
        features, levels, rate = self._items.numpy(), self._count_levels.numpy(), np.float32(1.0 / OWN_RECENCY_DAYS)
        limits = (record.items.shape[1], np.float32(self._days), np.float32(self._max_slates))
        views = []
        for start in range(0, lanes, chunk):
            part = slice(start, start + chunk)
            candidates = (features, levels, rate, self._slate_size, *(array[part] for array in of_candidates))
            users = (self._users.numpy(), *limits, *(array[part] for array in of_users))
            views.append(View(part, candidates, users))
        return views

    def observe(self, state: State, keys: Iterable[str], views: Sequence[View] | None = None) -> dict[str, Tensor]:
        """The observation by key, each with the lane dimension first.

        Args:
            state: B lanes.
            keys: what to observe.
            views: what ``bind`` gave for ``state``, where that is at hand.

        Raises:
            UnknownNameError: a key that is not observable.
        """
        out = {}
        for key in keys:
            if key not in self.entries:
                raise unknown_name("observation key", key, OBSERVATION_KEYS)
            out[key] = self._compute[key](state, views)
        return out

    @staticmethod
    def _candidate_items(state: State, views: object) -> Tensor:
        return state.candidates.to(torch.int64)

    @staticmethod
    def _user_id(state: State, views: object) -> Tensor:
        return state.user[:, None].clone()

    @staticmethod
    def _history(state: State, views: object) -> Tensor:
        return state.on_file.record.recent.to(torch.int64)

    def _candidates(self, state: State, views: Sequence[View] | None) -> Tensor:
        lanes, size = state.candidates.shape
        width = self._items.shape[1]
        out = self._buffers.take(lanes, size, width)
        if compiled.runs_on(out):
            features = out.numpy()
            spread(lambda view: kernels.candidates(*view.candidates, features[view.part]), views or self.bind(state))
            return out
        torch.index_select(self._items, 0, state.candidates.view(-1), out=out.view(lanes * size, width))
        counts, last_days = lookup(state.on_file.record, state.candidates)
        owned = counts > 0
        days = (state.visit.day[:, None] - last_days).to(torch.float32)
        out[..., -3] = (counts.log1p() * _OWN_COUNT_SCALE).clamp_(max=1.0)
        out[..., -2] = (days * (-1.0 / OWN_RECENCY_DAYS)).exp().clamp_(max=1.0) * owned
        out[..., -1] = shown_before(state.memory, state.candidates)
        return out

    def _user(self, state: State, views: Sequence[View] | None) -> Tensor:
        visit, on_file = state.visit, state.on_file
        record = on_file.record
        if compiled.runs_on(state.user):
            out = torch.empty(len(state.user), self.entries["user"].shape[0])
            features = out.numpy()
            spread(lambda view: kernels.users(*view.users, features[view.part]), views or self.bind(state))
            return out

        def log_share(values: Tensor, largest: float) -> Tensor:
            return values.to(torch.float32).log1p() / math.log1p(largest)

        scalars = torch.stack(
            (
                log_share(record.num_trips, 1000.0),
                log_share(on_file.num_items, float(record.items.shape[1])),
                log_share(on_file.gap_days, 365.0),
                record.mean_log_gap / math.log1p(365.0),
                record.mean_log_size / math.log(100.0),
                (visit.day - state.start_day) / self._days,
                visit.step / self._max_slates,
                log_share(visit.bought, 100.0),
                state.last_hits,
            ),
            dim=1,
        ).clamp_(0.0, 1.0)
        shown = state.shown_text / state.shown_count.clamp(min=1)[:, None]
        consumed = state.consumed_text / visit.bought.clamp(min=1)[:, None]
        pooled = torch.cat((shown, consumed), dim=1).clamp_(-1.0, 1.0)
        return torch.cat((self._users[state.user], scalars, pooled), dim=1)
