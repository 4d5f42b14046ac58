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
from recgym.evaluation.metrics.definitions import FIRST

TERMS = ("terms/", "costs/", "violations/")  # prefixes of what a step tells of objective and constraints
OF_ITEMS = ("offered", "wanted", "relevance", "due", "received")  # sums over first slates of visits, an item
# Sums by group of providers: over all slates, and over the first slate of each visit, where the truth is known.
SHARES = ("attention", "consumed", *OF_ITEMS, "placed", "found", "taken")
_REAL = ("reward", "revenue", "disagreement")  # written as float64, other sums that are not whole as float32


@dataclass(frozen=True)
class Answer:
    """One step of n lanes: what was shown, what came of it, and what was known of it before.

    Attributes:
        rows: [n] the lanes, ascending.
        rewards: [n].
        terminated: [n] bool.
        truncated: [n] bool.
        info: of the environment's step.
        obvious: [n] popularity from which a candidate is among the K most popular ones of this step.
        log_chance: [n] log of the chance of the slate under the policy; NaN where it is not known.
        disagreement: [n] of an ensemble's members on the slate; None without an ensemble.
        verdict: on those of the n that began a visit.
    """

    rows: Ints

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

    def __init__(
        self, users: Ints, first_day: Ints, catalogue: Catalogue, attention: Floats, horizon_days: int | None = None
    ) -> None:
        """Nothing has been shown yet.

        Args:
            users: [B] user rows.
            first_day: [B] the day on which each episode begins.
            catalogue: of the world.
            attention: [K] chance that a position is looked at.
            horizon_days: days that episodes last; None where an episode is one visit.
        """
        lanes = len(users)
        self.alive = np.ones(lanes, bool)  # [B] the episode goes on
        self._users, self._first_day, self._catalogue, self._attention = users, first_day, catalogue, attention
        self._sums: dict[str, Floats] = {}
        self._horizon_days = horizon_days
        self._ended = np.full(lanes, "slates", object)  # how: left, horizon or slates
        self._had: set[int] = set()  # keys of lanes and items that were consumed, and new to the user before
        self._items = {name: np.zeros(catalogue.num_items) for name in ("shown", "consumed", "attention")}
        self._judged = {name: np.zeros(catalogue.num_items) for name in OF_ITEMS}
        self._shares = {
            providers.attribute: {name: np.zeros((lanes, len(providers.labels))) for name in SHARES}
            for providers in catalogue.providers
        }
        self._categories = np.zeros((lanes, catalogue.num_categories))
        self._slates: list[dict[str, npt.NDArray[Any]]] = []

    def record(self, answer: Answer) -> None:
        """Adds one step of those of its lanes that are still in their first episode."""
        catalogue, on = self._catalogue, self.alive[answer.rows]  # [n]
        lanes = answer.rows[on]  # [m]
        info = {key: np.asarray(values)[on] for key, values in answer.info.items() if _of_lanes(key, values, on)}
        slate, consumed = info["slate"].astype(np.int64), info["consumed"].astype(bool)  # [m, K]
        quantity = np.where(consumed, info["quantity"], 0)  # [m, K]
        rated = np.where(consumed, info["rating"], 0)  # [m, K]
        first = self._first(lanes, slate, consumed & catalogue.is_new(self._users[lanes], slate))
        popularity, unseen = catalogue.popularity[slate], catalogue.unseen[slate]
        rewards = np.asarray(answer.rewards, np.float64)[on]
        revenue = _revenue(info, quantity, slate, catalogue.prices)
        kinds = catalogue.categories[slate]
        figures: dict[str, Any] = {
            "reward": rewards,
            "num_steps": np.ones(len(lanes)),
            "num_shown": np.full(len(lanes), slate.shape[1]),
            "num_examined": info["examined"].astype(np.int64).sum(1),
            "num_consumed": consumed.sum(1),
            "num_hits": consumed.max(axis=1),
            "num_new": first.sum(1),
            "units": quantity.sum(1),
            **({} if catalogue.prices is None else {"revenue": revenue}),
            **({} if answer.disagreement is None else {"disagreement": answer.disagreement[on]}),
            "num_rated": (rated > 0).sum(1),
            "rating_sum": rated.sum(1),
            "popularity_shown": popularity.sum(1),
            "num_tail": catalogue.tail[slate].sum(1),
            "information_shown": catalogue.information[slate].sum(1),
            "diversity_sum": _different(kinds),
            "num_unseen": unseen.sum(1),
            "num_unseen_consumed": (consumed & unseen).sum(1),
            # of the scenario's objective and constraints
            **{name: values.astype(np.float64) for name, values in info.items() if name.startswith(TERMS)},
            "num_serendipitous": (first & (popularity < answer.obvious[on, None])).sum(1),
            "log_propensity": answer.log_chance[on],
        }
        for name, values in figures.items():
            self._of(name)[lanes] += values
        steps = self._sums["num_steps"][lanes]
        for count in FIRST:
            self._of(f"reward_first_{count}")[lanes] += np.where(steps <= count, rewards, 0.0)
        day = info["day"] - self._first_day[lanes]
        self._of("num_trips")[lanes] = info["trip"] + 1
        self._of("num_days")[lanes] = day
        self._expose(lanes, slate, consumed, kinds)
        self._judge(answer)
        self._slates.append(
            {
                "lane": lanes.astype(np.int32),
                "trip": info["trip"].astype(np.int32),
                "day": day.astype(np.int32),
                "reward": rewards.astype(np.float32),
                "revenue": revenue.astype(np.float32),
                "num_consumed": consumed.sum(1).astype(np.int32),
                "kinds": kinds.astype(np.int32),
            }
        )
        left = np.asarray(answer.terminated, bool)[on]
        self._ended[lanes[left]] = "left"
        if self._horizon_days is not None:
            self._ended[lanes[~left & (day + info["gap_days"] >= self._horizon_days)]] = "horizon"
        self.alive[lanes] = ~(left | np.asarray(answer.truncated, bool)[on])

    def _first(self, lanes: Ints, slate: Ints, new: Bools) -> Bools:
        """[m, K] which of ``new``, consumed items that the log never saw with the user, are so for the first time."""
        first = new.copy()
        keys = (lanes[:, None] * self._catalogue.num_items + slate)[new].tolist()
        first[new] = [key not in self._had for key in keys]
        self._had.update(keys)
        return first

    def _expose(self, lanes: Ints, slate: Ints, consumed: Bools, kinds: Ints) -> None:
        """Who was shown [m, K] and taken: by item, by category, and by group of providers."""
        num_items = self._catalogue.num_items
        weights = np.broadcast_to(self._attention, slate.shape)
        self._items["shown"] += np.bincount(slate.reshape(-1), minlength=num_items)
        self._items["consumed"] += np.bincount(slate[consumed], minlength=num_items)
        self._items["attention"] += np.bincount(slate.reshape(-1), weights.reshape(-1), num_items)
        self._categories[lanes] += _by_lane(kinds, np.ones(slate.shape), self._categories.shape[1])
        for providers in self._catalogue.providers:
            sums, codes = self._shares[providers.attribute], providers.codes[slate]
            sums["attention"][lanes] += _by_lane(codes, weights, len(providers.labels))
            sums["consumed"][lanes] += _by_lane(codes, consumed, len(providers.labels))

    def _judge(self, answer: Answer) -> None:
        """What the truth says of the lanes that began a visit."""
        verdict = answer.verdict
        if verdict is None:
            return
        lanes, num_items = answer.rows[verdict.lanes], self._catalogue.num_items
        due, received = verdict.due(), verdict.received()
        figures = {
            "num_judged": np.ones(len(lanes)),
            **verdict.accuracy(),
            **(verdict.of_new(self._catalogue.unseen) if self._catalogue.unseen.any() else {}),
            "regret_sum": verdict.regret(),
            "exposure_loss_sum": ((received - due) ** 2).sum(1),
        }
        for name, values in figures.items():
            self._of(name)[lanes] += values
        placed, taken = np.zeros(due.shape, bool), np.zeros(due.shape, bool)
        np.put_along_axis(placed, verdict.slates, True, axis=1)
        np.put_along_axis(taken, verdict.slates, np.asarray(answer.info["consumed"], bool)[verdict.lanes], axis=1)
        judged: dict[str, npt.NDArray[Any]] = {
            "offered": np.ones(due.shape),
            "wanted": verdict.wanted,
            "relevance": verdict.relevance,
            "due": due,
            "received": received,
            "placed": placed,
            "found": placed & verdict.wanted,
            "taken": taken,
        }
        items = verdict.items.reshape(-1)
        for name in OF_ITEMS:
            self._judged[name] += np.bincount(items, judged[name].reshape(-1), num_items)
        for providers in self._catalogue.providers:
            sums, codes = self._shares[providers.attribute], providers.codes[verdict.items]
            for name, values in judged.items():
                sums[name][lanes] += _by_lane(codes, values, len(providers.labels))

    def _of(self, name: str) -> Floats:
        """[B] the sum called ``name``."""
        return self._sums.setdefault(name, np.zeros(len(self.alive)))

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
                "ended": self._ended,
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
        """One row a lane and group of providers: ``SHARES``."""
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
        """One row an item: how often it was shown and consumed, its attention, and ``OF_ITEMS``."""
        table = pd.DataFrame({**self._items, **self._judged})
        whole = ["shown", "consumed", "offered", "wanted"]
        table = table.astype({name: np.int64 for name in whole})
        table.insert(0, "item", np.arange(len(table)))
        return table[(table["shown"] > 0) | (table["offered"] > 0)].reset_index(drop=True)


def _of_lanes(key: str, values: Any, lanes: Bools) -> bool:
    """Whether an entry of ``info`` says something of each lane, and is not the mask of another one."""
    return not key.startswith("_") and len(np.shape(values)) > 0 and len(values) == len(lanes)


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
