"""Runs a plan: every measurement in a fresh process, contestants in turn, round after round."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

from recgym.benchmark.environments import PeerError, clean_environment, last_line
from recgym.benchmark.plan import HERE, Contestant, Suite
from recgym.benchmark.store import Measurement, Store

DRIVER = HERE / "driver.py"
TIMEOUT = 900.0  # seconds a measurement may take: making a world of a million items included
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")

Progress = Callable[[str, int, int], None]


def run(
    plan: Sequence[Suite],
    store: Store,
    *,
    rounds: int,
    seconds: float,
    least: float,
    most: float,
    threads: int = 0,
    progress: Progress = lambda task, done, total: None,
) -> None:
    """Measures what is missing in ``store``; an interruption loses only the measurement under way.

    Contestants of a suite alternate, in reverse order in every second round, so that a slow minute of the machine falls
    on all of them. One that fails is not tried again in later rounds; why it failed is kept instead.

    Args:
        plan: the suites.
        store: takes the measurements.
        rounds: measurements of each contestant.
        seconds: timed in each.
        least: seconds of warm-up at the least.
        most: seconds of warm-up at the utmost.
        threads: each process may compute on; 0: as many as its libraries take by themselves.
        progress: told (suite, measurements done, measurements in all).
    """
    for suite in plan:
        total, done = rounds * len(suite.contestants), 0
        failed: dict[str, str] = {}
        for number in range(rounds):
            for one in suite.contestants if number % 2 == 0 else reversed(suite.contestants):
                progress(suite.id, done, total)
                done += 1
                if (suite.id, one.name, number) in store.measurements:
                    continue
                if one.name not in failed:
                    try:
                        _ready(one, store)
                        result = measure(one, seconds=seconds, least=least, most=most, threads=threads)
                    except PeerError as error:
                        failed[one.name] = str(error)
                    else:
                        store.add(Measurement(suite.id, one.name, number, result))
                        continue
                store.add(Measurement(suite.id, one.name, number, error=failed[one.name]))
        progress(suite.id, total, total)


def measure(one: Contestant, *, seconds: float, least: float, most: float, threads: int = 0) -> dict[str, Any]:
    """What the driver says of ``one``, run in a fresh process.

    Raises:
        PeerError: it ended with an error, said nothing that can be read, or took too long.
    """
    job = {"file": str(HERE / one.file), "settings": one.settings, "seconds": seconds, "least": least, "most": most}
    python = str(one.peer.python) if one.peer else sys.executable
    environment = clean_environment() if one.peer else dict(os.environ)
    if threads:
        environment |= {name: str(threads) for name in THREADS}
    # -P: the driver's folder is not searched for modules, where a file could hide a library of the same name.
    command = [python, "-P", str(DRIVER), json.dumps(job)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=TIMEOUT)
    except subprocess.TimeoutExpired as error:
        raise PeerError(f"gave no result within {TIMEOUT:g} s") from error
    except OSError as error:
        raise PeerError(f"could not be started: {error}") from error
    if done.returncode < 0:
        raise PeerError(f"was ended by signal {-done.returncode} (9 is often a lack of memory)")
    if done.returncode:
        raise PeerError(last_line(done.stderr))
    try:
        result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
        if not (math.isfinite(result["rate"]) and result["rate"] > 0):
            raise ValueError(result["rate"])
    except (IndexError, KeyError, TypeError, ValueError) as error:
        raise PeerError(f"gave no result that can be read: {done.stdout[-200:]!r}") from error
    return result


def _ready(one: Contestant, store: Store) -> None:
    """Installs the peer of ``one``, and notes its versions."""
    if one.peer is None:
        return
    one.peer.install()
    store.peers[one.peer.name] = one.peer.installed() or {}
