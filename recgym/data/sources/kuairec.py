"""KuaiRec: short videos watched by 7,176 people, fully observed for 1,411 of them."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

import pandas as pd
import pyarrow as pa

from recgym.data.files import read_table, require
from recgym.data.interactions import FilterCount, Interactions, SourceInfo
from recgym.data.sources.layouts import dropped, find, made, optional
from recgym.errors import DataError

SOURCE = SourceInfo(
    "kuairec",
    "https://kuairec.com/",
    "CC BY-SA 4.0",
    "C. Gao, S. Li, W. Lei et al. (2022), KuaiRec: A Fully-observed Dataset and Insights for Evaluating Recommender "
    "Systems, CIKM",
)
LIKED = 2.0  # watch ratio above which a video counts as liked: "like = 1 if watch_ratio > 2.0"
CAPTIONS = {
    "video_id": "item",
    "caption": "caption",
    "manual_cover_text": "cover",
    "first_level_category_name": "category",
    "second_level_category_name": "subcategory",
}


def read(directory: Path) -> Interactions:
    """``big_matrix.csv`` (else ``small_matrix.csv``) with captions: exposures, dwell in s, a click where liked.

    A video is liked (``click``) where it was watched for more than twice its length, which is the authors' suggestion.
    Rows without a time are dropped. Fields as the README of github.com/chongminggao/KuaiRec lists them; captions came
    later, and lie beside the log or in its directory.
    """
    matrix = find(directory, "big_matrix.csv", "small_matrix.csv", url=SOURCE.url)
    captions = optional(directory, "kuairec_caption_category.csv", url=SOURCE.url)
    rows = read_table(matrix, ["user_id", "video_id", "play_duration", "timestamp", "watch_ratio"])
    notes: list[FilterCount] = []
    rows = dropped(rows, rows["timestamp"].isna(), "views without a time", notes)
    events = rows.rename(columns={"user_id": "user", "video_id": "item", "timestamp": "time"})
    events = events.assign(dwell=rows["play_duration"] / 1000, click=rows["watch_ratio"] > LIKED, exposure=True)
    items = None
    if captions is not None:
        items, broken = _captions(captions)
        if broken:
            notes.append(FilterCount("broken lines of captions", broken, "not read"))
    events = events.drop(columns=["play_duration", "watch_ratio"])
    text = ("caption", "cover", "category") if captions else ()
    return made(events, SOURCE, [matrix, captions], items=items, text=text, notes=notes)


def _captions(path: Path) -> tuple[pd.DataFrame, int]:
    """The captions, what is ``UNKNOWN`` left empty, and the number of lines that are none.

    Captions hold line ends and quotes that nothing marks as text, so a few rows come in pieces: those are left out.
    """
    with pa.input_stream(str(path), compression="detect") as stream:
        text = stream.read().decode("utf-8", "replace")
    lines = csv.reader(io.StringIO(re.sub("\r(?!\n)", " ", text)))
    header = next(lines, [])
    require(CAPTIONS, header, path)
    rows, broken = [], 0
    for row in lines:
        whole = len(row) == len(header) and row[header.index("video_id")].isdecimal()
        broken += not whole
        if whole:
            rows.append(
                [None if (value := row[header.index(name)].strip()) == "UNKNOWN" else value for name in CAPTIONS]
            )
    if not rows:
        raise DataError(f"{path}: no data rows")
    frame = pd.DataFrame(rows, columns=list(CAPTIONS.values()))
    return frame.astype({"item": "int64"}), broken
