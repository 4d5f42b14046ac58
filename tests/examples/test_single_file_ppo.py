"""The single-file example: its slate probabilities are those of the adapter, and it learns."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from recgym.adapters.plackett_luce import PlackettLuce
from recgym.testing.worlds import tiny_world

FILE = Path(__file__).parents[2] / "examples" / "single_file_ppo.py"


@pytest.fixture(scope="module")
def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("single_file_ppo", FILE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_slates_have_the_probability_that_they_are_drawn_with(example: ModuleType) -> None:
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(7, 9, generator=generator)
    slates = example.draw(scores, 4, generator)
    assert all(len(set(row)) == 4 for row in slates.tolist())
    expected = PlackettLuce(4).proba_distribution(scores).log_prob(slates)
    assert torch.allclose(example.log_prob(scores, slates), expected, atol=1e-5)
    many = example.draw(scores[:1].expand(20_000, -1), 1, generator)[:, 0]
    assert torch.allclose(many.bincount(minlength=9) / 20_000, scores[0].softmax(0), atol=0.015)


@pytest.mark.slow
def test_it_beats_random_slates(example: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    world = tiny_world(tmp_path / "tiny")
    found = example.main(["--world", str(world.path), "--total-steps", "16384", "--eval-users", "300"])
    assert found["low"] > 0.1 * found["random"]  # the lower end of the interval
    assert "paired by user" in capsys.readouterr().out


def test_one_seed_is_one_run(example: ModuleType, tmp_path: Path) -> None:
    words = ["--world", str(tiny_world(tmp_path / "tiny").path), "--total-steps", "1024", "--eval-users", "40"]
    assert example.main(words) == example.main(words)
