"""Playing a simulation for a check: traces, where two of them differ, and their digest in this process or another."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import random
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recgym.errors import RecGymError
from recgym.simulation.observation import OBSERVATION_KEYS
from recgym.simulation.simulator import Simulator

Trace = list[dict[str, Tensor]]
_OUTCOME = ("examined", "consumed", "quantity", "rating", "reward", "terminated", "truncated", "gap_days")
OTHER_BATCHES = ([0], [-1, 4], [9, 8, 7, 6, 5])  # lanes that play again, in this order


def play(simulator: Simulator, lanes: Tensor, steps: int = 8) -> Trace:
    """Everything that comes out of ``steps`` slates in ``lanes`` (int64 [n] lane numbers), and the state at the end."""
    state = simulator.reset(lanes * 7 + 5, lanes % 3)
    width = simulator.num_candidates // simulator.slate_size
    places = torch.arange(simulator.slate_size) * width
    trace = []
    for _ in range(steps):
        seen = simulator.observe(state, OBSERVATION_KEYS)
        state, outcome = simulator.step(state, state.candidates[:, places].to(torch.int64))
        told = {name: getattr(outcome, name) for name in _OUTCOME}
        trace.append({name: value.clone() for name, value in {**seen, **told}.items()})
    trace.append({name: value.clone() for name, value in state.flatten().items()})
    return trace


def difference(whole: Trace, part: Trace, lanes: Sequence[int]) -> str | None:
    """Where row i of ``part`` is not row ``lanes[i]`` of ``whole``: the first such thing in words; None: nowhere."""
    rows = list(lanes)
    for step, (mine, theirs) in enumerate(zip(part, whole, strict=True)):
        when = "in the state at the end" if step == len(whole) - 1 else f"at slate {step}"
        for name, value in mine.items():
            other = theirs[name][rows]
            if not torch.equal(value, other):
                row = int((value != other).view(len(rows), -1).any(1).to(torch.uint8).argmax())
                return f"{name} of lane {rows[row]} {when}"
    return None


def unlike_alone(simulator: Simulator, whole: Trace) -> str | None:
    """Whether lanes of ``whole`` (lanes 0, 1, ...) play otherwise in smaller batches: how, in words."""
    size = len(whole[0]["reward"])
    for lanes in OTHER_BATCHES:
        rows = [lane % size for lane in lanes]
        found = difference(whole, play(simulator, torch.tensor(rows), len(whole) - 1), rows)
        if found:
            return f"{found} is another among {size} lanes than among {len(rows)}"
    return None


def digest(trace: Trace) -> str:
    """A digest of every bit of a trace."""
    found = hashlib.sha256()
    for step in trace:
        for name in sorted(step):
            value = step[name].contiguous()
            found.update(name.encode())
            found.update((value.view(torch.int16) if value.dtype == torch.bfloat16 else value).numpy().tobytes())
    return found.hexdigest()


def elsewhere(function: str, *arguments: str) -> str:
    """The text that ``function`` (``module:name``) of texts returns in a new process, whose hashes are seeded anew.

    Raises:
        RecGymError: it failed there; the message is the last line that it printed.
    """
    module, _, name = function.partition(":")
    code = (
        f"import sys, torch; torch.set_num_threads({torch.get_num_threads()}); "
        f"from {module} import {name}; sys.stdout.write({name}(*sys.argv[1:]))"
    )
    hash_seed = "4242" if os.environ.get("PYTHONHASHSEED") != "4242" else "4243"
    surroundings = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, *arguments], capture_output=True, text=True, env=surroundings
    )
    if done.returncode:
        raise RecGymError((done.stderr.strip().splitlines() or ["it ended without a word"])[-1])
    return done.stdout.splitlines()[-1]


def importable(target: str | type | Any) -> str:
    """A text under which a new process finds ``target``: a name, ``module:attr``, ``file.py:attr``, or an object.

    Raises:
        RecGymError: there is none, as for what is defined within a function.
    """
    if isinstance(target, str):
        file, colon, name = target.rpartition(":")
        return f"{Path(file).expanduser().resolve()}:{name}" if colon and file.endswith(".py") else target
    defined: str | None = getattr(target, "__qualname__", None)
    module: str | None = getattr(target, "__module__", None)
    if defined is None or module is None or "<" in defined:
        raise RecGymError(f"{target!r} is not defined at the top level of a module")
    source = getattr(sys.modules.get(module), "__file__", None)
    if source and (module == "__main__" or not _found_by_name(module)):
        return f"{Path(source).resolve()}:{defined}"
    return f"{module}:{defined}"


def _found_by_name(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None and not module.startswith("recgym_file_")
    except (ImportError, ValueError):
        return False


def _numpy_words() -> bytes:
    """The words of numpy's global generator and where it stands in them."""
    state: dict[str, Any] = np.random.get_state(legacy=False)["state"]  # noqa: NPY002
    return bytes(state["key"].tobytes()) + str(state["pos"]).encode()


@contextmanager
def generators_watched() -> Iterator[list[str]]:
    """A list that at the end names the global random generators that were drawn from or seeded meanwhile."""
    touched: list[str] = []
    kept = random.getstate(), np.random.get_state(legacy=False), torch.get_rng_state()  # noqa: NPY002
    random.random(), np.random.random(), torch.rand(1)  # noqa: NPY002  (somewhere that no seed leads to)
    before = random.getstate(), _numpy_words(), torch.get_rng_state()
    try:
        yield touched
        touched += ["random"] if random.getstate() != before[0] else []
        touched += ["numpy.random"] if _numpy_words() != before[1] else []
        touched += ["torch"] if not torch.equal(torch.get_rng_state(), before[2]) else []
    finally:
        random.setstate(kept[0])
        np.random.set_state(kept[1])  # noqa: NPY002
        torch.set_rng_state(kept[2])
