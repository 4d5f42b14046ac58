"""The command line: help, lists, suggestions, and errors as one line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pydantic
import pytest
import typer
from typer.testing import CliRunner

import recgym
from recgym import cli
from recgym.errors import AgentError
from recgym.registration import AGENTS, DATASETS, ENVS, SCENARIOS, USER_MODELS, WORLDS


def run(*arguments: str, app: typer.Typer = cli.app) -> Any:
    return CliRunner(env={"COLUMNS": "200"}).invoke(app, list(arguments))


@pytest.mark.parametrize(
    ("kind", "registry"),
    [
        ("envs", ENVS),
        ("worlds", WORLDS),
        ("scenarios", SCENARIOS),
        ("agents", AGENTS),
        ("user-models", USER_MODELS),
        ("datasets", DATASETS),
    ],
)
def test_list_prints_every_registered_name(kind: str, registry: Any) -> None:
    result = run("list", kind)
    assert result.exit_code == 0, result.output
    assert registry.names() == [line.split()[0] for line in result.stdout.splitlines()[1:] if line.strip()]


def test_version_and_help() -> None:
    assert run("--version").stdout == f"recgym {recgym.__version__}\n"
    result = run("--help")
    for command in ("demo", "list", "data", "world", "train", "evaluate", "scenario"):
        assert command in result.stdout


@pytest.mark.parametrize("command", [["demo"], ["data"], ["world"], ["train"], ["evaluate"], ["scenario", "validate"]])
def test_every_command_has_help(command: list[str]) -> None:
    result = run(*command, "--help")
    assert result.exit_code == 0
    assert "Usage" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["evalute"], "evaluate"),
        (["list", "agent"], "agents"),
        (["scenario", "validat"], "validate"),
        (["evaluate", "--scenaro", "default"], "--scenario"),
    ],
)
def test_misspelt_commands_and_options_suggest(arguments: list[str], hint: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert hint in result.stderr


def test_scenario_validate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "valid scenario 'default'" in run("scenario", "validate", "default").stdout
    monkeypatch.chdir(tmp_path)
    Path("mine").write_text("name: mine\n")
    assert "valid scenario 'mine'" in run("scenario", "validate", "mine").stdout
    Path("bad.yaml").write_text("name: bad\nbehaviour: {liftt: 1}\n")
    result = run("scenario", "validate", "bad.yaml")
    assert result.exit_code == 2
    assert result.stderr.startswith("Error: bad.yaml:2: behaviour.liftt: unknown key. Did you mean 'lift'?")
    assert '"status": "assumed"' in run("scenario", "schema").stdout


class Settings(pydantic.BaseModel):
    size: int


def failing(error: BaseException | None) -> typer.Typer:
    """A command line whose only command raises ``error``, or a validation error."""
    app = typer.Typer(cls=cli._Root, pretty_exceptions_enable=False)

    @app.callback()
    def root(debug: bool = False) -> None: ...

    @app.command()
    def fail() -> None:
        if error is None:
            Settings.model_validate({"size": "many"})
        else:
            raise error

    return app


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (AgentError("agent 'x' has no run in 'runs'"), 2, "Error: agent 'x' has no run in 'runs'\n"),
        (None, 2, "Error: Settings: size: Input should be a valid integer, unable to parse"),
        (KeyboardInterrupt(), 130, "Interrupted.\n"),
    ],
)
def test_errors_are_one_line(error: BaseException | None, code: int, message: str) -> None:
    result = run("fail", app=failing(error))
    assert result.exit_code == code
    assert result.stderr.startswith(message)
    assert result.stderr.count("\n") == 1


def test_debug_shows_the_traceback() -> None:
    assert isinstance(run("--debug", "fail", app=failing(AgentError("no"))).exception, AgentError)
    assert isinstance(run("fail", app=failing(ZeroDivisionError())).exception, ZeroDivisionError)


def test_help_loads_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import sys; sys.argv = ['recgym', '--help']\n"
        "from recgym.cli import main\n"
        "try: main()\n"
        "finally: assert not {'torch', 'pandas', 'matplotlib', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, cwd=tmp_path)


def test_set_changes_a_scenario_and_refuses_what_is_wrong(tmp_path: Path) -> None:
    plain = run("scenario", "validate", "default")
    changed = run("scenario", "validate", "default", "--set", "behaviour.lift=0.3")
    assert plain.exit_code == changed.exit_code == 0
    assert plain.output != changed.output
    for wrong, message in (("behaviour.liftt=1", "Did you mean 'lift'?"), ("behaviour", "must read KEY=VALUE")):
        for command in (
            ["scenario", "validate", "default"],
            ["train", "--scenario", "default", "--out", str(tmp_path)],
        ):
            refused = run(*command, "--set", wrong)
            assert refused.exit_code == 2
            assert message in refused.output
    evaluated = run("evaluate", "--agents", "random", "--set", "behaviour.liftt=1")
    assert evaluated.exit_code == 2
    assert "Did you mean 'lift'?" in evaluated.output
