"""``recgym bench``: user-steps per second beside peers on the same machine, tables, ``speed.json`` and a plot."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def bench(
    suite: Annotated[
        str,
        typer.Option(
            help="What to measure, separated by commas: peers, single, reference, floor, scaling, catalogue, model, "
            "sb3. Default: all of it, the better part of an hour."
        ),
    ] = "",
    env: Annotated[str, typer.Option(help="Environment id.")] = "ecommerce-v0",
    rounds: Annotated[
        int | None, typer.Option(min=1, help="Measurements of each contestant, who take turns. Default: 5.")
    ] = None,
    seconds: Annotated[
        float | None, typer.Option(min=0.01, help="Seconds timed in each, after a warm-up. Default: 5.")
    ] = None,
    threads: Annotated[
        int, typer.Option(min=0, help="Threads of each process; 0: as many as its libraries take by themselves.")
    ] = 0,
    device: Annotated[str, typer.Option(help="Torch device of the simulation.")] = "cpu",
    seed: Annotated[int, typer.Option(min=0, help="Of lanes and actions.")] = 0,
    quick: Annotated[
        bool, typer.Option("--quick", help="One short round without the largest sizes: does it run, not how fast.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(help="Directory for speed.json and speed.png; the same command again resumes.")
    ] = None,
) -> None:
    """Measure user-steps per second, CPU time and peak memory, side by side with other simulators.

    A user-step is one slate answered; steps in which a lane only restarts do not count. Every measurement runs in a
    process of its own, contestants take turns, and ratios are taken within a round. Peers are installed by pip, each
    in a virtual environment under $RECGYM_HOME/bench; one that cannot be installed or run is reported with the reason.

    Suites: peers (4,096 lanes beside sardine-rec, recsim and CartPole), single (one user), reference (a hand-written
    user, 10,000 lanes), floor (the same arithmetic as bare torch calls), scaling (1 to 65,536 lanes), catalogue (10^3
    to 10^6 items), model (slate size and width), sb3 (PPO's rollouts through the adapter, beside DummyVecEnv).

    Close other programs first: a measurement during which they kept a core busy is marked.
    """
    from rich.console import Console

    from recgym.benchmark.plan import suites
    from recgym.benchmark.report import plot, show
    from recgym.benchmark.run import run
    from recgym.benchmark.store import Store, configuration, default_directory
    from recgym.benchmark.summary import summarise, to_json
    from recgym.evaluation.progress import bars
    from recgym.registration import ENVS

    ENVS.spec(env)  # an unknown id is refused before anything is measured
    names = [part.strip() for part in suite.split(",") if part.strip()]
    plan = suites(names, env, device, seed, quick=quick)
    seconds = seconds or (0.3 if quick else 5.0)
    settings = configuration(env, seconds, threads, device, quick, seed)
    directory = out or default_directory(settings)
    store = Store.open(directory, settings)
    console = Console()
    try:
        with bars() as progress:
            run(
                plan,
                store,
                rounds=rounds or (1 if quick else 5),
                seconds=seconds,
                least=0.0 if quick else 1.0,
                most=2.0 if quick else 60.0,
                threads=threads,
                progress=progress,
            )
    except KeyboardInterrupt:
        typer.echo("What was measured is kept: the same command again takes up from here.", err=True)
        raise
    finally:
        results = summarise(plan, store)
        if results:
            store.write(results=to_json(results))
            show(results, console)
            console.print(
                f"Measurements: {directory}, plot: {plot(results, directory)}", soft_wrap=True, highlight=False
            )
    own = [one for result in results for one in result.standings if one.contestant.peer is None and one.errors]
    if own:
        typer.secho(f"Error: {own[0].contestant.name} of RecGym's own could not be measured.", fg="red", err=True)
        raise typer.Exit(1)
