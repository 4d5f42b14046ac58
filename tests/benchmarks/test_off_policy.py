"""The benchmark of off-policy estimates: unbiased ones find the truth, and every score is of the right policy."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from recgym.testing.worlds import tiny_world

Script = Callable[[str], ModuleType]


def test_estimates_with_exact_propensities_find_the_truth(benchmark_script: Script, tmp_path: Path) -> None:
    world = tiny_world(tmp_path / "tiny")
    scores = benchmark_script("off_policy").measure(world, logs=3, slates=1500, truth_slates=6000)
    table = {(one.slate_size, one.target, one.estimator): one for one in scores}
    assert {one.estimator for one in scores if one.slate_size == 1} == {"IPS", "SNIPS", "DM", "DR"}
    assert {one.estimator for one in scores if one.slate_size == 3} == {"IPS", "SNIPS", "RIPS"}
    near = "popularity, exploring 0.1"  # close to the logging policy, so that estimates are tight
    for key, one in table.items():
        assert one.truth_low <= one.truth <= one.truth_high
        if key[1] == near and key[2] != "DM":
            assert one.estimate == pytest.approx(one.truth, rel=0.12), key
    assert table[1, near, "IPS"].effective_size > table[1, "frequency, exploring 0.1", "IPS"].effective_size


def test_the_command_writes_what_it_prints(
    benchmark_script: Script, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    world = tiny_world(tmp_path / "tiny")
    sizes = ["--logs", "1", "--slates", "100", "--truth-slates", "200"]
    benchmark_script("off_policy").main(["--env", str(world.path), *sizes, "--out", str(tmp_path / "scores.json")])
    found = json.loads((tmp_path / "scores.json").read_text())
    assert len(found["scores"]) == 4 * (4 + 3)
    assert capsys.readouterr().out.count("| IPS |") == 8
