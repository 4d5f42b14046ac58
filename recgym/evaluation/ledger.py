"""The ledger of a chunk of episodes: running sums of every lane, from which its rows are written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from recgym.evaluation.catalogue import Catalogue
from recgym.evaluation.judge import Verdict
from recgym.evaluation.metrics.arrays import Bools, Floats, Ints
from recgym.evaluation.metrics.beyond_accuracy import category_entropy, miscalibration
from recgym.evaluation.metrics.rows import FIRST

TERMS = ("terms/", "costs/", "violations/")  # prefixes of what a step tells of objective and constraints
_REAL = ("reward", "revenue", "disagreement")  # written as float64, other sums that are not whole as float32


@dataclass(frozen=True)
class Answer:
    """One step of B lanes: what was shown, what came of it, and what was known of it before.

    Attributes:
        rewards: [B].
        terminated: [B] bool.
        truncated: [B] bool.
        info: of the environment's step.
        obvious: [B] popularity from which a candidate is among the K most popular ones of this step.
        log_chance: [B] log of the chance of the slate under the policy; NaN where it is not known.
        disagreement: [B] of an ensemble's members on the slate; None without an ensemble.
        verdict: on the lanes that began a visit.
    """

    rewards: npt.NDArray[Any]
    terminated: Bools
    truncated: Bools
    info: dict[str, Any]
    obvious: Floats
    log_chance: Floats
    disagreement: Floats | None
    verdict: Verdict | None


class Ledger:
    """Running sums of every lane's first episode; what a lane does after it ended is not counted."""

    def __init__(self, users: Ints, first_day: Ints, catalogue: Catalogue, attention: Floats) -> None:
        """Nothing has been shown yet.

        Args:
            users: [B] user rows.
            first_day: [B] the day on which each episode begins.
            catalogue: of the world.
            attention: [K] chance that a position is looked at.
        """
        lanes = len(users)
        self.alive = np.ones(lanes, bool)  # [B] the episode goes on
        self.playing = self.alive  # [B] the episode went on when the last slate was shown
        self._users, self._first_day, self._catalogue, self._attention = users, first_day, catalogue, attention
        self._sums: dict[str, Floats] = {}
        self._terminated = np.zeros(lanes, bool)
        self._items = {name: np.zeros(catalogue.num_items) for name in ("shown", "consumed", "attention")}
        self._judged = {name: np.zeros(catalogue.num_items) for name in ("offered", "wanted", "relevance", "due")}
        self._shares = {
            providers.attribute: {
                name: np.zeros((lanes, len(providers.labels)))
                for name in ("attention", "consumed", "relevance", "due", "offered", "wanted", "placed", "found")
            }
            for providers in catalogue.providers
        }
        self._categories = np.zeros((lanes, catalogue.num_categories))
        self._slates: list[dict[str, npt.NDArray[Any]]] = []

    def record(self, answer: Answer) -> None:
        """Adds one step of every lane that is still in its first episode."""
        info, catalogue = answer.info, self._catalogue
        now = self.playing = self.alive
        slate = np.asarray(info["slate"], np.int64)  # [B, K]
        consumed = np.asarray(info["consumed"], bool) & now[:, None]  # [B, K]
        quantity = np.where(consumed, info["quantity"], 0)  # [B, K]
        rated = np.where(consumed, info["rating"], 0)  # [B, K]
        new = catalogue.is_new(self._users, slate)
        popularity = catalogue.popularity[slate]
        rewards = np.asarray(answer.rewards, np.float64)
        revenue = _revenue(info, quantity, slate, catalogue.prices)
        kinds = catalogue.categories[slate]
        self._add("reward", rewards)
        self._add("num_steps", np.ones(len(now)))
        self._add("num_shown", np.full(len(now), slate.shape[1]))
        self._add("num_examined", np.asarray(info["examined"], np.int64).sum(1))
        self._add("num_consumed", consumed.sum(1))
        self._add("num_hits", consumed.max(axis=1))
        self._add("num_new", (consumed & new).sum(1))
        self._add("units", quantity.sum(1))
        if catalogue.prices is not None:
            self._add("revenue", revenue)
        if answer.disagreement is not None:
            self._add("disagreement", answer.disagreement)
        self._add("num_rated", (rated > 0).sum(1))
        self._add("rating_sum", rated.sum(1))
        self._add("popularity_shown", popularity.sum(1))
        self._add("num_tail", catalogue.tail[slate].sum(1))
        self._add("information_shown", catalogue.information[slate].sum(1))
        self._add("diversity_sum", _different(kinds))
        self._add("num_unseen", catalogue.unseen[slate].sum(1))
        self._add("num_unseen_consumed", (consumed & catalogue.unseen[slate]).sum(1))
        for name in info:  # of the scenario's objective and constraints
            if name.startswith(TERMS):
                self._add(name, np.asarray(info[name], np.float64))
        self._add("num_serendipitous", (consumed & new & (popularity < answer.obvious[:, None])).sum(1))
        self._add("log_propensity", answer.log_chance)
        steps = self._sums["num_steps"]
        for count in FIRST:
            self._add(f"reward_first_{count}", np.where(steps <= count, rewards, 0.0))
        self._set("num_trips", np.asarray(info["trip"]) + 1)
        self._set("num_days", np.asarray(info["day"]) - self._first_day)
        self._expose(slate, consumed, kinds)
        self._judge(answer.verdict)
        lanes = np.flatnonzero(now)
        self._slates.append(
            {
                "lane": lanes.astype(np.int32),
                "trip": np.asarray(info["trip"])[lanes].astype(np.int32),
                "day": (np.asarray(info["day"]) - self._first_day)[lanes].astype(np.int32),
                "reward": rewards[lanes].astype(np.float32),
                "revenue": revenue[lanes].astype(np.float32),
                "num_consumed": consumed.sum(1)[lanes].astype(np.int32),
                "kinds": kinds[lanes].astype(np.int32),
            }
        )
        self._terminated |= now & np.asarray(answer.terminated, bool)
        self.alive = now & ~(np.asarray(answer.terminated, bool) | np.asarray(answer.truncated, bool))

    def _expose(self, slate: Ints, consumed: Bools, kinds: Ints) -> None:
        """Who was shown and taken: by item, by category, and by group of providers."""
        now, num_items = self.playing, self._catalogue.num_items
        shown = slate[now]
        weights = np.broadcast_to(self._attention, slate.shape)
        self._items["shown"] += np.bincount(shown.reshape(-1), minlength=num_items)
        self._items["consumed"] += np.bincount(slate[consumed], minlength=num_items)
        self._items["attention"] += np.bincount(shown.reshape(-1), weights[now].reshape(-1), num_items)
        lanes = np.flatnonzero(now)
        self._categories[lanes] += _by_lane(kinds[now], np.ones(shown.shape), self._categories.shape[1])
        for providers in self._catalogue.providers:
            sums, codes = self._shares[providers.attribute], providers.codes[shown]
            sums["attention"][lanes] += _by_lane(codes, weights[now], len(providers.labels))
            sums["consumed"][lanes] += _by_lane(codes, consumed[now], len(providers.labels))

    def _judge(self, verdict: Verdict | None) -> None:
        """What the truth says of the lanes that began a visit."""
        if verdict is None:
            return
        lanes, num_items = verdict.lanes, self._catalogue.num_items
        due, received = verdict.due(), verdict.received()
        gap = received - due
        figures = {
            "num_judged": np.ones(len(lanes)),
            **verdict.accuracy(),
            **(verdict.of_new(self._catalogue.unseen) if self._catalogue.unseen.any() else {}),
            "regret_sum": verdict.regret(),
            "exposure_loss_sum": (gap**2).sum(1),
            "exposure_disparity_sum": (received**2).sum(1),
            "exposure_relevance_sum": 2 * (received * due).sum(1),
        }
        for name, values in figures.items():
            self._sums.setdefault(name, np.zeros(len(self.alive)))[lanes] += values
        items = verdict.items.reshape(-1)
        for name, values in (("wanted", verdict.wanted), ("relevance", verdict.relevance), ("due", due)):
            self._judged[name] += np.bincount(items, values.reshape(-1), num_items)
        self._judged["offered"] += np.bincount(items, minlength=num_items)
        placed = np.zeros(due.shape, bool)
        np.put_along_axis(placed, verdict.slates, True, axis=1)
        for providers in self._catalogue.providers:
            sums, codes = self._shares[providers.attribute], providers.codes[verdict.items]
            for name, values in (
                ("relevance", verdict.relevance),
                ("due", due),
                ("offered", np.ones(due.shape)),
                ("wanted", verdict.wanted),
                ("placed", placed),
                ("found", placed & verdict.wanted),
            ):
                sums[name][lanes] += _by_lane(codes, values, len(providers.labels))

    def _add(self, name: str, values: npt.NDArray[Any]) -> None:
        sums = self._sums.setdefault(name, np.zeros(len(self.alive)))
        sums[self.alive] += values[self.alive]

    def _set(self, name: str, values: npt.NDArray[Any]) -> None:
        self._sums.setdefault(name, np.zeros(len(self.alive)))[self.alive] = values[self.alive]

    def episodes(self, lane_seeds: Ints) -> pd.DataFrame:
        """One row a lane."""
        users, nothing = self._users, np.full(len(self._users), np.nan)
        counted = {name: sums for name, sums in self._sums.items() if name not in _REAL}
        small = {name: sums.astype(np.float32 if _is_real(name) else np.int64) for name, sums in counted.items()}
        return pd.DataFrame(
            {
                "user": users,
                "lane_seed": lane_seeds,
                "history_trips": self._catalogue.history_trips[users],
                "history_events": self._catalogue.history_events[users],
                "reward": self._sums["reward"],
                "revenue": self._sums.get("revenue", nothing),
                **small,
                "disagreement": self._sums.get("disagreement", nothing) / np.maximum(small["num_steps"], 1),
                "miscalibration": self._miscalibration().astype(np.float32),
                "ended": np.where(self._terminated, "left", "truncated"),
            }
        )

    def _miscalibration(self) -> Floats:
        """[B] of the categories shown against those in the log; NaN where the log has none."""
        before = self._catalogue.histories(self._users)
        known: Bools = before.sum(axis=1) > 0
        found = np.full(len(before), np.nan)
        if known.any():
            found[known] = miscalibration(before[known], self._categories[known])
        return found

    def visits(self) -> pd.DataFrame:
        """One row a visit: user, trip, day of the episode, and what came of it."""
        slates = {name: np.concatenate([part[name] for part in self._slates]) for name in self._slates[0]}
        kinds = slates.pop("kinds")  # [n, K]
        table = pd.DataFrame(slates).assign(
            num_steps=np.int32(1), num_hits=(slates["num_consumed"] > 0).astype("int32")
        )
        keys = ["lane", "trip"]
        visits = table.groupby(keys, as_index=False).agg(
            {"day": "first"} | {name: "sum" for name in table.columns.drop([*keys, "day"])}
        )
        width = kinds.shape[1]
        entropy = category_entropy(
            np.repeat(slates["lane"], width), np.repeat(slates["trip"], width), kinds.reshape(-1), self._num_categories
        )
        visits["entropy"] = entropy["entropy"].to_numpy(np.float32)  # both are ordered by lane and trip
        visits.insert(0, "user", self._users[visits.pop("lane").to_numpy()])
        return visits

    @property
    def _num_categories(self) -> int:
        return self._catalogue.num_categories

    def providers(self) -> pd.DataFrame:
        """One row a lane and group of providers: attention, consumed, and what was due, offered, wanted, shown."""
        parts = []
        for providers in self._catalogue.providers:
            sums = self._shares[providers.attribute]
            size = len(providers.labels)
            parts.append(
                pd.DataFrame(
                    {
                        "user": np.repeat(self._users, size),
                        "attribute": providers.attribute,
                        "group": np.tile(np.array(providers.labels, object), len(self._users)),
                        **{name: values.reshape(-1).astype(np.float32) for name, values in sums.items()},
                    }
                )
            )
        return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()

    def exposures(self) -> pd.DataFrame:
        """How often each item was offered, shown, wanted and consumed, and the attention it got and was due."""
        table = pd.DataFrame({**self._items, **self._judged})
        whole = ["shown", "consumed", "offered", "wanted"]
        table = table.astype({name: np.int64 for name in whole})
        table.insert(0, "item", np.arange(len(table)))
        return table[(table["shown"] > 0) | (table["offered"] > 0)].reset_index(drop=True)


def _revenue(info: dict[str, Any], quantity: Ints, slate: Ints, prices: Floats | None) -> Floats:
    """[B] what is paid: as the simulator tells it where promotions and delays change it, else prices times units."""
    if prices is None:
        return np.zeros(len(slate))
    told = info.get("terms/revenue")
    paid: Floats = (quantity * prices[slate]).sum(1) if told is None else np.asarray(told, np.float64)
    return paid


def _is_real(name: str) -> bool:
    return (
        name.endswith("_sum")
        and name != "rating_sum"
        or name in ("information_shown", "log_propensity")
        or name.startswith(("reward_first", *TERMS))
    )


def _different(kinds: Ints) -> Floats:
    """[B] share of the pairs of a slate [B, K] whose categories differ: ``intra_list_diversity`` of one-hot ones."""
    width = kinds.shape[1]
    if width < 2:
        return np.zeros(len(kinds))
    same = (kinds[:, :, None] == kinds[:, None, :]).sum((1, 2)) - width
    found: Floats = 1 - same / (width * (width - 1))
    return found


def _by_lane(codes: Ints, values: npt.NDArray[Any], num_groups: int) -> Floats:
    """[n, G] sums over the row of ``values`` [n, K] by group ``codes`` [n, K]."""
    lanes = len(codes)
    cells = (np.arange(lanes)[:, None] * num_groups + codes).reshape(-1)
    sums = np.bincount(cells, values.reshape(-1), lanes * num_groups)
    table: Floats = sums.reshape(lanes, num_groups).astype(np.float64)
    return table
