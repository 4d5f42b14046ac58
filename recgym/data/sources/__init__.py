"""One file a data source: each has ``load() -> Interactions`` and, where there are, ``fetch`` and ``knowledge``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recgym.errors import RecGymError
from recgym.registry import Spec, load_target

if TYPE_CHECKING:
    import pandas as pd


def fetcher(spec: Spec) -> Callable[[], Path] | None:
    """The ``fetch`` that stands beside a data set's ``load``, or None where it has none."""
    found: Callable[[], Path] | None = _beside(spec, "fetch")
    return found


def knower(spec: Spec) -> Callable[[], pd.DataFrame] | None:
    """The ``knowledge`` that stands beside a data set's ``load``, or None where it has none."""
    found: Callable[[], pd.DataFrame] | None = _beside(spec, "knowledge")
    return found


def _beside(spec: Spec, name: str) -> Any:
    load_target(spec.target)  # a target that cannot be imported is an error, not a data set without it
    module = spec.target.rpartition(":")[0]
    try:
        return load_target(f"{module}:{name}")
    except RecGymError:
        return None
