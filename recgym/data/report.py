"""Prints what a log holds and what was filtered on the way in."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table


def print_summary(summary: dict[str, Any], console: Console | None = None) -> None:
    """Prints the result of ``Interactions.summary()``: sizes, columns with units, and every filter with its count."""
    console = console or Console()
    sizes = f"{summary['events']:,} events, {summary['users']:,} users, {summary['items']:,} items"
    if summary["baskets"] is not None:
        sizes += f", {summary['baskets']:,} baskets"
    console.print(f"[bold]{escape(summary['name'])}[/bold]: {sizes}")
    console.print(f"from {summary['first'][:19]} to {summary['last'][:19]} (time: {summary['time_origin']})")
    console.print(f"content hash {summary['hash']}", soft_wrap=True)
    source = summary["source"]
    for label in ("origin", "licence", "citation"):
        if source[label]:
            console.print(f"{label}: {source[label]}", soft_wrap=True, markup=False)
    columns = Table("column", "unit", "missing", title="Columns", title_justify="left")
    for name, facts in summary["columns"].items():
        columns.add_row(name, escape(facts["unit"]), f"{facts['missing']:,}")
    console.print(columns)
    filters = Table("what", "rows", "detail", title="Filtered, clipped or changed", title_justify="left")
    for entry in summary["filters"]:
        filters.add_row(escape(entry["reason"]), f"{entry['count']:,}", escape(entry["detail"]))
    if summary["filters"]:
        console.print(filters)
    else:
        console.print("Nothing was filtered, clipped or changed.")
