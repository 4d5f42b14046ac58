"""Amazon Reviews 2023, one category: ``CATEGORY.jsonl`` and ``meta_CATEGORY.jsonl``, plain or compressed."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from recgym.data.files import read_json
from recgym.data.interactions import FilterCount, Interactions, SourceInfo
from recgym.data.sources.layouts import dropped, find, made, optional
from recgym.errors import DataError

SOURCE = SourceInfo(
    "amazon-reviews-2023",
    "https://amazon-reviews-2023.github.io/",
    "not stated by its authors; research use",
    "Y. Hou, J. Li, Z. He, A. Yan, X. Chen, J. McAuley (2024), Bridging Language and Items for Retrieval and "
    "Recommendation, arXiv:2403.03952",
)
COLUMNS = {"user_id": "user", "parent_asin": "item", "rating": "rating", "timestamp": "time"}
TYPES = {"user_id": pa.string(), "parent_asin": pa.string(), "rating": pa.float64(), "timestamp": pa.int64()}
# Only these are read: ``price`` is a number, a text or null, and every product has ``details`` of its own.
META = {
    **dict.fromkeys(("parent_asin", "title", "main_category", "store"), pa.string()),
    **dict.fromkeys(("features", "description"), pa.list_(pa.string())),
}


def read(directory: Path) -> Interactions:
    """Ratings, with times in ms; the item is the product (``parent_asin``), not its colour or size (``asin``).

    Fields as the data set's site lists them ("Data Fields": for user reviews, for item metadata). Some products have no
    metadata, and ``main_category`` is not always the category that the file is named after.
    """
    meta = optional(directory, "meta_*.jsonl", url=SOURCE.url)
    reviews = _reviews(directory, meta)
    events = read_json(reviews, TYPES).rename(columns=COLUMNS)
    notes: list[FilterCount] = []
    events = dropped(events, ~events["rating"].between(1, 5), "ratings outside 1 to 5", notes)
    items = None
    if meta is not None:
        items = read_json(meta, META)
        items = items.rename(columns={"parent_asin": "item", "main_category": "category", "store": "brand"})
    return made(
        events, SOURCE, [reviews, meta], items=items, text=("title", "features", "description") if meta else (),
        notes=notes, time_unit="ms",
    )  # fmt: skip


def _reviews(directory: Path, meta: Path | None) -> Path:
    if meta is not None:
        return find(directory, meta.name.removeprefix("meta_").partition(".")[0] + ".jsonl", url=SOURCE.url)
    found = find(directory, "*.jsonl", url=SOURCE.url)
    if found.name.startswith("meta_"):
        raise DataError(f"{directory}: only item descriptions ({found.name}); the reviews come from {SOURCE.url}")
    return found
