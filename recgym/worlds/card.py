"""The fidelity card: what a world was built from, what is fitted and what assumed, and how close it comes."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from recgym.errors import WorldError
from recgym.worlds.bundle import CARD_FILES, check_replaceable, replaced_directory
from recgym.worlds.spec import WorldSpec

SCHEMA = "recgym/fidelity-card"
SCHEMA_VERSION = 1


def card_files(spec: WorldSpec) -> dict[str, bytes]:
    """The documents of a bundle, by file name: card.md, card.json and the figures that card.md shows."""
    from recgym.worlds.figures import draw_figures

    figures = draw_figures(spec.metrics)
    return {
        "card.md": render_card(spec).encode(),
        "card.json": render_json(spec).encode(),
        **figures,
    }


def render_card(spec: WorldSpec) -> str:
    """The card as Markdown; its figures are linked by file name."""
    return _environment().get_template("card.md.j2").render(spec=spec, metrics=spec.metrics, evidence=evidence)


def render_ablations(figures: dict[str, Any]) -> str:
    """The part of the card that shows ablations."""
    return _environment().get_template("ablations.md.j2").render(metrics={"ablations": figures})


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("recgym.worlds"),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(interval=interval, number=number, words=words, cell=cell)
    return environment


def render_json(spec: WorldSpec) -> str:
    """The card as strict JSON (no NaN, no Infinity).

    Raises:
        WorldError: a figure is not a finite number.
    """
    card = {
        "schema": SCHEMA,
        "schema_version": SCHEMA_VERSION,
        **spec.model_dump(mode="json", exclude={"files", "format_version", "metrics"}),
        "metrics": spec.metrics,  # as they are: pydantic would write null for NaN
    }
    try:
        return json.dumps(card, indent=2, allow_nan=False) + "\n"
    except ValueError as error:
        raise WorldError(f"world {spec.name!r}: the card holds a figure that is not a finite number") from error


def check_card_directory(directory: Path) -> None:
    """Makes sure that a card may be written to ``directory``: a new or an empty one, or an older card.

    Raises:
        WorldError: it cannot be written to, or holds something other than a card, such as a bundle with its card.
    """
    check_replaceable(directory, "a card", CARD_FILES)


def write_card(spec: WorldSpec, directory: Path) -> None:
    """Writes card.md, card.json and the figures to ``directory``, all or nothing; an older card there is replaced.

    Raises:
        WorldError: see ``check_card_directory``.
    """
    check_card_directory(directory)
    files = card_files(spec)
    with replaced_directory(directory) as work:
        for name, content in files.items():
            (work / name).write_bytes(content)


def evidence(metrics: dict[str, Any], keys: dict[str, str]) -> str:
    """The measured figures behind a parameter: ``keys`` gives the path of each in ``metrics``, by what it is called."""
    found = []
    for name, path in keys.items():
        value = lookup(metrics, path)
        if value is not None:
            found.append(f"{name} {interval(value) if isinstance(value, list) else value}")
    return "; ".join(found)


def lookup(metrics: Any, path: str) -> Any:
    """The figure at a dotted path, such as ``auc.uniform.model``; a part may name the row whose ``name`` it is."""
    for part in path.split("."):
        if isinstance(metrics, list):
            metrics = next((row for row in metrics if row.get("name") == part), None)
        else:
            metrics = metrics.get(part) if isinstance(metrics, dict) else None
        if metrics is None:
            return None
    return metrics


def interval(values: list[float | None], digits: int = 3) -> str:
    """``0.835 [0.828, 0.842]``; the number alone where there is no interval."""
    value, low, high = values
    if low is None or high is None:
        return number(value, digits)
    return f"{number(value, digits)} [{number(low, digits)}, {number(high, digits)}]"


def words(name: str) -> str:
    """A key as words."""
    return name.replace("_", " ")


def cell(text: str) -> str:
    """Text for a table, where a bar would end the cell."""
    return text.replace("|", "\\|")


def number(value: float | None, digits: int = 3) -> str:
    """A figure with ``digits`` digits after the point; more for small ones, so that two of them tell something."""
    if not value:
        return "-" if value is None else f"{value:.{digits}f}"
    return f"{value:.{max(digits, 1 - math.floor(math.log10(abs(value))))}f}"


def differences(old: Any, new: Any, path: str = "", tolerance: float = 1e-9) -> list[str]:
    """Where two sets of figures differ, one line each: the path, the old value and the new one."""
    if isinstance(old, dict) and isinstance(new, dict):
        return [
            line
            for key in dict.fromkeys([*old, *new])
            for line in differences(old.get(key), new.get(key), f"{path}.{key}" if path else str(key), tolerance)
        ]
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        pairs = enumerate(zip(old, new, strict=True))
        return [line for at, (a, b) in pairs for line in differences(a, b, f"{path}[{at}]", tolerance)]
    numeric = all(isinstance(value, int | float) and not isinstance(value, bool) for value in (old, new))
    if old == new or (numeric and abs(old - new) <= tolerance):
        return []
    return [f"{path}: {_shown(old)} -> {_shown(new)}"]


def _shown(value: Any) -> str:
    text = "nothing" if value is None else json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
