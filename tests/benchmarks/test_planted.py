"""The planted-truth experiment: its parts, and (slow) a whole run at small size."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch


@pytest.fixture
def bench(benchmark_script: Callable[[str], ModuleType]) -> ModuleType:
    return benchmark_script("planted")


def test_truth_and_fitted_world_differ_in_what_is_said(bench: ModuleType) -> None:
    truth, fitted = bench.scenarios(bench.SMALL, 0.4)
    assert (truth.behaviour.lift, fitted.behaviour.lift) == (bench.LIFT, 0.4)
    assert truth.behaviour.satisfaction.return_effect == 0.0  # planted users return by a satisfaction of their own
    assert fitted.behaviour.satisfaction.return_effect > 0.0
    same = {"lift", "satisfaction"}
    assert truth.behaviour.model_dump(exclude=same) == fitted.behaviour.model_dump(exclude=same)
    assert (truth.episode, truth.actions) == (fitted.episode, fitted.actions)


def test_a_log_is_the_same_for_the_same_seed(bench: ModuleType) -> None:
    size = bench.Size(users=20, items=100, days=20)
    first, again, other = (bench.write_log(size, seed) for seed in (0, 0, 1))
    assert first[1].hash == again[1].hash != other[1].hash
    assert torch.equal(first[0].taste, again[0].taste)
    assert not torch.equal(first[0].factors, other[0].factors)


@pytest.mark.slow
def test_policies_rank_in_the_fitted_world_as_in_the_truth(
    bench: ModuleType, tmp_path: Path, recgym_home: Path
) -> None:
    report = bench.experiment(0, bench.SMALL, tmp_path)
    fitted, preferences = report["policies"]["fitted"], report["preferences"]
    order = fitted["kendall"]
    assert len(fitted["values"]) == 10
    assert order["counted"] + order["left_out"] == 45
    assert order["counted"] >= 25  # enough that the figure says something
    assert order["tau"] >= 0.8
    assert fitted["regret@1_share"] < 0.1
    assert preferences["model"]["rank_correlation"] > preferences["popularity"]["rank_correlation"] + 0.05
    assert preferences["popularity"]["auc"] < preferences["model"]["auc"] < preferences["bayes"]["auc"]
    assert abs(report["lift"]["fitted"] - report["lift"]["truth"]) < 0.35  # four standard errors
    assert np.isfinite(list(report["policies"]["truth"]["values"].values())).all()
