"""The benchmark of the rating scorers on tiny files: its last line, and what a rating may know of the others."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest


def test_last_line_is_json(
    benchmark_script: Callable[[str], ModuleType],
    files: tuple[Path, Path],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    options = ["--train", str(files[0]), "--test", str(files[1]), "--no-baselines", "--no-text", "--epochs", "1"]
    options += ["--page", str(tmp_path / "page.md")]
    assert benchmark_script("scorers").main([*options, "--agents", "svdpp_agent,fm"]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(result) == {"svdpp_agent", "fm"}
    assert all(0.5 < each["mae"] <= each["rmse"] < 3 for each in result.values())
    page = (tmp_path / "page.md").read_text()
    best = min(result, key=lambda name: result[name]["rmse"])
    assert page.count("## Split test") == 1 and page.index(f"| {best} | {result[best]['rmse']:.4f} [") > 0


def test_a_rating_knows_of_earlier_ones_alone(benchmark_script: Callable[[str], ModuleType]) -> None:
    seen = pd.DataFrame({"user": [0, 0, 0, 1], "item": [0, 1, 2, 1], "rating": [5, 1, 3, 4], "time": [10, 20, 20, 5]})
    history = benchmark_script("scorers").history
    newest, context = history(seen, seen, 3)
    assert newest[:, :2].tolist() == [[-1, -1], [0, -1], [0, -1], [-1, -1]]  # those of the same second are not earlier
    np.testing.assert_allclose(context[:, 0], np.log1p([0, 1, 1, 0]), rtol=1e-6)
    changed = seen.assign(rating=[5, 5, 3, 4])  # what is rated now leaves its own inputs as they were, but for means
    assert (history(changed, changed, 3)[0] == newest).all()
