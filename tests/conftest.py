"""What every test shares: one thread, and a home of its own."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def recgym_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty RECGYM_HOME, so that no test sees or changes what the user built."""
    home = tmp_path / "recgym_home"
    monkeypatch.setenv("RECGYM_HOME", str(home))
    return home
