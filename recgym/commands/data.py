"""``recgym data``: fetch data sets, list those that can be fetched, and log rollouts of the simulation."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Fetch data sets, show what they hold, and log rollouts.", no_args_is_help=True)


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


@app.command()
def rollouts(
    out: Annotated[Path, typer.Option(help="Directory for rollouts.parquet and rollouts.json.")],
    env: Annotated[
        str, typer.Option(help="Environment id, such as ecommerce-v0, or name or directory of a world.")
    ] = "ecommerce-v0",
    scenario: Annotated[
        str | None, typer.Option(help="Scenario name or YAML file; the environment's own if not given.")
    ] = None,
    agent: Annotated[str, typer.Option(help="Whose slates are logged: an agent's name or run directory.")] = (
        "popularity"
    ),
    exploration: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Chance that a slot shows any of the candidates left instead.")
    ] = 0.5,
    steps: Annotated[int, typer.Option(min=1, help="Slates to log.")] = 10_000,
    num_envs: Annotated[int, typer.Option(min=1, help="Users at once.")] = 64,
    seed: Annotated[int, typer.Option(help="Seed of the users and their luck.")] = 0,
    minari: Annotated[
        str | None, typer.Option(help="Id of a Minari data set to write as well, such as recgym/popularity-v0.")
    ] = None,
) -> None:
    """Log what a policy shows and what comes of it, with the exact propensity of every position."""
    from recgym.agents.exploration import Behaviour
    from recgym.agents.protocol import make_agent
    from recgym.data.rollouts import collect
    from recgym.envs.vector import RecVectorEnv
    from recgym.worlds.named import named_world

    world, own = named_world(env)
    playing = RecVectorEnv(world=world, scenario=scenario or own, num_envs=num_envs)
    policy = Behaviour(make_agent(agent, playing.world, seed), exploration)
    keys = ("user", "candidates", "candidate_items")
    logged = collect(policy, playing, steps, keys=keys, seed=seed)
    typer.echo(f"{len(logged.slates()):,} slates of {logged.episode[-1] + 1:,} episodes in {logged.save(out)}")
    if minari is not None:
        from recgym.adapters.minari import to_minari

        typer.echo(f"Minari data set {minari} in {to_minari(logged, minari)}")


@app.command("list")
def list_datasets() -> None:
    """List the data sets that can be fetched."""
    from recgym.commands.listing import datasets

    datasets()
