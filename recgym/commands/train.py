"""``recgym train``: trains an agent, with a progress bar, checkpoints, early stopping, tuning and loggers."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Annotated

import typer

from recgym.commands.settings import Changes, changed_scenario, parse_settings


def train(
    env: Annotated[
        str, typer.Option(help="Environment id, such as ecommerce-v0, or name or directory of a world.")
    ] = "ecommerce-v0",
    scenario: Annotated[
        str | None, typer.Option(help="Scenario name or YAML file; the environment's own if not given.")
    ] = None,
    changes: Changes = None,
    agent: Annotated[str, typer.Option(help="Agent name, module:Class or path.py:Class.")] = "ppo",
    steps: Annotated[
        int | None, typer.Option(min=1, help="Slates to show in all; the agent's default budget if not given.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the agent and of the users that it meets.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Run directory; runs/ENV-AGENT-SEED if not given.")] = None,
    num_envs: Annotated[int | None, typer.Option(min=1, help="Users at once (the agent's num_envs).")] = None,
    config: Annotated[
        list[str] | None, typer.Option(help="A setting of the agent, KEY=VALUE; may be given several times.")
    ] = None,
    resume: Annotated[bool, typer.Option(help="Go on with the run in the run directory.")] = False,
    validate_every: Annotated[
        int | None,
        typer.Option(min=1, help="Slates between validations; keeps the best and ends early. Not at all if not given."),
    ] = None,
    patience: Annotated[int, typer.Option(min=1, help="Validations without a better one that end the training.")] = 5,
    validation_users: Annotated[int, typer.Option(min=1, help="Users of a validation, the same in each.")] = 200,
    tune: Annotated[
        int | None, typer.Option(min=1, help="Try so many settings of the agent's search space; keep the best.")
    ] = None,
    log: Annotated[
        list[str] | None, typer.Option(help="tensorboard, wandb, mlflow or none; several: repeat. [tensorboard]")
    ] = None,
    device: Annotated[str, typer.Option(help="Torch device of the simulation and the networks, such as cuda.")] = "cpu",
    user_model: Annotated[
        str | None,
        typer.Option(
            help="Who answers: a name of `recgym list user-models`, or a target. Default: the world's own users."
        ),
    ] = None,
) -> None:
    """Train an agent and save it to a run directory, which `recgym evaluate --agents` takes."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from recgym.agents.loggers import check_loggers
    from recgym.agents.protocol import agent_class, parse_config
    from recgym.agents.training import RUN, train_agent
    from recgym.agents.tuning import tune as tune_agent
    from recgym.agents.validation import Validation
    from recgym.devices import usable
    from recgym.worlds.named import named_world

    world, own = named_world(env, own_users=user_model is None)
    out = out or Path("runs") / f"{Path(env).name}-{Path(agent).name.replace(':', '-')}-{seed}"
    settings = parse_settings(config or [])
    if num_envs is not None:
        settings["num_envs"] = num_envs
    played = changed_scenario(scenario or own, changes)
    parse_config(agent_class(agent), settings)  # refuses bad input before the bar is drawn
    loggers = [name for name in log or ["tensorboard"] if name != "none"]
    check_loggers(loggers)
    usable(device)
    validation = None
    if validate_every is not None:
        validation = Validation(every=validate_every, patience=patience, users=validation_users)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("slates"),
        TimeRemainingColumn(),
    )
    console = Console()
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(f"{'training' if tune is None else 'tuning'} {agent} on {env}", total=None)
        run = train_agent if tune is None else functools.partial(tune_agent, trials=tune)
        run(
            agent,
            world,
            played,
            steps=steps,
            seed=seed,
            out=out,
            config=settings,
            validation=validation,
            loggers=loggers,
            device=device,
            user_model=user_model,
            progress=lambda done, total: bar.update(task, completed=min(done, total), total=total),
            resume=resume,
        )
    for name, value in json.loads((out / RUN).read_text(encoding="utf-8")).get("report", {}).items():
        console.print(f"held out: {name} = {value}", soft_wrap=True)
    console.print(
        f"Saved to {out}. Evaluate it with: recgym evaluate --env {env} --scenario {scenario or own} --agents {out}"
        + (f" --user-model {user_model}" if user_model else ""),
        soft_wrap=True,
    )
