"""A world: the bundle of a fitted preference model, its items and its users' starting points, loaded and checked."""

from __future__ import annotations

import hashlib
import importlib.resources
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import pydantic
import torch
from safetensors.torch import load_file
from torch import Tensor

from recgym.errors import WorldError, unknown_name
from recgym.paths import recgym_home
from recgym.worlds.spec import FORMAT_VERSION, WorldSpec

MEMBERS = "members.safetensors"  # of a bundle with an ensemble
_TOLD = (".md", ".json", ".png")  # files that tell of a world and that no simulation reads


@dataclass(frozen=True)
class Ragged:
    """Rows of different lengths, one after another: row i is ``values[offsets[i]:offsets[i + 1]]``."""

    offsets: Tensor  # [n + 1] int64
    values: dict[str, Tensor]  # each [offsets[-1], ...]

    def padded(self, rows: Tensor, width: int, fill: dict[str, int]) -> dict[str, Tensor]:
        """The last ``width`` entries of each of ``rows``, right-padded: name -> [len(rows), width, ...].

        ``fill`` gives the padding value by name (0 where absent).
        """
        stop = self.offsets[rows + 1]
        start = torch.maximum(self.offsets[rows], stop - width)
        index = start[:, None] + torch.arange(width, device=rows.device)
        inside = index < stop[:, None]
        index = index.clamp(max=max(int(self.offsets[-1]) - 1, 0))
        out = {}
        for name, values in self.values.items():
            if len(values) == 0:
                values = values.new_zeros((1, *values.shape[1:]))
            taken = values[index]
            mask = inside.reshape(inside.shape + (1,) * (taken.dim() - 2))
            out[name] = torch.where(mask, taken, torch.as_tensor(fill.get(name, 0), dtype=taken.dtype))
        return out


@dataclass(frozen=True, eq=False)
class World:
    """A loaded bundle. N items and U users, each addressed by row number."""

    path: Path
    spec: WorldSpec
    items: pd.DataFrame  # [N] item_id, title, category, subcategory, brand, price, discount, popularity, interval_days
    users: pd.DataFrame  # [U] user_id, observable attributes (missing allowed), num_trips, num_events, last_day, ...
    item_tensors: dict[str, Tensor]  # vectors [N, d], text_pca [N, 16]; numbers are float32 in memory, float16 on disk
    user_tensors: dict[str, Tensor]  # see ``tokens`` and ``repeats``
    weights: dict[str, Tensor]  # the preference network's parameters
    members: tuple[dict[str, Tensor], ...] = ()  # those of an ensemble's further networks

    @property
    def name(self) -> str:
        """The world's name."""
        return self.spec.name

    @property
    def num_items(self) -> int:
        """N, the size of the catalogue."""
        return self.spec.num_items

    @property
    def num_users(self) -> int:
        """U, the number of users to simulate."""
        return self.spec.num_users

    @cached_property
    def prices(self) -> np.ndarray | None:
        """What items cost, discount taken off, float64 [N] currency units (0 if unknown); None without prices."""
        if "price" not in self.items or not self.items["price"].notna().any():
            return None
        columns = self.items.reindex(columns=["price", "discount"]).fillna(0.0)
        return (columns["price"] * (1.0 - columns["discount"])).to_numpy(np.float64)

    @cached_property
    def tokens(self) -> Ragged:
        """Each user's last tokens, oldest first: items [T, G] (-1 pads), feedback [T, G], gap [T] (-1 in a trip)."""
        tensors = self.user_tensors
        values = {name: tensors[f"token_{name}"] for name in ("items", "feedback", "gap")}
        return Ragged(tensors["token_offsets"], values)

    @cached_property
    def repeats(self) -> Ragged:
        """Each user's purchase record by item row, ascending: items, counts, last_days."""
        tensors = self.user_tensors
        values = {name: tensors[f"repeat_{name}"] for name in ("items", "counts", "last_days")}
        return Ragged(tensors["repeat_offsets"], values)

    def interactions(self) -> pd.DataFrame:
        """The observable log, aggregated: user row, item row, count of trips, last_day. Agents may learn from it."""
        repeats = self.repeats
        lengths = repeats.offsets.diff()
        return pd.DataFrame(
            {
                "user": torch.repeat_interleave(torch.arange(self.num_users), lengths).numpy(),
                "item": repeats.values["items"].to(torch.int64).numpy(),
                "count": repeats.values["counts"].to(torch.int64).numpy(),
                "last_day": repeats.values["last_days"].to(torch.int64).numpy(),
            }
        )

    @cached_property
    def hash(self) -> str:
        """A digest of all that is simulated: two worlds with one hash have the same users, whatever their cards say."""
        files = {name: digest for name, digest in self.spec.files.items() if not name.endswith(_TOLD)}
        read = {"kind", "responses", "reward", "attributes", "behaviour", "seeds"}
        content = {**self.spec.model_dump(mode="json", include=read), "files": files}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def worlds_home() -> Path:
    """The directory of user-built worlds: ``$RECGYM_HOME/worlds``."""
    return recgym_home() / "worlds"


def available_worlds() -> dict[str, Path]:
    """Built worlds by name: those that ship with RecGym, overridden by those under ``$RECGYM_HOME/worlds``."""
    found: dict[str, Path] = {}
    for root in (Path(str(importlib.resources.files("recgym.worlds"))) / "bundles", worlds_home()):
        if root.is_dir():
            found.update({path.parent.name: path.parent for path in sorted(root.glob("*/world.json"))})
    return found


def find_world(name: str | Path) -> Path:
    """The bundle directory of a world given by name or by path.

    Raises:
        UnknownNameError: no such world; the message says how to build one that is registered but not yet built.
    """
    if isinstance(name, Path) or "/" in str(name):
        if not (Path(name) / "world.json").is_file():
            raise WorldError(f"{name} is not a world bundle: it holds no world.json")
        return Path(name)
    built = available_worlds()
    if name in built:
        return built[name]
    if (Path(name) / "world.json").is_file():
        return Path(name)
    from recgym.registration import WORLDS

    if name in WORLDS.names():
        raise WorldError(f"world {name!r} is not built yet. Build it with: recgym world build {name}")
    raise unknown_name("world", name, {*built, *WORLDS.names()})


def read_spec(path: Path) -> WorldSpec:
    """The validated ``world.json`` of a bundle directory."""
    try:
        raw = json.loads((path / "world.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:  # not JSON, or not UTF-8
        raise WorldError(f"{path / 'world.json'} cannot be read: {error}") from error
    version = raw.get("format_version") if isinstance(raw, dict) else None
    if version != FORMAT_VERSION:
        raise WorldError(
            f"{path / 'world.json'} has format_version {version!r}, this RecGym reads {FORMAT_VERSION}; "
            "rebuild the world"
        )
    try:
        return WorldSpec.model_validate(raw)
    except pydantic.ValidationError as error:
        raise WorldError(f"{path / 'world.json'} is not valid: {error}") from error


def file_digest(path: Path) -> str:
    """The sha256 of a file, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def verify(path: Path, spec: WorldSpec) -> None:
    """Checks every file of a bundle against its checksum.

    Raises:
        WorldError: names the file that is missing, truncated or altered.
    """
    for name, expected in spec.files.items():
        file = path / name
        if Path(name).name != name:
            raise WorldError(f"{path / 'world.json'} lists {name!r}, which lies outside the bundle")
        if not file.is_file():
            raise WorldError(f"{file} is missing from the bundle")
        found = file_digest(file)
        if found != expected:
            raise WorldError(
                f"{file} fails its checksum: sha256 {found[:12]}… where world.json says {expected[:12]}…. "
                "The file is truncated or was altered; fetch or build the world again."
            )


def load_world(name: str | Path | World) -> World:
    """Loads a bundle, by name or by directory, after checking every file.

    Raises:
        WorldError: the bundle is missing, altered, truncated or of another version.
        UnknownNameError: no world of that name is built or registered.
    """
    if isinstance(name, World):
        return name
    path = find_world(name)
    spec = read_spec(path)
    verify(path, spec)
    tensors = load_file(path / "items.safetensors")
    item_tensors = {key: value.float() if value.is_floating_point() else value for key, value in tensors.items()}
    return World(
        path=path,
        spec=spec,
        items=pd.read_parquet(path / "items.parquet"),
        users=pd.read_parquet(path / "users.parquet"),
        item_tensors=item_tensors,
        user_tensors=load_file(path / "users.safetensors"),
        weights=load_file(path / "model.safetensors"),
        members=_members(load_file(path / MEMBERS)) if MEMBERS in spec.files else (),
    )


def _members(tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], ...]:
    """The weights of each member from tensors named ``number.parameter``, numbered from 1."""
    found: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        number, _, name = key.partition(".")
        found.setdefault(int(number), {})[name] = value.float()
    return tuple(found[number] for number in sorted(found))
