"""The driver: stands alone, warms up until nothing gets faster, and counts what was answered."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from recgym.benchmark import driver
from recgym.benchmark.plan import HERE, Contestant


class Clock:
    """Time that passes only when something is done."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now

    def process_time(self) -> float:
        return 2.0 * self.now  # two threads, always busy


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(driver, "time", clock)
    monkeypatch.setattr(driver, "busy_seconds", lambda: 3.0 * clock.now)
    return clock


def stepping(clock: Clock, durations: Callable[[int], float]) -> tuple[Callable[[], int], list[float]]:
    done: list[float] = []

    def step() -> int:
        done.append(durations(len(done)))
        clock.now += done[-1]
        return 10

    return step, done


def imports(path: Path) -> set[str]:
    tree = ast.parse(path.read_text())
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {name.name.split(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or "").split(".")[0])
    return found


def test_the_driver_needs_nothing_but_python() -> None:
    assert imports(HERE / "driver.py") <= sys.stdlib_module_names


@pytest.mark.parametrize("path", sorted((HERE / "peers").glob("*.py")), ids=lambda path: path.stem)
def test_peers_do_not_import_recgym(path: Path) -> None:
    assert not imports(path) & {"recgym", "torch"}


def test_warm_up_goes_on_while_steps_get_faster(clock: Clock) -> None:
    step, done = stepping(clock, lambda number: max(1.0, 10.0 - number))  # each step is a window of its own
    driver.warm_up(step, least=0.0, most=1000.0)
    assert done[-3:] == [1.0, 1.0, 1.0]
    assert len(done) == 12  # nine that fell, the first at the bottom, and two that did not fall any more


def test_warm_up_keeps_to_its_limits(clock: Clock) -> None:
    step, done = stepping(clock, lambda number: 0.9**number)
    assert driver.warm_up(step, least=0.0, most=2.5) >= 2.5
    assert len(done) == 3
    step, done = stepping(clock, lambda number: 1.0)
    driver.warm_up(step, least=20.0, most=60.0)
    assert len(done) == 20


def test_rate_and_cpu_are_those_of_the_steps(clock: Clock) -> None:
    step, done = stepping(clock, lambda number: 0.25)
    result = driver.measure(step, seconds=2.0)
    assert (result["user_steps"], result["seconds"], result["rate"]) == (80, 2.0, 40.0)
    assert result["cpu"] == pytest.approx(1000 * 4.0 / 80)
    assert result["others"] == pytest.approx(1.0)  # three cores busy, two of them ours


def test_a_step_that_answers_nothing_does_not_end_the_measurement(clock: Clock) -> None:
    answers = iter([0, 0, 0, 5])

    def step() -> int:
        clock.now += 1.0
        return next(answers)

    assert driver.measure(step, seconds=2.0)["rate"] == 5 / 4


def test_it_prints_one_line_of_json_last(fake: Callable[..., Contestant]) -> None:
    one = fake("alice")
    job = {"file": one.file, "settings": {}, "seconds": 0.02, "least": 0.0, "most": 0.0}
    done = subprocess.run(
        [sys.executable, "-P", str(HERE / "driver.py"), json.dumps(job)], capture_output=True, text=True, check=True
    )
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["facts"] == {"who": "alice"}
    assert result["rate"] == pytest.approx(result["user_steps"] / result["seconds"])
    assert result["user_steps"] % 7 == 0
    assert result["peak"] > 1
