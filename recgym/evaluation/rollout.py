"""One agent plays one episode with each user, all users of a chunk at once; out come columns of rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from gymnasium.vector import AutoresetMode

from recgym.agents.online import Transitions
from recgym.agents.protocol import ActContext, Agent
from recgym.envs.vector import RecVectorEnv
from recgym.errors import ActionError, AgentError
from recgym.simulation.simulator import Simulator
from recgym.simulation.state import State
from recgym.worlds.world import World

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Played:
    """What a chunk of episodes left behind.

    Attributes:
        episodes: one row a user, in the order given.
        exposures: item row, shown (times) and consumed (times), ascending by item, zeros left out.
        steps: one row a slate position, for the users that were traced.
    """

    episodes: pd.DataFrame
    exposures: pd.DataFrame
    steps: pd.DataFrame


@dataclass(frozen=True)
class Catalogue:
    """What the rows need to know of a world's items and users, looked up once."""

    prices: Floats | None  # [N] currency units, discount taken off; None where items have no price
    popularity: Floats  # [N] logged purchases
    owned: Ints  # sorted keys user * N + item of the pairs in the log
    history_trips: Ints  # [U]

    @classmethod
    def of(cls, world: World) -> Catalogue:
        """The catalogue of ``world``."""
        log = world.interactions()
        owned = log["user"].to_numpy(np.int64) * world.num_items + log["item"].to_numpy(np.int64)
        prices = None
        if "price" in world.items and bool(world.items["price"].notna().any()):
            columns = world.items.reindex(columns=["price", "discount"]).fillna(0.0)
            prices = (columns["price"] * (1 - columns["discount"])).to_numpy(np.float64)
        return cls(
            prices=prices,
            popularity=world.items["popularity"].to_numpy(np.float64),
            owned=np.sort(owned),
            history_trips=world.users["num_trips"].to_numpy(np.int64),
        )

    def is_new(self, users: Ints, items: Ints) -> npt.NDArray[np.bool_]:
        """[B, K] whether the log never saw ``users`` [B] with ``items`` [B, K]."""
        keys = users[:, None] * len(self.popularity) + items
        at = np.searchsorted(self.owned, keys).clip(max=max(len(self.owned) - 1, 0))
        return self.owned[at] != keys if len(self.owned) else np.ones(items.shape, bool)


def play(
    agent: Agent,
    simulator: Simulator,
    users: Ints,
    lane_seeds: Ints,
    *,
    catalogue: Catalogue,
    num_traced: int = 0,
    finished: Callable[[int], None] = lambda count: None,
) -> Played:
    """Plays one episode with every user.

    Args:
        agent: chooses the slates; one that ``adapts`` is updated after every step.
        simulator: of the world and the scenario.
        users: [B] user rows.
        lane_seeds: [B] the luck of each episode.
        catalogue: of ``world``.
        num_traced: of how many users, from the first, every slate is recorded.
        finished: told after every step how many episodes have ended.

    Raises:
        AgentError: the agent returned slates of the wrong shape.
        ActionError: the agent returned an invalid slate; names the agent, the lane and the reason.
    """
    env = RecVectorEnv(
        world=simulator.world,
        scenario=simulator.scenario,
        num_envs=len(users),
        action_mode="slate",
        observation=agent.observes,
        strict=True,
        autoreset_mode=AutoresetMode.NEXT_STEP,
        device=simulator.device,
        simulator=simulator,
    )
    try:
        return _play(agent, env, simulator, users, lane_seeds, catalogue, num_traced, finished)
    finally:
        env.close()


def _play(
    agent: Agent,
    env: RecVectorEnv,
    simulator: Simulator,
    users: Ints,
    lane_seeds: Ints,
    catalogue: Catalogue,
    num_traced: int,
    finished: Callable[[int], None],
) -> Played:
    lanes = len(users)
    ledger = _Ledger(lanes, env.world.num_items, catalogue)
    trace = _Trace(num_traced, env.world, catalogue.prices)
    observations, info = env.reset(
        seed=[int(seed) for seed in lane_seeds], options={"users": users, "episodes": np.zeros(lanes, np.int64)}
    )
    first_day = np.asarray(info["day"], np.int64).copy()
    step = 0
    while ledger.alive.any():
        context = ActContext(lane_seeds, np.full(lanes, step), env.slate_size, learning=agent.adapts)
        slates = agent.act(observations, context, env=env if agent.privileged else None)
        if np.shape(slates) != (lanes, env.slate_size):
            raise AgentError(
                f"agent {agent.id!r} returned slates of shape {np.shape(slates)}, not {(lanes, env.slate_size)}"
            )
        before, unsure = observations, _disagreement(simulator, env.state, slates)
        try:
            observations, rewards, terminated, truncated, info = env.step(slates)
        except ActionError as error:
            raise ActionError(f"agent {agent.id!r}, slate {step} of the episodes: {error}") from error
        ledger.record(users, first_day, rewards, terminated, truncated, info, unsure)
        if agent.adapts:
            told = (rewards, terminated, truncated, info)
            examined = env.scenario.observation.examined
            agent.update(Transitions.of_step(before, slates, told, lanes=ledger.playing, examined=examined))
        trace.record(step, ledger.playing, info)
        step += 1
        finished(int(lanes - ledger.alive.sum()))
    return Played(ledger.episodes(users, lane_seeds), ledger.exposures(), trace.table(users))


def _disagreement(simulator: Simulator, state: State, slates: Ints) -> Floats | None:
    """How the members of an ensemble differ on the slates about to be shown, [B] a mean over slots; None without."""
    positions = torch.as_tensor(slates, device=state.candidates.device)
    positions = positions.clamp(0, state.candidates.shape[1] - 1)  # what lies outside is refused by the step itself
    items = state.candidates.to(torch.int64).gather(1, positions)
    spread = simulator.disagreement(state, items)
    return None if spread is None else spread.mean(1).numpy(force=True).astype(np.float64)


class _Ledger:
    """Running sums of every lane's first episode; what a lane does after it ended is not counted."""

    def __init__(self, lanes: int, num_items: int, catalogue: Catalogue) -> None:
        self.alive = np.ones(lanes, bool)  # [B] the episode goes on
        self.playing = self.alive  # [B] the episode went on when the last slate was shown
        self._catalogue = catalogue
        self._sums: dict[str, Floats] = {}
        self._terminated = np.zeros(lanes, bool)
        self._shown = np.zeros(num_items, np.int64)
        self._taken = np.zeros(num_items, np.int64)

    def record(
        self,
        users: Ints,
        first_day: Ints,
        rewards: Any,
        terminated: Any,
        truncated: Any,
        info: dict[str, Any],
        unsure: Floats | None,
    ) -> None:
        """Adds one step of every lane that is still in its first episode."""
        now = self.playing = self.alive
        slate = np.asarray(info["slate"], np.int64)  # [B, K]
        consumed = np.asarray(info["consumed"], bool) & now[:, None]  # [B, K]
        quantity = np.where(consumed, info["quantity"], 0)  # [B, K]
        rated = np.where(consumed, info["rating"], 0)  # [B, K]
        catalogue = self._catalogue
        self._add("reward", np.asarray(rewards, np.float64))
        self._add("num_steps", np.ones(len(now)))
        self._add("num_shown", np.full(len(now), slate.shape[1]))
        self._add("num_examined", np.asarray(info["examined"], np.int64).sum(1))
        self._add("num_consumed", consumed.sum(1))
        self._add("num_hits", consumed.max(axis=1))
        self._add("num_new", (consumed & catalogue.is_new(users, slate)).sum(1))
        self._add("units", quantity.sum(1))
        if catalogue.prices is not None:
            self._add("revenue", (quantity * catalogue.prices[slate]).sum(1))
        if unsure is not None:
            self._add("disagreement", unsure)
        self._add("num_rated", (rated > 0).sum(1))
        self._add("rating_sum", rated.sum(1))
        self._add("popularity_shown", catalogue.popularity[slate].sum(1))
        self._set("num_trips", np.asarray(info["trip"]) + 1)
        self._set("num_days", np.asarray(info["day"]) - first_day)
        np.add.at(self._shown, slate[now], 1)
        np.add.at(self._taken, slate[consumed], 1)
        self._terminated |= now & np.asarray(terminated, bool)
        self.alive = now & ~(np.asarray(terminated, bool) | np.asarray(truncated, bool))

    def _add(self, name: str, values: npt.NDArray[Any]) -> None:
        sums = self._sums.setdefault(name, np.zeros(len(self.alive)))
        sums[self.alive] += values[self.alive]

    def _set(self, name: str, values: npt.NDArray[Any]) -> None:
        self._sums.setdefault(name, np.zeros(len(self.alive)))[self.alive] = values[self.alive]

    def episodes(self, users: Ints, lane_seeds: Ints) -> pd.DataFrame:
        """One row a lane."""
        real = ("reward", "revenue", "disagreement")
        whole = {name: sums.astype(np.int64) for name, sums in self._sums.items() if name not in real}
        nothing = np.full(len(users), np.nan)
        return pd.DataFrame(
            {
                "user": users,
                "lane_seed": lane_seeds,
                "history_trips": self._catalogue.history_trips[users],
                "reward": self._sums["reward"],
                "revenue": self._sums.get("revenue", nothing),
                **whole,
                "disagreement": self._sums.get("disagreement", nothing) / np.maximum(whole["num_steps"], 1),
                "ended": np.where(self._terminated, "left", "truncated"),
            }
        )

    def exposures(self) -> pd.DataFrame:
        """How often each item was shown and consumed."""
        items = np.flatnonzero(self._shown)
        return pd.DataFrame({"item": items, "shown": self._shown[items], "consumed": self._taken[items]})


class _Trace:
    """Every slate of the first few lanes, for the replay in the report."""

    def __init__(self, lanes: int, world: World, prices: Floats | None) -> None:
        self._lanes = lanes
        self._world = world
        self._prices = prices
        self._pieces: list[pd.DataFrame] = []

    def record(self, step: int, playing: npt.NDArray[np.bool_], info: dict[str, Any]) -> None:
        lanes = np.flatnonzero(playing[: self._lanes])
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
                    "lane": np.repeat(lanes, width),
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
