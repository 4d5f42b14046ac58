"""Measures one contestant in this process and prints one line of JSON.

Stands alone: it runs by path, with nothing but the standard library, in RecGym's environment and in those of its peers.
A contestant is what ``prepare(**settings)`` of a Python file returns: ``step()`` gives the user-steps it made, and
``facts`` holds what else is worth knowing.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

WINDOW = 0.5  # seconds over which the warm-up averages
STEADY = 0.98  # a window has to be faster than the best one by this factor to count as progress


def load(path: str) -> Any:
    """The module in the file ``path``."""
    spec = importlib.util.spec_from_file_location(f"contestant_{Path(path).stem}", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def warm_up(step: Callable[[], int], least: float, most: float) -> float:
    """Steps for ``least`` seconds and until the time of a step stops falling, ``most`` seconds at the utmost.

    Returns:
        seconds spent.
    """
    started = time.perf_counter()
    best, stale = float("inf"), 0
    while True:
        window, count = time.perf_counter(), 0
        while count == 0 or time.perf_counter() - window < WINDOW:
            step()
            count += 1
        took = (time.perf_counter() - window) / count
        stale = 0 if took < STEADY * best else stale + 1
        best = min(best, took)
        spent = time.perf_counter() - started
        if spent >= most or (spent >= least and stale >= 2):
            return spent


def measure(step: Callable[[], int], seconds: float) -> dict[str, float | None]:
    """Rate and cost of about ``seconds`` of steps.

    Returns:
        user_steps; seconds; rate (user-steps per second); cpu (seconds of the process and all its threads per 1,000
        user-steps); others (cores that other processes kept busy meanwhile; None where the system does not tell).
    """
    busy, answered, cpu, started = busy_seconds(), 0, time.process_time(), time.perf_counter()
    while True:
        answered += step()
        elapsed = time.perf_counter() - started
        if elapsed >= seconds and answered:
            break
    cpu = time.process_time() - cpu
    others = None if busy is None else max(0.0, ((busy_seconds() or 0.0) - busy - cpu) / elapsed)
    return {
        "user_steps": answered,
        "seconds": elapsed,
        "rate": answered / elapsed,
        "cpu": 1000.0 * cpu / answered,
        "others": others,
    }


def busy_seconds() -> float | None:
    """CPU seconds of all processes since the machine was started; None where the system does not tell."""
    try:
        with open("/proc/stat", encoding="ascii") as stream:
            user, nice, system, _, _, irq, softirq, steal = (int(text) for text in stream.readline().split()[1:9])
        return (user + nice + system + irq + softirq + steal) / float(os.sysconf("SC_CLK_TCK"))
    except (OSError, ValueError):
        return None


def peak_memory() -> float:
    """The largest resident size of this process so far, MiB; NaN where the system does not tell."""
    try:
        # Not getrusage: on Linux that starts from the size of the parent at the time of the fork.
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    except OSError:
        pass
    try:
        import resource
    except ImportError:
        return float("nan")
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return size / 2**20 if sys.platform == "darwin" else size / 2**10


def main() -> None:
    """Runs the job, JSON in the first argument: file, settings, seconds, least and most (of the warm-up)."""
    job = json.loads(sys.argv[1])
    contestant = load(job["file"]).prepare(**job["settings"])
    spent = warm_up(contestant.step, job["least"], job["most"])
    forget = getattr(contestant, "forget", None)  # what it counted while warming up
    if forget is not None:
        forget()
    result: dict[str, Any] = dict(measure(contestant.step, job["seconds"]))
    result |= {"warm_up": spent, "peak": peak_memory(), "facts": contestant.facts}
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
