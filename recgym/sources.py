"""Digests of code, so that what two states of it have computed is never mixed."""

from __future__ import annotations

import functools
import hashlib
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

_OWN = {"recgym", *sys.stdlib_module_names}


@functools.cache
def recgym_source() -> str:
    """A digest of RecGym's own source, agents and user models included."""
    import recgym
    import recgym.agents
    import recgym.user_models

    roots = [Path(root) for package in (recgym, recgym.agents, recgym.user_models) for root in package.__path__]
    return _digest((str(file.relative_to(root)), file) for root in roots for file in sorted(root.rglob("*.py")))


def own_source(kind: Any) -> str | None:
    """A digest of the files in which a class (or function) and its bases are written; None where all are RecGym's.

    What those files import is not read. A class typed into a notebook has no file, and so no part in the digest.
    """
    # Passed on as Any: that a cache hashes its argument is no question for types, which take a class for unhashable.
    return _first_seen(kind)


@functools.cache  # the class stays what it was when its file was imported, whatever becomes of the file
def _first_seen(kind: Any) -> str | None:
    modules = dict.fromkeys(part.__module__ for part in getattr(kind, "__mro__", (kind,)))
    files = [
        Path(file)
        for name in modules
        if name.partition(".")[0] not in _OWN or name == "__main__"
        if (file := getattr(sys.modules.get(name), "__file__", None))
    ]
    return _digest((file.name, file) for file in files if file.is_file()) if files else None


def _digest(files: Iterable[tuple[str, Path]]) -> str:
    digest = hashlib.sha256()
    for name, file in files:
        digest.update(name.encode() + file.read_bytes())
    return digest.hexdigest()[:16]
