"""``recgym sample-size``: how many users an evaluation needs to show a difference, from the rows of a pilot."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def sample_size(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Directory of a finished evaluation, the pilot.")],
    first: Annotated[str, typer.Option(help="An agent of the pilot.")],
    second: Annotated[str, typer.Option(help="The agent that it is compared with.")],
    difference: Annotated[float, typer.Option(help="Smallest difference worth finding, in the unit of the value.")],
    value: Annotated[str, typer.Option(help="Column of the rows that is compared.")] = "reward",
    power: Annotated[float, typer.Option(help="Chance that the interval excludes 0 if the difference is there.")] = 0.8,
    tests: Annotated[int, typer.Option(min=1, help="Comparisons of the leaderboard, for Holm's correction.")] = 1,
) -> None:
    """How many users, with as many seeds each as the pilot had, show a paired difference between two agents.

    The spread of the difference over users is measured in the pilot. More seeds a user shrink it, down to what users
    really differ by.
    """
    import pandas as pd

    from recgym.errors import RecGymError, unknown_name
    from recgym.evaluation.significance import num_users_needed, paired_spread
    from recgym.evaluation.store import ROWS, read_manifest

    available = read_manifest(run)["configuration"]["users"]["available"]
    if not (run / ROWS).is_file():
        raise RecGymError(f"the evaluation in {run} has not finished: {ROWS} is missing. Run it again to resume.")
    rows = pd.read_parquet(run / ROWS)
    columns = rows.select_dtypes("number").columns.drop(["seed", "user", "lane_seed"])
    if value not in columns:
        raise unknown_name("column of numbers", value, columns)
    seeds = rows["seed"].nunique()
    for scenario, spread in paired_spread(rows, first, second, value).items():
        if spread == 0:
            typer.echo(f"{scenario}: {first} and {second} do not differ on any user of the pilot")
            continue
        needed = num_users_needed(difference, float(spread), power=power, num_tests=tests)
        typer.echo(
            f"{scenario}: {needed:,} users with {seeds} seed{'s' * (seeds != 1)} each show a difference of "
            f"{abs(difference):g} in {value} with chance {power:.0%} (spread over users: {spread:.3g})"
            + (f" (the world has {available:,}: play more seeds a user)" if needed > available else "")
        )
