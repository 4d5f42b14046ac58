"""The long-term benchmark runs, at a small size."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from recgym.testing.worlds import tiny_world

Script = Callable[[str], ModuleType]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_world(tmp_path_factory.mktemp("worlds") / "tiny", num_items=300, num_users=40).path


@pytest.fixture
def month(tmp_path: Path) -> Path:
    """The scenario that the benchmark is about, in short."""
    file = tmp_path / "month.yaml"
    file.write_text("name: month\nextends: long_term_engagement\nepisode: {horizon_days: 30, max_steps: 40}\n")
    return file


def test_it_compares_trainings_with_greedy(
    benchmark_script: Script, tiny: Path, month: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECGYM_HOME", str(tmp_path / "home"))
    script = benchmark_script("long_term")
    monkeypatch.setitem(script.PPO, "total_steps", 2048)
    monkeypatch.setattr(script.Watched, "copies", 2)
    given = ["--world", str(tiny), "--scenario", str(month), "--users", "12"]
    out = tmp_path / "out.json"
    script.main(["ppo", *given, "--training-seeds", "2", "--out", str(out)])
    found = json.loads(out.read_text())["figures"]
    assert [line["seed"] for line in found["trainings"]] == [0, 1]
    means = [line["over_greedy"]["value"] for line in found["trainings"]]
    assert found["over_trainings"]["value"] == pytest.approx(sum(means) / 2)
    assert found["over_users"]["value"] == pytest.approx(sum(means) / 2)
    assert all(
        line["reward"] - found["greedy"]["reward"] == pytest.approx(mean)
        for line, mean in zip(found["trainings"], means, strict=True)
    )
    assert all(line["greedy_earns_more_at_once"]["value"] > 0 for line in found["trainings"])  # of an untrained slate


def test_it_sweeps_assumptions(
    benchmark_script: Script, tiny: Path, month: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = benchmark_script("long_term")
    effects = {"behaviour.price_image.effect": (0.0, 4.0), "behaviour.satisfaction.return_effect": (1.0,)}
    monkeypatch.setattr(script, "EFFECTS", effects)
    out = tmp_path / "out.json"
    given = ["--world", str(tiny), "--scenario", str(month), "--users", "12"]
    script.main(["sweep", *given, "--copies", "2", "--depth", "4", "--out", str(out)])
    found = json.loads(out.read_text())["figures"]
    assert [line["behaviour.price_image.effect"] for line in found] == [0.0, 4.0]
    assert found[0]["thrifty"]["value"] < found[1]["thrifty"]["value"]  # thrift pays where prices keep users away
