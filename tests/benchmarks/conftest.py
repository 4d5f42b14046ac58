"""Benchmarks are scripts of a checkout, loaded from their files."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
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


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """Random ratings in ``u.data`` format: a training and a test file."""
    rng = np.random.default_rng(0)
    rows = [
        (user, item, int(rng.integers(1, 6)), 880_000_000 + 50 * item)
        for user in range(1, 31)
        for item in rng.choice(40, 20, replace=False) + 1
    ]
    held = rng.random(len(rows)) < 0.2
    paths = tmp_path / "train", tmp_path / "test"
    for path, part in zip(paths, (False, True), strict=True):
        lines = ["\t".join(map(str, row)) for row, out in zip(rows, held, strict=True) if out == part]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return paths
