"""The benchmark of the reference users runs, and what is hidden is worth knowing in both of its worlds."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import pytest


@pytest.fixture
def benchmark(benchmark_script: Callable[[str], ModuleType]) -> ModuleType:
    return benchmark_script("reference_users")


def test_rules_that_plan_beat_those_that_do_not(benchmark: ModuleType) -> None:
    for users in benchmark.SETTINGS:
        later, now = (benchmark.rule(users, name, 40) for name in benchmark.RULES[users])
        assert later > 1.4 * now, users


@pytest.mark.slow
def test_both_agents_are_trained_and_scored(benchmark: ModuleType) -> None:
    found = benchmark.compare("long_term_satisfaction", seeds=2, steps=512, episodes=16)
    assert found["low"] < found["gain"] < found["high"] and 0 <= found["won"] <= 2
    assert found["gain"] == pytest.approx(found["far_sighted"] - found["myopic"])
