"""Logged rollouts: what a policy showed and what came of it, with exact propensities, as parquet."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from recgym.agents.protocol import ActContext, observation_layout, vocabulary_hash
from recgym.errors import DataError
from recgym.evaluation.store import atomically, write_json
from recgym.random import Purpose, derive_seeds, fold
from recgym.threads import one_thread

if TYPE_CHECKING:
    from recgym.agents.exploration import Behaviour
    from recgym.envs.vector import RecVectorEnv

FORMAT_VERSION = 1
TABLE = "rollouts.parquet"
ABOUT = "rollouts.json"
_OBSERVED = "observations."  # prefix of their columns


@dataclass(frozen=True)
class Rollouts:
    """Logged episodes, a row for every state: those of an episode follow each other.

    An episode of T slates has T + 1 rows; the ``final`` one is the state after the last slate, in which nothing was
    shown: but for the observations, episode and user, its columns are 0. So the state that follows row r is row r + 1.
    """

    about: dict[str, Any]  # world, scenario, policy, seed, item vocabulary, observation layout: JSON values
    observations: dict[str, NDArray[Any]]  # [R, ...] by key
    episode: NDArray[np.int64]  # [R], from 0
    user: NDArray[np.int64]  # [R] user rows
    slate: NDArray[np.int64]  # [R, K] positions among the candidates
    item: NDArray[np.int64]  # [R, K] item rows
    consumed: NDArray[np.bool_]  # [R, K]
    examined: NDArray[np.bool_]  # [R, K]; for studies of bias: agents are not told of it
    propensity: NDArray[np.float64]  # [R, K] chance of each position under the policy, given those above it
    reward: NDArray[np.float32]  # [R]
    terminated: NDArray[np.bool_]  # [R]
    truncated: NDArray[np.bool_]  # [R]; true too where the collection ended before the episode
    final: NDArray[np.bool_]  # [R]

    def slates(self) -> NDArray[np.int64]:
        """The rows in which a slate was shown."""
        return np.flatnonzero(~self.final)

    def save(self, directory: str | Path) -> Path:
        """Writes ``rollouts.parquet`` and ``rollouts.json`` and returns the directory."""
        directory = Path(directory)
        columns = {**{_OBSERVED + key: values for key, values in self.observations.items()}, **self._columns()}
        table = pa.table({name: _encode(values) for name, values in columns.items()})
        atomically(directory / TABLE, lambda file: pq.write_table(table, file, compression="zstd"))
        shapes = {name: list(values.shape[1:]) for name, values in columns.items()}
        write_json(directory / ABOUT, {"format_version": FORMAT_VERSION, "shapes": shapes, **self.about})
        return directory

    @classmethod
    def load(cls, directory: str | Path) -> Rollouts:
        """What ``save`` wrote.

        Raises:
            DataError: the directory holds no rollouts, or they cannot be read.
        """
        directory = Path(directory)
        try:
            about = json.loads((directory / ABOUT).read_text(encoding="utf-8"))
            version = about.pop("format_version", None)
            if version != FORMAT_VERSION:
                raise DataError(f"{directory / ABOUT} has format_version {version!r}; this reads {FORMAT_VERSION}")
            table = pq.read_table(directory / TABLE)
            columns = {name: _decode(table[name], shape) for name, shape in about.pop("shapes").items()}
        except (OSError, KeyError, json.JSONDecodeError, pa.ArrowException) as error:
            raise DataError(f"{directory} holds no logged rollouts that can be read: {error}") from error
        observations = {
            name.removeprefix(_OBSERVED): columns.pop(name) for name in list(columns) if name.startswith(_OBSERVED)
        }
        return cls(about, observations, **columns)

    def _columns(self) -> dict[str, NDArray[Any]]:
        return {
            field.name: getattr(self, field.name)
            for field in fields(self)
            if field.name not in ("about", "observations")
        }


def collect(
    policy: Behaviour,
    env: RecVectorEnv,
    steps: int,
    *,
    keys: Sequence[str],
    seed: int = 0,
    progress: Callable[[int], None] = lambda done: None,
) -> Rollouts:
    """Lets ``policy`` act for ``steps`` slates in all lanes together.

    Args:
        policy: what shows the slates.
        env: whose users, scenario and number of lanes it meets; its own state is left alone.
        steps: slates; rounded up, so that all lanes stop together. Episodes under way by then are truncated.
        keys: observation keys to log.
        seed: of the users and their luck.
        progress: called with the slates shown so far.
    """
    from recgym.envs.vector import RecVectorEnv

    agent, lanes = policy.agent, env.num_envs
    playing = RecVectorEnv(
        world=env.simulator.world,
        scenario=env.scenario,
        num_envs=lanes,
        action_mode="slate",
        observation=tuple(dict.fromkeys([*keys, *agent.observes])),
        strict=True,
        device=env.simulator.device,
        simulator=env.simulator,
    )
    key = int(fold(torch.tensor(seed), int(Purpose.AGENT)))
    seeds = derive_seeds(key, torch.arange(lanes)).numpy()
    steps_in_lane = np.zeros(lanes, np.int64)
    frames: list[dict[str, NDArray[Any]]] = []
    with one_thread():
        observations, info = playing.reset(seed=[int(one) for one in seeds])
        acting, number, next_number = np.ones(lanes, bool), np.arange(lanes), lanes
        while True:
            frame = {_OBSERVED + name: observations[name].copy() for name in keys}
            frame |= {"episode": number.copy(), "user": np.asarray(info["user"], np.int64).copy(), "final": ~acting}
            if steps_in_lane.sum() >= steps:
                frames.append({**frames[-1], **frame, "final": np.ones(lanes, bool), "_fresh": ~frames[-1]["_acted"]})
                break
            context = ActContext(seeds, steps_in_lane.copy(), playing.slate_size)
            slates, chances = policy.act(observations, context)
            observations, rewards, terminated, truncated, info = playing.step(slates)
            frame |= {
                "slate": slates,
                "item": np.asarray(info["slate"], np.int64),
                "consumed": np.asarray(info["consumed"], bool),
                "examined": np.asarray(info["examined"], bool),
                "propensity": chances,
                "reward": np.asarray(rewards, np.float32),
                "terminated": np.asarray(terminated, bool),
                "truncated": np.asarray(truncated, bool),
                "_acted": acting.copy(),
                "_fresh": np.zeros(lanes, bool),
            }
            frames.append({name: np.array(values) for name, values in frame.items()})
            steps_in_lane += acting
            restarted = ~acting  # a lane that ended is reset in the step after
            number[restarted] = next_number + np.arange(restarted.sum())
            next_number += int(restarted.sum())
            acting = restarted | ~(frame["terminated"] | frame["truncated"])
            progress(int(steps_in_lane.sum()))
    playing.close()
    return _assemble(frames, _about(policy, env, seed, keys))


def _assemble(frames: list[dict[str, NDArray[Any]]], about: dict[str, Any]) -> Rollouts:
    """Frames [T][B, ...] as rows, lane by lane."""
    columns = {}
    for name in frames[0]:
        stacked = np.stack([frame[name] for frame in frames], axis=1)  # [B, T, ...]
        columns[name] = stacked.reshape(-1, *stacked.shape[2:])
    # Left out: lanes that were reset just before the end, whose last episode has shown nothing.
    keep = ~columns.pop("_fresh")
    del columns["_acted"]
    columns = {name: values[keep] for name, values in columns.items()}
    final = columns["final"]
    for name in ("slate", "item", "consumed", "examined", "propensity", "reward", "terminated", "truncated"):
        columns[name][final] = 0
    last = np.flatnonzero(final) - 1  # the last slate of every episode
    columns["truncated"][last] |= ~columns["terminated"][last]
    columns["user"][final] = columns["user"][last]
    _, columns["episode"] = np.unique(columns["episode"], return_inverse=True)
    order = np.argsort(columns["episode"], kind="stable")
    columns = {name: values[order] for name, values in columns.items()}
    observations = {name.removeprefix(_OBSERVED): columns.pop(name) for name in list(columns) if _OBSERVED in name}
    return Rollouts(about, observations, **columns)


def _about(policy: Behaviour, env: RecVectorEnv, seed: int, keys: Sequence[str]) -> dict[str, Any]:
    return {
        "world": {"name": env.world.name, "hash": env.world.hash},
        "scenario": {"name": env.scenario.name, "hash": env.scenario.hash},
        "policy": {
            "agent": policy.agent.id,
            "config": policy.agent.config.model_dump(mode="json"),
            "exploration": policy.epsilon,
        },
        "seed": seed,
        "item_vocabulary": vocabulary_hash(env.world),
        "observation_layout": observation_layout(env.world, tuple(keys)),
    }


def _encode(values: NDArray[Any]) -> pa.Array:
    """A column [R] or, as lists of a fixed size, [R, ...]."""
    flat = pa.array(np.ascontiguousarray(values).reshape(-1))
    return flat if values.ndim == 1 else pa.FixedSizeListArray.from_arrays(flat, int(np.prod(values.shape[1:])))


def _decode(column: pa.ChunkedArray, shape: list[int]) -> NDArray[Any]:
    array = column.combine_chunks()
    array = array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array
    if pa.types.is_fixed_size_list(array.type):
        array = array.flatten()
    return np.array(array.to_numpy(zero_copy_only=False)).reshape(-1, *shape)
