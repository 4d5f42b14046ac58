"""One file a data source: each has ``load() -> Interactions`` and, where it can be had, ``fetch() -> Path``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from recgym.errors import RecGymError
from recgym.registration import Spec, load_target


def fetcher(spec: Spec) -> Callable[[], Path] | None:
    """The ``fetch`` that stands beside a data set's ``load``, or None where it has none."""
    load_target(spec.target)  # a target that cannot be imported is an error, not a data set without fetch
    module = spec.target.rpartition(":")[0]
    try:
        found: Callable[[], Path] = load_target(f"{module}:fetch")
    except RecGymError:
        return None
    return found
