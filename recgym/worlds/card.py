"""The fidelity card: what a world was built from, what is fitted and what assumed, and how close it comes."""

from __future__ import annotations

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from recgym.worlds.spec import WorldSpec


def _interval(values: list[float]) -> str:
    return f"{values[0]:.3f} [{values[1]:.3f}, {values[2]:.3f}]"


def render_card(spec: WorldSpec) -> str:
    """The card as Markdown."""
    loader = PackageLoader("recgym.worlds")
    environment = Environment(loader=loader, undefined=StrictUndefined, keep_trailing_newline=True)
    environment.filters["interval"] = _interval
    metrics: dict[str, Any] = {"training": None, "next_trip": None, "rating": None, **spec.metrics}
    return environment.get_template("card.md.j2").render(spec=spec, metrics=metrics)
