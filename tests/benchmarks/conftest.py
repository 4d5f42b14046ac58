"""Benchmarks are scripts of a checkout, loaded from their files."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="session")
def benchmark_script() -> Iterator[Callable[[str], ModuleType]]:
    """Loads ``benchmarks/NAME.py``; the test is skipped where benchmarks are not there."""
    loaded: dict[str, ModuleType] = {}

    def load(name: str) -> ModuleType:
        if name not in loaded:
            path = FOLDER / f"{name}.py"
            if not path.is_file():
                pytest.skip("benchmarks are part of a checkout, not of the wheel")
            spec = importlib.util.spec_from_file_location(f"benchmark_{name}", path)
            assert spec is not None and spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            sys.modules[spec.name] = module  # dataclasses look themselves up there
            spec.loader.exec_module(module)
            loaded[name] = module
        return loaded[name]

    yield load
    for module in loaded.values():
        del sys.modules[module.__name__]
