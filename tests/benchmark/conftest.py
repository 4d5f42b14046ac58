"""Contestants that answer at once, or fail, and leave a trace of when they were made."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from recgym.benchmark.plan import Contestant

CODE = """
class Fake:
    facts = {{"who": {name!r}}}
    def step(self):
        return 7
def prepare(**settings):
    with open({trace!r}, "a") as stream:
        stream.write({name!r} + " ")
    print("chatter that is no result")
    {body}
    return Fake()
"""


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    """The names of contestants in the order in which they were made."""
    return tmp_path / "trace"


@pytest.fixture
def fake(tmp_path: Path, trace: Path) -> Callable[..., Contestant]:
    """Makes a contestant; ``body`` is Python run while it is prepared."""

    def make(name: str, body: str = "pass") -> Contestant:
        file = tmp_path / f"{name}.py"
        file.write_text(CODE.format(name=name, trace=str(trace), body=body))
        return Contestant(name, str(file), {})

    return make
