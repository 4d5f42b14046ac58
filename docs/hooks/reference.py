"""Reference pages made from the code itself, so that they cannot fall behind it."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import typer
from mkdocs.structure.files import File

import recgym
from recgym.cli import app
from recgym.registration import AGENTS, DATASETS, ENVS, SCENARIOS, USER_MODELS, WORLDS
from recgym.registry import Registry
from recgym.scenario import Scenario

ROOT = Path(__file__).parents[2]
CARD = Path(recgym.__file__).parent / "worlds" / "bundles" / "ecommerce"


def on_files(files: Any, config: Any) -> Any:
    """Adds the pages, and the figures of the card."""
    pages = {
        "command-line": command_line(),
        "scenario": scenario(),
        "registered": registered(),
        "card": (CARD / "card.md").read_text(encoding="utf-8"),
        "changelog": (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"),
    }
    for name, text in pages.items():
        files.append(File.generated(config, f"reference/{name}.md", content=text))
    for picture in sorted(CARD.glob("*.png")):
        files.append(File.generated(config, f"reference/{picture.name}", content=picture.read_bytes()))
    return files


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """A Markdown table."""
    lines = [
        head,
        ("---",) * len(head),
        *([cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows),
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def named(registry: Registry[Any], describe: Callable[[Any], str]) -> str:
    """A table of what a registry brings."""
    specs = sorted(registry.registered(), key=lambda spec: spec.id)
    return table(("name", "what"), [(f"`{spec.id}`", describe(spec)) for spec in specs])


# ---------------------------------------------------------------------- commands


def command_line() -> str:
    """Every command with its arguments and options."""
    parts = [
        "# Command line",
        "`recgym COMMAND --help` prints the same. An error of yours is one line and exit code 2; "
        "`recgym --debug COMMAND` shows the traceback.",
    ]
    for words, command in _commands(typer.main.get_command(app), ("recgym",)):
        parts += [f"## `{' '.join(words)}`", inspect.cleandoc(command.help or "")]
        rows = [_parameter(parameter) for parameter in command.params if parameter.name != "help"]
        if rows:
            parts.append(table(("", "default", "what"), rows))
    return "\n\n".join(parts) + "\n"


def _commands(command: Any, words: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    if not hasattr(command, "commands"):
        yield words, command
        return
    for name, child in command.commands.items():
        yield from _commands(child, (*words, name))


def _parameter(parameter: Any) -> tuple[str, str, str]:
    if parameter.param_type_name == "argument":
        name = parameter.metavar or parameter.name.upper()
    else:
        name = ", ".join([*parameter.opts, *parameter.secondary_opts])
    default = parameter.default
    shown = f"`{default}`" if isinstance(default, str | Path | float) and default not in ("", False) else ""
    if getattr(parameter, "required", False):
        shown = "required"
    return f"`{name}`", shown, parameter.help or ""


# ---------------------------------------------------------------------- scenarios


def scenario() -> str:
    """Every key of a scenario file, from the schema."""
    schema = Scenario.model_json_schema()
    parts = [
        "# Scenario files",
        "A scenario is a YAML file that names only what it changes: [Write a scenario](../how-to/scenarios.md). "
        "`recgym scenario schema` prints the JSON Schema that this page is made of, `recgym scenario validate FILE` "
        "checks a file. **Assumed** marks what no purchase log identifies: check conclusions over a range of values.",
    ]
    for path, section in _sections(schema, schema, ()):
        rows = [_key(name, field, schema) for name, field in section["properties"].items()]
        parts += [
            f"## `{'.'.join(path)}`" if path else "## Top level",
            section.get("description", ""),
            table(("key", "default", "what"), rows),
        ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _sections(section: Any, schema: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every mapping of the schema, with where it stands; a mapping without keys of its own is a value."""
    yield path, section
    for name, field in section["properties"].items():
        for option in _options(field, schema):
            if option.get("properties"):
                yield from _sections(option, schema, (*path, name))


def _options(field: Any, schema: Any) -> list[Any]:
    """What a field may be, references resolved."""
    found = field.get("anyOf") or field.get("oneOf") or field.get("allOf") or [field]
    return [schema["$defs"][one["$ref"].rsplit("/", 1)[1]] if "$ref" in one else one for one in found]


def _key(name: str, field: Any, schema: Any) -> tuple[str, str, str]:
    options = _options(field, schema)
    text = field.get("description", "") or next((one["description"] for one in options if "description" in one), "")
    if field.get("status") == "assumed":
        text += f" **Assumed**: {field['reference']}."
    choices = next((one["enum"] for one in options if "enum" in one), None)
    if choices:
        text += f" One of {', '.join(f'`{choice}`' for choice in choices)}."
    if any(one.get("properties") for one in options):
        return f"`{name}`", "", text or "A section, below."
    default = f"`{json.dumps(field['default'])}`" if "default" in field else "required" if "$ref" not in field else ""
    return f"`{name}`", default, text


# ---------------------------------------------------------------------- registries


def _asks(name: str) -> str:
    """What a scenario is, and the question that it asks."""
    found = SCENARIOS.load(name)
    return f"{found.description} *{found.question}*"


def registered() -> str:
    """What `recgym list` shows."""
    parts = [
        "# Names",
        "What `recgym list` prints for an installation without plug-ins. Other distributions add to it with entry "
        "points of the groups named here. Agents and user models are also taken as `module:Class` or `path.py:Class`.",
    ]
    for registry, take in (
        (ENVS, "`recgym.make`, `--env`"),
        (AGENTS, "`--agent`, `--agents`, `make_agent`"),
        (USER_MODELS, "`user_model=`, `--user-model`"),
        (WORLDS, "`world=`, `recgym world build`"),
        (DATASETS, "`recgym data fetch`"),
        (SCENARIOS, "`scenario=`, `--scenario`"),
    ):
        title = f"## {registry.kind[0].upper()}{registry.kind[1:]}s"
        entries = named(registry, lambda spec: getattr(spec, "description", "") or _asks(spec.id))
        parts += [title, f"Taken by {take}; entry points: `{registry.group}`.", entries]
    return "\n\n".join(parts) + "\n"
