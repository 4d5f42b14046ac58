"""The typed scenario schema and its loader: what users and episodes are like, what agents may do, see and aim for."""

from __future__ import annotations

import functools
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from recgym.errors import ScenarioError, nearest
from recgym.registration import SCENARIOS

ActionMode = Literal["slate", "catalogue", "item", "scores", "weights", "proto"]
ObservationKey = Literal["user", "candidates", "candidate_items", "user_id", "history"]
Term = Literal["purchase", "revenue", "liked"]


def _assumed(default: float | str, description: str, reference: str, **bounds: float) -> Any:
    """A behavioural parameter that no purchase log identifies: its schema says so and names the source."""
    extra: dict[str, Any] = {"status": "assumed", "reference": reference}
    return Field(default, description=description, json_schema_extra=extra, **bounds)  # type: ignore[call-overload]


class Section(BaseModel):
    """What all parts of a scenario share: exact types, no unknown keys, no change after loading."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


class Env(Section):
    """Where the scenario may be played."""

    world: str | None = Field(None, description="Name of the only world the scenario is made for; null: any world.")


class Episode(Section):
    """When an episode ends."""

    kind: Literal["session", "horizon"] = Field(
        "session", description="session: one trip; horizon: as many trips as fit in horizon_days."
    )
    max_slates: int = Field(
        20, ge=1, description="Slates a trip: then a session episode is truncated, or the trip ends."
    )
    horizon_days: int = Field(90, ge=1, description="Days after which a horizon episode is truncated.")
    max_steps: int = Field(400, ge=1, description="Slates after which any episode is truncated.")


class Examination(Section):
    """Which positions of a slate a user looks at."""

    model: Literal["position", "cascade"] = _assumed(
        "position",
        "position: each position by itself; cascade: from the top, on with chance decay, until something is consumed.",
        "Craswell, Zoeter, Taylor and Ramsey, An experimental comparison of click position-bias models, WSDM 2008",
    )
    decay: float = _assumed(
        0.9,
        "Chance of examining position p (from 0) is decay ** p; in a cascade, of going on after an item.",
        "Moffat and Zobel, Rank-biased precision for measurement of retrieval effectiveness, TOIS 2008",
        gt=0,
        le=1,
    )


class Satisfaction(Section):
    """How what a user gets changes when that user comes back."""

    rate: float = _assumed(
        0.2,
        "Weight of the latest slate in satisfaction: the running mean of whether a slate held something consumed.",
        "Cai et al., Reinforcing user retention in a billion scale short video recommender system, WWW 2023",
        gt=0,
        le=1,
    )
    return_effect: float = _assumed(
        0.5,
        "The fitted hazard of returning is multiplied by exp(return_effect * (satisfaction - its reference)).",
        "Cai et al., Reinforcing user retention in a billion scale short video recommender system, WWW 2023",
        ge=0,
    )


class Behaviour(Section):
    """What a log does not identify about users: every parameter is assumed, with its reference."""

    lift: float = _assumed(
        0.7,
        "Added to the logit of buying when an item is examined: logit P(buy | examined) = logit q + lift.",
        "Sato et al., Uplift-based evaluation and optimization of recommenders, RecSys 2019",
    )
    examination: Examination = Examination()
    reexamination: float = _assumed(
        0.5,
        "Chance of examining an item is multiplied by this for each time it was examined and declined on the trip.",
        "Ma, Liu and Shen, User fatigue in online news recommendation, WWW 2016",
        ge=0,
        le=1,
    )
    patience: float = _assumed(
        0.1,
        "Chance of leaving after a slate on which nothing was bought.",
        "Zhao et al., KuaiSim: a comprehensive user simulator for recommender systems, NeurIPS 2023",
        ge=0,
        le=1,
    )
    satisfaction: Satisfaction = Satisfaction()


class Candidates(Section):
    """Where the candidates of a step come from; popularity fills up for users with too few items of their own."""

    own: int = Field(40, ge=0, description="The user's own purchases, by recency and frequency.")
    popular: int = Field(40, ge=0, description="Drawn by popularity.")
    uniform: int = Field(20, ge=0, description="Drawn uniformly from the catalogue.")


class Actions(Section):
    """What an agent decides."""

    mode: ActionMode = Field(
        "slate",
        description="slate: K of the M candidates; catalogue: K of all items; item: one candidate; scores: M scores; "
        "weights: one a candidate feature; proto: the features of an ideal item, the nearest candidates are shown.",
    )
    slate_size: int = Field(10, ge=1, description="K, items on a slate.")
    num_candidates: int = Field(100, ge=1, description="M, candidates a step.")
    candidates: Candidates = Candidates()

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        parts = self.candidates
        total = parts.own + parts.popular + parts.uniform
        if total != self.num_candidates:
            raise ValueError(
                f"candidates add up to {total} ({parts.own} own + {parts.popular} popular + {parts.uniform} uniform), "
                f"num_candidates is {self.num_candidates}"
            )
        if self.slate_size > self.num_candidates:
            raise ValueError(f"slate_size {self.slate_size} exceeds num_candidates {self.num_candidates}")
        return self


class Observation(Section):
    """What an agent sees."""

    keys: tuple[ObservationKey, ...] = Field(("user", "candidates"), min_length=1, description="Observation keys.")
    examined: bool = Field(
        False, description="Whether agents that learn online are told what was looked at, as platforms may log it."
    )

    @model_validator(mode="after")
    def _once_each(self) -> Self:
        if len(set(self.keys)) != len(self.keys):
            raise ValueError(f"keys {list(self.keys)} name one key twice")
        return self


class Objective(Section):
    """The reward: a weighted sum of terms, each summed over a slate."""

    terms: dict[Term, float] = Field(
        min_length=1,
        description="Weights; purchase: distinct items bought; revenue: their price; liked: watches rated 4 or more.",
    )


class Evaluation(Section):
    """How much `recgym evaluate` runs by default."""

    users: int = Field(500, ge=1, description="Users, the same for every agent.")
    seeds: int = Field(5, ge=1, description="Seeds a user.")


class Scenario(Section):
    """A scenario: everything about a run that is neither the world nor the agent."""

    name: str = Field(min_length=1, description="Short name, used in tables and rows.")
    description: str = Field("", description="One line for `recgym list scenarios`.")
    tags: tuple[str, ...] = ()
    env: Env = Env()
    episode: Episode = Episode()
    behaviour: Behaviour = Behaviour()
    actions: Actions = Actions()
    observation: Observation = Observation()
    objective: Objective | None = Field(None, description="null: the world's own reward.")
    evaluation: Evaluation = Evaluation()

    @functools.cached_property
    def hash(self) -> str:
        """The SHA-256 digest (hex) of this scenario as canonical JSON."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def check_world(self, world: str) -> None:
        """Refuses a world that the scenario is not made for.

        Raises:
            ScenarioError: if ``env.world`` names another world.
        """
        if self.env.world not in (None, world):
            raise ScenarioError(f"scenario {self.name!r} is made for world {self.env.world!r}, not for {world!r}")


def load_scenario(scenario: str | Path | Scenario, overrides: Mapping[str, Any] | None = None) -> Scenario:
    """The scenario called ``scenario`` (``recgym list scenarios``), in that YAML file, or given as it is.

    Args:
        scenario: a registered name, the path of a YAML file, or a ``Scenario``.
        overrides: values to change: ``{"behaviour": {"lift": 0.3}}`` or, the same, ``{"behaviour.lift": 0.3}``.

    Raises:
        UnknownNameError: for a name that is not registered; the message gives the nearest one.
        ScenarioError: for an unknown key or a bad value; the message gives file, line, key and what would be valid.
    """
    if not isinstance(scenario, Scenario):
        path = scenario if isinstance(scenario, Path) else Path(SCENARIOS.spec(scenario).target)
        scenario = _read(path)
    if not overrides:
        return scenario
    data = scenario.model_dump(mode="json")
    _merge(data, overrides, Scenario)
    return _validate(data, _Source("overrides"))


@dataclass(frozen=True)
class _Source:
    """Where values come from, for messages."""

    label: str
    lines: dict[tuple[str | int, ...], int] = field(default_factory=dict)  # key path -> line, from 1

    def at(self, path: tuple[str | int, ...]) -> str:
        """``label:line`` of the key at ``path``, or of the nearest key around it."""
        for length in range(len(path), -1, -1):
            if path[:length] in self.lines:
                return f"{self.label}:{self.lines[path[:length]]}"
        return self.label


def _read(path: Path) -> Scenario:
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
    lines: dict[tuple[str | int, ...], int] = {}
    for keys, line in _walk(node, (), str(path), set()):
        if keys in lines:
            raise ScenarioError(f"{path}:{line}: {_dotted(keys)}: given twice, first in line {lines[keys]}")
        lines[keys] = line
    return _validate(data, _Source(str(path), lines))


def _walk(
    node: yaml.Node, keys: tuple[str | int, ...], label: str, seen: set[int]
) -> Iterator[tuple[tuple[str | int, ...], int]]:
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


def _merge(data: dict[str, Any], overrides: Mapping[str, Any], model: type[BaseModel]) -> None:
    """Writes ``overrides`` into ``data``: section by section, anything else as a whole."""
    for dotted, value in overrides.items():
        key, _, rest = dotted.partition(".")
        changes = {rest: value} if rest else value
        section = _section(model, key)
        if section is not None and isinstance(changes, Mapping):
            data[key] = dict(data.get(key) or {})
            _merge(data[key], changes, section)
        elif rest and isinstance(data.get(key), dict):
            data[key] = {**data[key], **changes}
        else:
            data[key] = changes


def _section(model: type[BaseModel], key: str) -> type[BaseModel] | None:
    """The section model that the field ``key`` of ``model`` holds, if it does."""
    info = model.model_fields.get(key)
    options = getattr(info.annotation, "__args__", (info.annotation,)) if info else ()
    return next((option for option in options if isinstance(option, type) and issubclass(option, BaseModel)), None)


def _validate(data: Any, source: _Source) -> Scenario:
    try:
        return Scenario.model_validate(_with_tuples(data))
    except ValidationError as error:
        problems = []
        for detail in error.errors():
            path = tuple(key for key in detail["loc"] if key != "[key]")
            problems.append(f"{source.at(path)}: {_dotted(path)}: {_problem(detail, path)}")
        raise ScenarioError("\n".join(problems)) from error


def _with_tuples(value: Any) -> Any:
    """``value`` with its lists as tuples, which is what exact validation expects of a frozen model."""
    if isinstance(value, dict):
        return {key: _with_tuples(entry) for key, entry in value.items()}
    return tuple(_with_tuples(entry) for entry in value) if isinstance(value, list | tuple) else value


def _dotted(path: tuple[str | int, ...]) -> str:
    return ".".join(str(key) for key in path) or "scenario"


def _problem(detail: Any, path: tuple[str | int, ...]) -> str:
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
