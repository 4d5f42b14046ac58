"""Where RecGym keeps what it downloads and builds."""

from __future__ import annotations

import os
from pathlib import Path


def recgym_home() -> Path:
    """``$RECGYM_HOME``, or ``~/.local/share/recgym`` where that is unset or empty; not created here."""
    configured = os.environ.get("RECGYM_HOME", "").strip()
    return Path(configured).expanduser() if configured else Path.home() / ".local" / "share" / "recgym"


def data_directory(name: str) -> Path:
    """The cache of the data set ``name`` under ``recgym_home()``; not created here."""
    return recgym_home() / "data" / name
