"""The look-ahead example runs, at a small size."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from recgym.testing.worlds import tiny_world


def test_it_compares_planning_with_greedy_and_clairvoyance(
    benchmark_script: Callable[[str], ModuleType], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    world = tiny_world(tmp_path / "tiny", num_items=600, num_users=60)
    sizes = ["--users", "40", "--seeds", "2", "--copies", "4", "--depth", "4"]
    benchmark_script("look_ahead").main(
        ["--world", str(world.path), *sizes, "--only", "one trip", "--out", str(tmp_path / "out.json")]
    )
    found = json.loads((tmp_path / "out.json").read_text())
    assert found["settings"]["copies"] == 4 and list(found["figures"]) == ["one trip"]
    rows = found["figures"]["one trip"]
    assert len(rows) == 6 and all(row["reward"]["value"] > 0 for row in rows.values())
    assert rows["greedy"]["over_greedy"]["value"] == 0
    assert rows["look-ahead, same luck (clairvoyant)"]["over_greedy"]["low"] > 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in rows) and "[" in shown
