"""Worlds of any size with random weights, built once: what a step costs does not depend on what was fitted."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from pathlib import Path

from recgym.paths import recgym_home
from recgym.testing import worlds
from recgym.worlds.spec import FORMAT_VERSION
from recgym.worlds.world import World, load_world

NUM_USERS = 2000
WINDOW = 50


def bench_world(num_items: int, dim: int) -> World:
    """The world of ``num_items`` items and a network of width ``dim``, built under ``$RECGYM_HOME`` where missing."""
    # A world that an older version of the builder left behind is not taken for a new one.
    made_by = Path(worlds.__file__).read_bytes() + f"{FORMAT_VERSION} {NUM_USERS} {WINDOW}".encode()
    home = recgym_home() / "bench" / "worlds"
    path = home / f"items-{num_items}-dim-{dim}-{hashlib.sha256(made_by).hexdigest()[:8]}"
    if not path.is_dir():
        home.mkdir(parents=True, exist_ok=True)
        building = Path(tempfile.mkdtemp(dir=home, prefix="building-"))
        try:
            worlds.tiny_world(
                building / "world", num_items=num_items, num_users=NUM_USERS, dim=dim, window=WINDOW, name="bench"
            )
            os.replace(building / "world", path)  # appears whole or not at all
        finally:
            shutil.rmtree(building, ignore_errors=True)
    return load_world(path)
