"""Logged rollouts as Minari data sets, in Minari's parquet format, and back."""

from __future__ import annotations

import importlib
import json
import warnings
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from recgym.data.rollouts import Rollouts
from recgym.errors import DataError

_ABOUT = "recgym"  # under which a data set's metadata holds what rollouts tell about themselves
_INFOS = ("user", "item", "consumed", "examined", "propensity")


def to_minari(rollouts: Rollouts, dataset_id: str, *, num_candidates: int | None = None) -> Path:
    """Writes a data set that ``minari.load_dataset(dataset_id)`` reads, and returns its directory.

    Actions are slates, positions among the candidates; ``infos`` hold user, item, consumed, examined and propensity.

    Args:
        rollouts: the episodes.
        dataset_id: as Minari wants it, such as ``recgym/ecommerce/popularity-v0``.
        num_candidates: M; None: read off an observation of the candidates.

    Raises:
        DataError: Minari is not installed, the id is taken or malformed, or the number of candidates is not known.
    """
    minari = _minari()
    candidates = [values.shape[1] for key, values in rollouts.observations.items() if key.startswith("candidate")]
    num_candidates = candidates[0] if num_candidates is None and candidates else num_candidates
    if num_candidates is None:
        raise DataError("the rollouts observe no candidates: give num_candidates")
    bounds = np.flatnonzero(np.diff(rollouts.episode, prepend=-1, append=rollouts.episode[-1] + 1))
    episodes = [np.s_[start:stop] for start, stop in zip(bounds[:-1], bounds[1:], strict=True)]
    buffers = [
        minari.data_collector.EpisodeBuffer(
            id=number,
            observations={key: values[rows] for key, values in rollouts.observations.items()},
            actions=rollouts.slate[rows][:-1],
            rewards=rollouts.reward[rows][:-1],
            terminations=rollouts.terminated[rows][:-1],
            truncations=rollouts.truncated[rows][:-1],
            infos={name: getattr(rollouts, name)[rows].reshape(rows.stop - rows.start, -1) for name in _INFOS},
        )
        for number, rows in enumerate(episodes)
    ]
    policy = rollouts.about.get("policy", {})
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`eval_env`|env_spec is None")  # the spaces say all there is to say
        try:
            dataset = minari.create_dataset_from_buffers(
                dataset_id,
                buffers,
                observation_space=gymnasium.spaces.Dict({k: _box(v) for k, v in rollouts.observations.items()}),
                action_space=gymnasium.spaces.MultiDiscrete([num_candidates] * rollouts.slate.shape[1]),
                algorithm_name=f"{policy.get('agent')}, exploration {policy.get('exploration')}",
                author="RecGym",
                author_email="none",
                code_permalink="none",
                description="Slates shown to simulated users of RecGym, with the propensity of every position.",
                data_format="parquet",
            )
        except ValueError as error:
            raise DataError(f"Minari refuses data set {dataset_id!r}: {error}") from error
    dataset.storage.update_metadata({_ABOUT: json.dumps(rollouts.about)})
    return Path(dataset.storage.data_path)


def from_minari(dataset: str | Path) -> Rollouts:
    """The rollouts of a data set that ``to_minari`` wrote, by id or directory.

    Raises:
        DataError: Minari is not installed, there is no such data set here, or RecGym did not write it.
    """
    minari = _minari()
    path = Path(dataset)
    try:
        if path.is_dir():
            found = minari.MinariDataset(path / "data" if (path / "data").is_dir() else path)
        else:
            found = minari.load_dataset(str(dataset))
    except (ValueError, FileNotFoundError, AssertionError) as error:
        raise DataError(f"there is no Minari data set {str(dataset)!r} here: {error}") from error
    if _ABOUT not in found.storage.metadata:
        raise DataError(
            f"Minari data set {str(dataset)!r} was not written by RecGym: it tells no world or propensities"
        )
    parts: list[dict[str, Any]] = []
    observations: list[dict[str, NDArray[Any]]] = []
    for episode in found.iterate_episodes():
        size = len(episode) + 1
        observations.append(episode.observations)
        parts.append(
            {
                "episode": np.full(size, episode.id, np.int64),
                "slate": _padded(episode.actions.astype(np.int64)),
                "reward": _padded(episode.rewards.astype(np.float32)),
                "terminated": _padded(episode.terminations.astype(bool)),
                "truncated": _padded(episode.truncations.astype(bool)),
                "final": np.arange(size) == size - 1,
                **{name: episode.infos[name] for name in _INFOS},
            }
        )
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    columns["user"] = columns["user"].reshape(-1)
    return Rollouts(
        json.loads(found.storage.metadata[_ABOUT]),
        {key: np.concatenate([part[key] for part in observations]) for key in observations[0]},
        **columns,
    )


def read_rollouts(logs: str | Path) -> Rollouts:
    """Rollouts from a directory of ``Rollouts.save``, or from a Minari data set by id or directory."""
    return Rollouts.load(logs) if (Path(logs) / "rollouts.json").is_file() else from_minari(logs)


def _minari() -> Any:
    try:
        return importlib.import_module("minari")
    except ImportError as error:
        raise DataError("Minari data sets need the package 'minari': pip install 'recgym[minari]'") from error


def _box(values: NDArray[Any]) -> gymnasium.Space[Any]:
    low, high = (-1.0, 1.0) if values.dtype.kind == "f" else (-1, np.iinfo(np.int32).max)
    return gymnasium.spaces.Box(low, high, values.shape[1:], values.dtype.type)


def _padded(values: NDArray[Any]) -> NDArray[Any]:
    """``values`` [T, ...] with a row of zeros after the last."""
    return np.pad(values, ((0, 1), *((0, 0),) * (values.ndim - 1)))
