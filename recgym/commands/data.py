"""``recgym data``: fetch data sets, and list those that can be fetched."""

from __future__ import annotations

from typing import Annotated

import typer

app = typer.Typer(help="Fetch data sets and show what they hold.", no_args_is_help=True)


@app.command()
def fetch(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A data set of `recgym data list`.")],
) -> None:
    """Fetch a data set, verify it, and print what it holds and what was filtered."""
    from recgym.data import load
    from recgym.data.sources import fetcher
    from recgym.registration import DATASETS

    fetch_files = fetcher(DATASETS.spec(name))
    if fetch_files is not None:
        typer.echo(f"{name}: files in {fetch_files()}")
    load(name).describe()


@app.command("list")
def list_datasets() -> None:
    """List the data sets that can be fetched."""
    from recgym.commands.listing import datasets

    datasets()
