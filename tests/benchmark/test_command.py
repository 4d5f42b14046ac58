"""``recgym bench`` from the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from recgym.benchmark import plan
from recgym.benchmark.plan import Contestant, Suite
from recgym.cli import app


def test_help_names_every_suite() -> None:
    text = CliRunner().invoke(app, ["bench", "--help"], env={"COLUMNS": "120"}).output
    for name in plan.SUITES:
        assert name in text


def test_bad_names_are_refused_before_anything_is_measured(tmp_path: Path) -> None:
    for given in (["--suite", "flor"], ["--env", "ecomerce-v0"]):
        result = CliRunner().invoke(app, ["bench", *given, "--out", str(tmp_path / "out")])
        assert result.exit_code == 2
        assert "Did you mean" in result.output
    assert not (tmp_path / "out").exists()


def test_a_contestant_of_its_own_that_fails_is_an_error(
    fake: object, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    good, bad = fake("good"), fake("bad", "raise ValueError('broken')")  # type: ignore[operator]
    assert isinstance(good, Contestant)
    monkeypatch.setattr(plan, "SUITES", {"fakes": lambda env, device, seed: Suite("fakes", "Fakes", (good, bad))})
    result = CliRunner().invoke(app, ["bench", "--quick", "--seconds", "0.01", "--out", str(tmp_path / "out")])
    assert result.exit_code == 1
    assert "bad was not measured: ValueError: broken" in result.output
    told = json.loads((tmp_path / "out" / "speed.json").read_text())
    assert told["results"][0]["contestants"][0]["rate"]["median"] > 0
    assert (tmp_path / "out" / "speed.png").is_file()


@pytest.mark.slow
def test_a_quick_run(tmp_path: Path) -> None:
    command = [sys.executable, str(Path(__file__).parents[2] / "benchmarks" / "speed.py")]
    command += ["--quick", "--suite", "single,reference", "--out", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, env=dict(os.environ), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    told = json.loads((tmp_path / "out" / "speed.json").read_text())
    single, reference = told["results"]
    assert single["contestants"][0]["rate"]["median"] > 0
    assert reference["contestants"][0]["name"] == "boredom"
    peer = single["contestants"][1]  # without an index to install from, it is reported
    assert peer["rate"] or peer["errors"]
