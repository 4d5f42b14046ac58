"""``recgym demo``: trains a PPO re-ranker on the shipped world and compares it with the baselines, in minutes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

BASELINES = ("random", "popularity", "frequency", "item_knn", "greedy")


def demo(
    out: Annotated[Path, typer.Option(help="Directory for agent, rows and report.")] = Path("runs/demo"),
    env: Annotated[str, typer.Option(help="Environment id, or name or directory of a world.")] = "ecommerce-v0",
    users: Annotated[int, typer.Option(help="Users, the same for every agent.")] = 500,
    seeds: Annotated[int, typer.Option(help="Episodes with each user.")] = 3,
    train_steps: Annotated[
        int | None, typer.Option(min=1, help="Slates that PPO is trained on; its default budget if not given.")
    ] = None,
) -> None:
    """Train a PPO re-ranker and compare it with the baselines on identical users. Run it again to resume."""
    from rich.console import Console

    from recgym.agents.training import RUN, train_agent
    from recgym.commands.evaluate import command_line, finish, resumable
    from recgym.evaluation.plan import make_plan
    from recgym.evaluation.progress import bars
    from recgym.evaluation.runner import evaluate

    console = Console()
    learner = out / "agents" / "ppo"
    plan = make_plan(env, None, BASELINES, users, seeds)  # refuses bad input before minutes of training
    console.print(f"RecGym demo on {plan.world.spec.title}: train PPO, then compare it with {', '.join(BASELINES)}.")
    with resumable(), bars() as report:
        train_agent(
            "ppo",
            plan.world,
            plan.scenarios[0],
            steps=train_steps,
            out=learner,
            progress=lambda done, total: report("training ppo", min(done, total), total),
            resume=(learner / RUN).is_file(),
        )
        evaluate(
            plan.world,
            plan.scenarios,
            {**{name: name for name in BASELINES}, "ppo": learner},
            users=users,
            seeds=seeds,
            out=out,
            progress=report,
            command=command_line(),
        )
    finish(out, console)
