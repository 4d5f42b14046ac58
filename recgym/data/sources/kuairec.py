"""KuaiRec: short videos watched by 7,176 people, fully observed for 1,411 of them."""

from __future__ import annotations

from pathlib import Path

from recgym.data.files import read_table
from recgym.data.interactions import FilterCount, Interactions, SourceInfo
from recgym.data.sources.layouts import dropped, find, made, optional

SOURCE = SourceInfo(
    "kuairec",
    "https://kuairec.com/",
    "CC BY-SA 4.0",
    "C. Gao, S. Li, W. Lei et al. (2022), KuaiRec: A Fully-observed Dataset and Insights for Evaluating Recommender "
    "Systems, CIKM",
)
LIKED = 2.0  # watch ratio from which the paper counts a video as liked


def read(directory: Path) -> Interactions:
    """``big_matrix.csv`` (else ``small_matrix.csv``) with captions: exposures, dwell in s, a click where liked.

    A video is liked (``click``) where it was watched for at least twice its length. Rows without a time are dropped.
    """
    matrix = find(directory, "big_matrix.csv", "small_matrix.csv", url=SOURCE.url)
    captions = optional(directory, "kuairec_caption_category.csv", url=SOURCE.url)
    rows = read_table(matrix, ["user_id", "video_id", "play_duration", "timestamp", "watch_ratio"])
    notes: list[FilterCount] = []
    rows = dropped(rows, rows["timestamp"].isna(), "views without a time", notes)
    events = rows.rename(columns={"user_id": "user", "video_id": "item", "timestamp": "time"})
    events = events.assign(dwell=rows["play_duration"] / 1000, click=rows["watch_ratio"] >= LIKED, exposure=True)
    items = None
    if captions is not None:
        names = {
            "video_id": "item",
            "caption": "caption",
            "manual_cover_text": "cover",
            "first_level_category_name": "category",
            "second_level_category_name": "subcategory",
        }
        items = read_table(captions, list(names)).rename(columns=names)
    events = events.drop(columns=["play_duration", "watch_ratio"])
    text = ("caption", "cover", "category") if captions else ()
    return made(events, SOURCE, [matrix, captions], items=items, text=text, notes=notes)
