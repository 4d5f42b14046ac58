"""Open Bandit: fashion impressions with clicks, positions and true propensities, under two logging policies."""

from __future__ import annotations

from pathlib import Path

from recgym.data.files import read_table, require
from recgym.data.interactions import FilterCount, Interactions, SourceInfo
from recgym.data.sources.layouts import find, made, optional
from recgym.errors import DataError

SOURCE = SourceInfo(
    "open-bandit",
    "https://research.zozo.com/data.html",
    "CC BY 4.0",
    "Y. Saito, S. Aihara, M. Matsutani, Y. Narita (2021), Open Bandit Dataset and Pipeline: Towards Realistic and "
    "Reproducible Off-policy Evaluation, NeurIPS Datasets and Benchmarks",
)
CAMPAIGNS = ("all", "men", "women")
COLUMNS = {
    "timestamp": "time",
    "item_id": "item",
    "position": "position",
    "click": "click",
    "propensity_score": "propensity",
}
FEATURES = [f"user_feature_{n}" for n in range(4)]


def read(directory: Path) -> Interactions:
    """One campaign under one policy, such as ``obd/random/men``: ``men.csv`` and ``item_context.csv``.

    Columns as ``obp/dataset/real.py`` of the authors' package reads them. The data set has no user ids: a user stands
    for all people with the same four features. Positions count from 1 there, from 0 here.
    """
    path = find(directory, *(f"{name}.csv" for name in CAMPAIGNS), url=SOURCE.url)
    rows = read_table(path, text=FEATURES)
    require([*COLUMNS, *FEATURES], list(rows.columns), path)
    events = rows.rename(columns=COLUMNS)[list(COLUMNS.values())]
    if not events["position"].between(1, 3).all():
        raise DataError(f"{path}, column 'position': must be 1, 2 or 3, got {events['position'].min()} to "
                        f"{events['position'].max()}")  # fmt: skip
    people = rows[FEATURES].agg("-".join, axis=1)
    events = events.assign(user=people, position=events["position"] - 1, exposure=True)
    users = rows[FEATURES].assign(user=people).drop_duplicates("user")
    context = optional(directory, "item_context.csv", url=SOURCE.url)
    items = None
    if context is not None:
        names = {"item_id": "item", "item_feature_1": "category", "item_feature_2": "subcategory"}
        items = read_table(context, list(names)).rename(columns=names)
        items["text"] = ""  # features are hashed
    notes = [FilterCount("people of the same four features read as one user", len(users), "users")]
    return made(events, SOURCE, [path, context], items=items, users=users, notes=notes)
