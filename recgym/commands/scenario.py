"""``recgym scenario``: check a scenario file, and print the schema."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from recgym.commands.settings import Changes, changed_scenario

app = typer.Typer(help="Check scenario files.", no_args_is_help=True)


@app.command()
def validate(
    scenario: Annotated[str, typer.Argument(metavar="FILE", help="A scenario file, or the name of a scenario.")],
    changes: Changes = None,
) -> None:
    """Check a scenario file; an error gives the line, the key and the nearest valid key."""
    from recgym.registration import SCENARIOS

    # A file without directory or suffix is still a file; a registered name goes first.
    is_file = scenario not in SCENARIOS.names() and Path(scenario).exists()
    loaded = changed_scenario(Path(scenario) if is_file else scenario, changes)
    typer.echo(f"{scenario}: valid scenario {loaded.name!r}, hash {loaded.hash[:12]}")


@app.command()
def schema() -> None:
    """Print the JSON Schema: every key with its default, and for behaviour whether it is assumed and the reference."""
    from recgym.scenario import Scenario

    typer.echo(json.dumps(Scenario.model_json_schema(), indent=2))
