"""What every test shares: one thread, a home of its own, its own luck, and the devices there are."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from recgym import compiled

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def recgym_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty RECGYM_HOME, so that no test sees or changes what the user built."""
    home = tmp_path / "recgym_home"
    monkeypatch.setenv("RECGYM_HOME", str(home))
    return home


@pytest.fixture(autouse=True)
def same_chance() -> None:
    """What a test draws without a generator of its own depends neither on the tests before it nor on the process."""
    torch.manual_seed(0)


@pytest.fixture(params=["cpu", "reference", *(["cuda"] if torch.cuda.is_available() else [])])
def device(request: pytest.FixtureRequest) -> Iterator[torch.device]:
    """The devices of this machine, and ``reference``: what other devices compute, torch alone, on the CPU."""
    if request.param != "reference":
        yield torch.device(request.param)
        return
    with compiled.reference():
        yield torch.device("cpu")
