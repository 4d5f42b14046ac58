"""Interaction logs: schema, sources, splits and fetching with checksums; imported when first used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

    from recgym.data.interactions import FilterCount, Interactions, SourceInfo
    from recgym.data.splits import Split, by_user, global_temporal, leave_last, leave_last_basket

_HOMES = {
    "FilterCount": "recgym.data.interactions",
    "Interactions": "recgym.data.interactions",
    "SourceInfo": "recgym.data.interactions",
    "Split": "recgym.data.splits",
    "by_user": "recgym.data.splits",
    "global_temporal": "recgym.data.splits",
    "leave_last": "recgym.data.splits",
    "leave_last_basket": "recgym.data.splits",
}

__all__ = [
    "FilterCount",
    "Interactions",
    "SourceInfo",
    "Split",
    "by_user",
    "global_temporal",
    "knowledge",
    "leave_last",
    "leave_last_basket",
    "load",
]


def load(name: str) -> Interactions:
    """The log registered under ``name``, fetched first where it is not there yet.

    Raises:
        UnknownNameError: if no data set has that name; the message gives the nearest.
        DataError: if it cannot be fetched or read.
    """
    from recgym.registration import DATASETS

    log: Interactions = DATASETS.load(name)()
    return log


def knowledge(name: str) -> pd.DataFrame:
    """Facts about the items of a data set: columns item, relation, entity and other_item.

    Raises:
        UnknownNameError: if no data set has that name; the message gives the nearest.
        DataError: the data set brings no knowledge graph, or it cannot be fetched or read.
    """
    from recgym.data.sources import knower
    from recgym.errors import DataError
    from recgym.registration import DATASETS

    read = knower(DATASETS.spec(name))
    if read is None:
        raise DataError(f"data set {name!r} brings no knowledge graph")
    return read()


def __getattr__(name: str) -> Any:
    """Imports a public name when it is first used (pandas is not needed to import ``recgym``)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
