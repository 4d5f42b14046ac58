"""MIND: news impressions with clicks, and the news' titles and abstracts (``behaviors.tsv``, ``news.tsv``)."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from recgym.data.files import read_table
from recgym.data.interactions import FilterCount, Interactions, SourceInfo
from recgym.data.sources.layouts import find, made
from recgym.errors import DataError

SOURCE = SourceInfo(
    "mind",
    "https://msnews.github.io/",
    "Microsoft Research License Terms: research use",
    "F. Wu, Y. Qiao, J.-H. Chen et al. (2020), MIND: A Large-scale Dataset for News Recommendation, ACL",
)
BEHAVIORS = ["impression", "user", "time", "history", "shown"]
NEWS = ["item", "category", "subcategory", "title", "abstract", "url", "title_entities", "abstract_entities"]
TIME = "%m/%d/%Y %I:%M:%S %p"


def read(directory: Path) -> Interactions:
    """One event a news item shown, in the order of the impression; the clicks before the log began have no time.

    Columns as ``recommenders/datasets/mind.py`` of Microsoft's Recommenders reads them. Impressions of the large test
    set bear no clicks, so it is refused; name the directory of one split.

    Raises:
        DataError: naming file, row and value of what is not valid.
    """
    behaviors = find(directory, "behaviors.tsv", url=SOURCE.url)
    news = find(directory, "news.tsv", url=SOURCE.url)
    rows = read_table(behaviors, BEHAVIORS, names=BEHAVIORS, text=BEHAVIORS)
    rows["time"] = pd.to_datetime(rows["time"], format=TIME, errors="coerce")
    if rows["time"].isna().any():
        row = int(rows["time"].isna().to_numpy().argmax())
        raise DataError(f"{behaviors}, row {row + 1}: not a time such as '11/15/2019 8:55:22 AM'")
    notes = [FilterCount("clicks before the log began", int(rows["history"].str.split().str.len().sum()), "no time")]
    shown = rows.assign(shown=rows["shown"].str.split())[["impression", "user", "time", "shown"]]
    events = shown.explode("shown").reset_index(names="row")
    parts = events["shown"].astype(str).str.extract(r"^(?P<item>.+)-(?P<click>[01])$")
    if parts["item"].isna().any():
        bad = int(parts["item"].isna().to_numpy().argmax())
        row, value = int(events["row"].iloc[bad]) + 1, events["shown"].iloc[bad]
        raise DataError(f"{behaviors}, row {row}: an impression must read ITEM-0 or ITEM-1, got {value!r}")
    events = events.assign(
        item=parts["item"], click=parts["click"] == "1", exposure=True, basket=events["impression"],
        position=events.groupby("row").cumcount(),
    ).drop(columns=["shown", "row", "impression"])  # fmt: skip
    items = read_table(news, NEWS[:5], names=NEWS, text=NEWS)
    return made(events, SOURCE, [behaviors, news], items=items, text=("title", "abstract"), notes=notes)
