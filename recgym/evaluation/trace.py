"""Every slate of the first few lanes, for the replay in the report."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from recgym.evaluation.metrics.arrays import Floats, Ints
from recgym.worlds.world import World


class Trace:
    """Every slate of the first few lanes."""

    def __init__(self, lanes: int, world: World, prices: Floats | None) -> None:
        self._lanes = lanes
        self._world = world
        self._prices = prices
        self._pieces: list[pd.DataFrame] = []

    def record(self, step: int, rows: Ints, playing: npt.NDArray[np.bool_], info: dict[str, Any]) -> None:
        """Adds the slates of one step.

        Args:
            step: of the episodes.
            rows: [n] lanes that ``info`` is of.
            playing: [n] those whose episode goes on.
            info: of the environment.
        """
        lanes = np.flatnonzero(playing & (rows < self._lanes))
        if not len(lanes):
            return
        slate = np.asarray(info["slate"], np.int64)[lanes]  # [n, K]
        width = slate.shape[1]

        def column(key: str) -> npt.NDArray[Any]:
            values = np.asarray(info[key])[lanes]
            return values.reshape(-1) if values.ndim > 1 else np.repeat(values, width)

        self._pieces.append(
            pd.DataFrame(
                {
                    "lane": np.repeat(rows[lanes], width),
                    "step": step,
                    "trip": column("trip"),
                    "day": column("day"),
                    "position": np.tile(np.arange(width), len(lanes)),
                    "item": slate.reshape(-1),
                    **{key: column(key) for key in ("examined", "consumed", "quantity", "rating")},
                }
            )
        )

    def table(self, users: Ints) -> pd.DataFrame:
        """The traced slates, user by user, with titles and prices so that the report needs no world."""
        if not self._pieces:
            return pd.DataFrame()
        steps = pd.concat(self._pieces).sort_values(["lane", "step", "position"], kind="stable", ignore_index=True)
        steps.insert(0, "user", users[steps.pop("lane").to_numpy()])
        rows = steps["item"].to_numpy()
        shown = self._world.items.iloc[rows]
        for name in ("title", "category"):
            steps[name] = shown[name].astype(str).to_numpy() if name in shown else ""
        steps["price"] = np.nan if self._prices is None else self._prices[rows]
        return steps
