"""RetailRocket: views, baskets and transactions of a web shop, with the items' categories over time."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from recgym.data.files import read_table
from recgym.data.interactions import Interactions, SourceInfo
from recgym.data.sources.layouts import find, made, optional
from recgym.errors import DataError

SOURCE = SourceInfo(
    "retailrocket",
    "https://www.kaggle.com/datasets/retailrocket/ecommerce-dataset",
    "CC BY-NC-SA 4.0",
    "RetailRocket (2015), Retailrocket recommender system dataset, Kaggle",
)
EVENTS = ("view", "addtocart", "transaction")


def read(directory: Path) -> Interactions:
    """One event a view, addition or transaction (``purchase``); an item's category is the last that it had.

    Files and columns of the archive on Kaggle; times are in ms.
    """
    path = find(directory, "events.csv", url=SOURCE.url)
    rows = read_table(path, ["timestamp", "visitorid", "event", "itemid"])
    unknown = ~rows["event"].isin(EVENTS)
    if unknown.any():
        row = int(unknown.to_numpy().argmax())
        raise DataError(
            f"{path}, row {row + 1}, column 'event': must be {', '.join(EVENTS)}, got {rows['event'].iloc[row]!r}"
        )
    events = rows.rename(columns={"timestamp": "time", "visitorid": "user", "itemid": "item"})
    events = events.assign(purchase=rows["event"] == "transaction", click=True).drop(columns="event")
    files = [optional(directory, f"item_properties_part{n}.csv", url=SOURCE.url) for n in (1, 2)]
    found = [read_table(file, ["timestamp", "itemid", "property", "value"], text=["property", "value"])
             for file in files if file is not None]  # fmt: skip
    items = None
    if found:
        table = pd.concat(found)
        table = table[table["property"] == "categoryid"].sort_values("timestamp", kind="stable")
        items = table.drop_duplicates("itemid", keep="last").rename(columns={"itemid": "item", "value": "category"})
        items["text"] = ""  # words are hashed in this log
    return made(events, SOURCE, [path, *files], items=items, time_unit="ms")
