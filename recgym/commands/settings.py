"""Settings given on the command line as KEY=VALUE."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from recgym.errors import AgentError, RecGymError, ScenarioError

if TYPE_CHECKING:
    from recgym.scenario import Scenario

Changes: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--set", help="A change of the scenario, such as behaviour.lift=0.3; may be given several times."),
]


def parse_settings(pairs: list[str], error: type[RecGymError] = AgentError) -> dict[str, object]:
    """Settings from KEY=VALUE texts; a value is read as YAML, so that numbers, true and null work.

    Raises:
        RecGymError: ``error``, for a text without ``=``, or a value that is not YAML.
    """
    import yaml

    settings: dict[str, object] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise error(f"setting {pair!r} must read KEY=VALUE")
        try:
            settings[key] = yaml.safe_load(value)
        except yaml.YAMLError as problem:
            raise error(f"setting {pair!r}: the value is not YAML") from problem
    return settings


def changed_scenario(scenario: Any, changes: list[str] | None) -> Scenario:
    """``scenario``, by name or file, with what ``--set`` changes.

    Raises:
        UnknownNameError: no such scenario.
        ScenarioError: the scenario or a change is not valid.
    """
    from recgym.scenario import load_scenario

    return load_scenario(scenario, parse_settings(changes or [], ScenarioError))
