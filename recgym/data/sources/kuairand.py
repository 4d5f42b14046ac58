"""KuaiRand (Pure, 1K or 27K): short videos, some of them shown at random, with clicks and other feedback."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from recgym.data.files import read_table
from recgym.data.interactions import Interactions, SourceInfo
from recgym.data.sources.layouts import find, made, optional
from recgym.errors import DataError

SOURCE = SourceInfo(
    "kuairand",
    "https://kuairand.com/",
    "CC BY-SA 4.0",
    "C. Gao, S. Li, Y. Zhang et al. (2022), KuaiRand: An Unbiased Sequential Recommendation Dataset with Randomly "
    "Exposed Videos, CIKM",
)
COLUMNS = {"user_id": "user", "video_id": "item", "time_ms": "time", "is_click": "click", "play_time_ms": "dwell"}


def read(directory: Path) -> Interactions:
    """Every ``log_*.csv`` under the directory (standard and random exposures), with the videos' tags as category.

    Fields as the README of github.com/chongminggao/KuaiRand lists them for ``log_xxx.csv`` and
    ``video_features_basic.csv``. A click is ``is_click``: in the single-column view it stands for a valid play. All
    logs are in memory at once: take Pure or 1K, the 27K logs are 23 GB.
    """
    logs = sorted(f for f in directory.rglob("log_*.csv*") if f.is_file())
    if not logs:
        find(directory, "log_*.csv", url=SOURCE.url)
        raise DataError(f"{directory}: no file 'log_*.csv'; the data set comes from {SOURCE.url}")
    events = pd.concat([read_table(log, list(COLUMNS)) for log in logs]).rename(columns=COLUMNS)
    events = events.assign(dwell=events["dwell"] / 1000, exposure=True)
    basic = optional(directory, "video_features_basic_*.csv", url=SOURCE.url)
    items = None
    if basic is not None:
        names = {"video_id": "item", "author_id": "brand", "video_type": "subcategory", "tag": "category"}
        items = read_table(basic, list(names), text=["tag", "author_id"]).rename(columns=names)
        items["text"] = ""  # tags are numbers: there is nothing to read
    return made(events, SOURCE, [*logs, basic], items=items, time_unit="ms")
