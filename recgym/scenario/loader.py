"""Reading scenarios: YAML files that may extend each other, overrides, and errors that name file, line and key."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from recgym.errors import ScenarioError, UnknownNameError, nearest
from recgym.registration import SCENARIOS
from recgym.scenario.base import Misfit
from recgym.scenario.schema import OWN, Scenario
from recgym.scenario.source import Keys, Source


def load_scenario(scenario: str | Path | Scenario, overrides: Mapping[str, Any] | None = None) -> Scenario:
    """The scenario called ``scenario`` (``recgym list scenarios``), in that YAML file, or given as it is.

    Args:
        scenario: a registered name, the path of a YAML file, or a ``Scenario``.
        overrides: values to change: ``{"behaviour": {"lift": 0.3}}`` or, the same, ``{"behaviour.lift": 0.3}``.

    Raises:
        UnknownNameError: for a name that is not registered; the message gives the nearest one.
        ScenarioError: for an unknown key, a bad value or files that extend each other in a circle; the message gives
            file, line, key and what would be valid.
    """
    if not isinstance(scenario, Scenario):
        path = scenario if isinstance(scenario, Path) else Path(SCENARIOS.spec(scenario).target)
        draft = _read(path, ())
        scenario = _validate(draft.data, draft.source)
    if not overrides:
        return scenario
    data, changes = scenario.model_dump(mode="json"), _nested(overrides)
    _merge(data, changes, Scenario)
    places = dict(scenario.source.places)
    for keys in _leaves(changes, ()):
        places = {at: place for at, place in places.items() if at[: len(keys)] != keys} | {keys: "overrides"}
    return _validate(data, Source("overrides"), Source(scenario.source.label, places))


def before_arrivals(scenario: Scenario) -> Scenario:
    """The scenario in which agents learn: new items have not arrived yet, popular ones stand in their places."""
    parts = scenario.actions.candidates
    if not parts.new:
        return scenario
    return load_scenario(
        scenario, {"actions.candidates.popular": parts.popular + parts.new, "actions.candidates.new": 0}
    )


@dataclass(frozen=True)
class _Draft:
    """A scenario file with all that it extends, not validated yet."""

    data: dict[str, Any]
    source: Source


def _read(path: Path, chain: tuple[Path, ...]) -> _Draft:
    """The draft in ``path``, which the files of ``chain`` extend, one the next."""
    try:
        text = path.expanduser().read_text(encoding="utf-8")
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        data = yaml.safe_load(text)
    except OSError as error:
        raise ScenarioError(f"{path}: cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        raise ScenarioError(f"{where}: not YAML: {getattr(error, 'problem', None) or error}") from error
    if not isinstance(node, yaml.MappingNode):
        raise ScenarioError(f"{path}: a scenario is a mapping with the keys {', '.join(Scenario.model_fields)}")
    places: dict[Keys, str] = {}
    for keys, line in _walk(node, (), str(path), set()):
        if keys in places:
            first = places[keys].rpartition(":")[2]
            raise ScenarioError(f"{path}:{line}: {_dotted(keys)}: given twice, first in line {first}")
        places[keys] = f"{path}:{line}"
    draft = _Draft(data, Source(str(path), places))
    return draft if data.get("extends") is None else _extended(draft, path, chain)


def _extended(draft: _Draft, path: Path, chain: tuple[Path, ...]) -> _Draft:
    """``draft``, of the file ``path``, on top of what it extends."""
    data, source = draft.data, draft.source
    given, where = data["extends"], f"{source.at(('extends',))}: extends"
    if not isinstance(given, str):
        raise ScenarioError(f"{where}: must be the name of a scenario or the path of a file, got {given!r}")
    try:
        target = Path(SCENARIOS.spec(given).target)
    except UnknownNameError as error:
        raise ScenarioError(f"{where}: {error}") from error
    if given not in SCENARIOS.names():
        target = path.expanduser().parent / target.expanduser()  # a path is relative to the file that names it
    chain = (*chain, path.expanduser().resolve())
    if target.resolve() in chain:
        circle = [*chain[chain.index(target.resolve()) :], target.resolve()]
        raise ScenarioError(f"{where}: scenarios extend each other in a circle: {' -> '.join(map(str, circle))}")
    if not target.is_file():
        raise ScenarioError(f"{where}: there is no file {str(target)!r}")
    base = _read(target, chain)
    merged = {key: value for key, value in base.data.items() if key not in OWN}
    _merge(merged, {key: value for key, value in data.items() if key != "extends"}, Scenario)
    inherited = {keys: place for keys, place in base.source.places.items() if keys[0] not in OWN}
    return _Draft(merged, Source(source.label, {**inherited, **source.places}))


def _walk(node: yaml.Node, keys: Keys, label: str, seen: set[int]) -> Iterator[tuple[Keys, int]]:
    """The path and line of every key and list element below ``node``."""
    if id(node) in seen:  # an alias could repeat, or contain, itself
        raise ScenarioError(
            f"{label}:{node.start_mark.line + 1}: {_dotted(keys)}: anchors and aliases are not supported"
        )
    seen.add(id(node))
    children: list[tuple[str | int, yaml.Node, yaml.Node]] = []
    if isinstance(node, yaml.MappingNode):
        children = [(key.value, key, value) for key, value in node.value]
    elif isinstance(node, yaml.SequenceNode):
        children = [(index, value, value) for index, value in enumerate(node.value)]
    for key, marked, value in children:
        yield (*keys, key), marked.start_mark.line + 1
        yield from _walk(value, (*keys, key), label, seen)


def _nested(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """``overrides`` with ``a.b`` spelled as a mapping within a mapping."""
    out: dict[str, Any] = {}
    for dotted, value in overrides.items():
        *sections, key = str(dotted).split(".")
        inner = out
        for section in sections:
            if not isinstance(inner.get(section), dict):
                inner[section] = _Part()
            inner = inner[section]
        inner[key] = copy.deepcopy(value)  # it may be written into
    return out


def _leaves(changes: Mapping[str, Any], keys: Keys) -> Iterator[Keys]:
    """The paths of the values in nested ``changes``."""
    for key, value in changes.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, (*keys, key))
        else:
            yield (*keys, key)


class _Part(dict[str, Any]):
    """A mapping that changes only the keys it holds, also where mappings are otherwise replaced as a whole."""


def _merge(data: dict[str, Any], changes: Mapping[str, Any], model: type[BaseModel]) -> None:
    """Writes ``changes`` into ``data``: section by section, anything else as a whole."""
    for key, value in changes.items():
        section, before = _section(model, key), data.get(key)
        before = dict(before) if isinstance(before, dict) else {}
        if section is not None and isinstance(value, Mapping):
            _merge(before, value, section)
            data[key] = before
        else:
            data[key] = {**before, **value} if isinstance(value, _Part) else value


def _section(model: type[BaseModel], key: str) -> type[BaseModel] | None:
    """The section model that the field ``key`` of ``model`` holds, if it does."""
    info = model.model_fields.get(key)
    options = getattr(info.annotation, "__args__", (info.annotation,)) if info else ()
    return next((option for option in options if isinstance(option, type) and issubclass(option, BaseModel)), None)


def _validate(data: Any, source: Source, origin: Source | None = None) -> Scenario:
    try:
        scenario = Scenario.model_validate(_with_tuples(data))
    except ValidationError as error:
        problems = []
        for detail in error.errors():
            cause = detail.get("ctx", {}).get("error")
            within = cause.keys if isinstance(cause, Misfit) else ()
            path = (*(key for key in detail["loc"] if key != "[key]"), *within)
            problems.append(f"{source.at(path)}: {_dotted(path)}: {_problem(detail, path)}")
        raise ScenarioError("\n".join(problems)) from error
    scenario.__dict__["source"] = origin or source  # as a cached property would: no part of what a scenario is
    return scenario


def _with_tuples(value: Any) -> Any:
    """``value`` with its lists as tuples, which is what exact validation expects of a frozen model."""
    if isinstance(value, dict):
        return {key: _with_tuples(entry) for key, entry in value.items()}
    return tuple(_with_tuples(entry) for entry in value) if isinstance(value, list | tuple) else value


def _dotted(path: Keys) -> str:
    return ".".join(str(key) for key in path) or "scenario"


def _problem(detail: Any, path: Keys) -> str:
    """One validation error in words, with what would be valid."""
    given = detail["input"]
    if detail["type"] == "extra_forbidden":
        model: type[BaseModel] | None = Scenario
        for key in path[:-1]:
            model = _section(model, str(key)) if model else None
        return "unknown key." + _hint(str(path[-1]), list(model.model_fields) if model else [])
    if detail["type"] == "literal_error":
        kind = "unknown key." if detail["loc"][-1] == "[key]" else f"unknown value {given!r}."
        return kind + _hint(str(given), re.findall(r"'([^']*)'", detail["ctx"]["expected"]))
    if detail["type"] == "missing":
        return "missing"
    if detail["type"] in ("model_type", "dict_type"):
        return f"must be a mapping, got {given!r}"
    message = detail["msg"].removeprefix("Value error, ")
    if detail["type"] == "value_error":
        return message
    exponent = isinstance(given, str) and re.fullmatch(r"[-+]?\d+(\.\d*)?e[-+]?\d+", given, re.IGNORECASE)
    hint = "; YAML takes an exponent for a number only in the form 1.0e-3" if exponent else ""
    return f"{message[0].lower()}{message[1:]}, got {given!r}{hint}"


def _hint(name: str, valid: list[str]) -> str:
    guess = nearest(name, valid)
    return (f" Did you mean {guess!r}?" if guess else "") + f" Valid: {', '.join(valid)}."
