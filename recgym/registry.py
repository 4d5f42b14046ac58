"""What a registry is: specs by name that survive JSON, targets that they lead to, and entry points that add to them."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import importlib.util
import json
import re
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, Generic, Self, TypeVar

from recgym.errors import RecGymError, unknown_name

_ATTR = r"(?P<attr>[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)"
_MODULE_TARGET = re.compile(r"(?P<module>[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*):" + _ATTR)
_FILE_TARGET = re.compile(r"(?P<file>.+\.py):" + _ATTR)
_ENV_ID = re.compile(r"[A-Za-z][\w\-]*-v\d+")


@dataclass(frozen=True)
class BaseSpec:
    """What a registry holds: a name and JSON values, so that a spec survives a JSON round trip."""

    id: str

    def to_json(self) -> str:
        """This spec as a JSON object."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The spec that ``to_json`` wrote."""
        return cls(**json.loads(text))


@dataclass(frozen=True)
class Spec(BaseSpec):
    """An object by name.

    Attributes:
        id: the name, unique within its registry.
        target: where the object lives, ``"module:attr"`` or ``"path/to/file.py:attr"``; imported when first loaded.
        description: one line for ``recgym list``.
        kwargs: keyword arguments that whoever calls the loaded object passes on.
    """

    target: str
    description: str = ""
    kwargs: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuses arguments that would not come back from JSON as they went in."""
        _require_json(self.id, self.kwargs)


@dataclass(frozen=True)
class EnvSpec(BaseSpec):
    """An environment by id: a world, a scenario and the shells that play them.

    Attributes:
        id: the versioned id, such as ``ecommerce-v0``; the version goes up whenever the dynamics change.
        world: name or path of the world bundle.
        scenario: name or path of the scenario.
        description: one line for ``recgym list envs``.
        kwargs: further keyword arguments of the shells.
        target: the single environment (a ``gymnasium.Env``).
        vector_target: the vector environment (a ``gymnasium.vector.VectorEnv``).
    """

    world: str
    scenario: str = "default"
    description: str = ""
    kwargs: dict[str, Any] = field(default_factory=dict)
    target: str = "recgym.envs.single:RecEnv"
    vector_target: str = "recgym.envs.vector:RecVectorEnv"

    def __post_init__(self) -> None:
        """Refuses an id without a version, and arguments that would not survive JSON."""
        if not _ENV_ID.fullmatch(self.id):
            raise RecGymError(f"environment id {self.id!r} must read like 'ecommerce-v0': a name, '-v' and a version")
        _require_json(self.id, self.kwargs)

    def own_world(self) -> str:
        """The world, for what plays its own users: evaluation, and training of agents by name.

        Raises:
            RecGymError: the environment has other users, which would silently be left out.
        """
        if self.kwargs.get("user_model") is not None:
            raise RecGymError(
                f"environment {self.id!r} plays user model {self.kwargs['user_model']!r}; evaluating and training by "
                f"name play the users of the world itself. Name the world instead: {self.world!r}"
            )
        return self.world

    def shell_kwargs(self) -> dict[str, Any]:
        """The keyword arguments that either shell is built with."""
        return {"world": self.world, "scenario": self.scenario, **self.kwargs}


def _require_json(name: str, kwargs: dict[str, Any]) -> None:
    try:
        same = json.loads(json.dumps(kwargs)) == kwargs
    except (TypeError, ValueError):
        same = False
    if not same:
        raise RecGymError(f"kwargs of {name!r} must be JSON values (text keys, lists, numbers), got {kwargs!r}")


def is_target(text: str) -> bool:
    """Whether ``text`` reads like ``"module:attr"`` or ``"path/to/file.py:attr"``."""
    return bool(_FILE_TARGET.fullmatch(text) or _MODULE_TARGET.fullmatch(text))


def load_target(target: str) -> Any:
    """Imports ``"module:attr"`` or ``"path/to/file.py:attr"`` and returns the object.

    Raises:
        RecGymError: if the target is malformed, or its module, file or attribute does not exist.
    """
    from_file = _FILE_TARGET.fullmatch(target)
    from_module = _MODULE_TARGET.fullmatch(target)
    if from_file:
        found, attr = _load_file(Path(from_file["file"])), from_file["attr"]
    elif from_module:
        found, attr = _load_module(from_module["module"], target), from_module["attr"]
    else:
        raise RecGymError(f"target {target!r} must read 'module:attr' or 'path/to/file.py:attr'")
    value: Any = found
    for name in attr.split("."):
        if not hasattr(value, name):
            public = [entry for entry in vars(value) if not entry.startswith("_")]
            raise unknown_name(f"attribute in target {target!r}:", name, public)
        value = getattr(value, name)
    return value


def _load_module(name: str, target: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise RecGymError(f"target {target!r} cannot be imported: {error}") from error


def _load_file(path: Path) -> ModuleType:
    path = path.expanduser().resolve()
    if not path.is_file():
        raise RecGymError(f"there is no file {str(path)!r}")
    # One module per file, kept in sys.modules: loading twice gives the same class, and its instances pickle.
    name = f"recgym_file_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, path)
        if spec is None or spec.loader is None:
            raise RecGymError(f"{str(path)!r} is not a Python file")
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[name]
            raise
    return sys.modules[name]


S = TypeVar("S", bound=BaseSpec)


class Registry(Generic[S]):
    """Specs by name: the built-in ones, those registered at run time, and those of installed entry points."""

    def __init__(
        self,
        kind: str,
        group: str,
        builtin: Iterable[S] = (),
        *,
        read: Callable[[str, str], S | None],
        load: Callable[[S], Any],
    ) -> None:
        """A registry of ``kind`` (for messages).

        Args:
            kind: what the registry holds, for messages.
            group: the entry-point group through which other distributions add to it.
            builtin: the specs that RecGym brings.
            read: the spec that a name and a target (an entry point's value) describe; None if it is no target.
            load: the object that a spec describes.
        """
        self.kind = kind
        self.group = group
        self._read = read
        self._load = load
        self._own: dict[str, S] = {spec.id: spec for spec in builtin}
        self._plugins: dict[str, EntryPoint] | None = None

    def register(self, spec: S, *, replace: bool = False) -> None:
        """Adds ``spec``; another spec of the same name is only overwritten with ``replace``.

        Raises:
            RecGymError: if the name is taken by a different spec.
        """
        taken = self._own.get(spec.id)
        if taken is not None and taken != spec and not replace:
            raise RecGymError(
                f"{self.kind} {spec.id!r} is already registered ({taken}); overwrite it with replace=True"
            )
        self._own[spec.id] = spec

    def registered(self) -> list[S]:
        """The specs that are built in or registered at run time: no entry point is read."""
        return list(self._own.values())

    def names(self) -> list[str]:
        """All names, sorted."""
        return sorted({*self._own, *self._entry_points()})

    def spec(self, name: str) -> S:
        """The spec called ``name``; where ``name`` is itself a target, a spec of that target.

        Raises:
            UnknownNameError: if ``name`` is neither; the message gives the nearest valid name.
            RecGymError: if an installed entry point of that name is not usable.
        """
        if name in self._own:
            return self._own[name]
        entry = self._entry_points().get(name)
        spec = self._read(name, entry.value if entry else name)
        if spec is not None:
            return spec
        if entry:
            raise RecGymError(f"entry point {entry.name} = {entry.value} of group {self.group} is no {self.kind}")
        raise unknown_name(self.kind, name, self.names())

    def specs(self) -> list[S]:
        """Every named spec, in the order of ``names``."""
        return [self.spec(name) for name in self.names()]

    def load(self, name: str) -> Any:
        """The object called ``name`` or found at the target ``name``; see ``spec`` for the errors."""
        return self._load(self.spec(name))

    def _entry_points(self) -> dict[str, EntryPoint]:
        if self._plugins is None:
            self._plugins = {entry.name: entry for entry in entry_points(group=self.group)}
        return self._plugins
