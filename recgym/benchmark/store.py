"""The measurements of a run, kept on disk as they come in: an interrupted run goes on where it stopped."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from recgym.errors import RecGymError
from recgym.sources import recgym_source

FILE = "speed.json"
FORMAT = 1


@dataclass(frozen=True)
class Measurement:
    """One contestant in one round.

    Attributes:
        suite: id of the suite.
        name: of the contestant.
        round: from 0.
        result: what the driver printed: rate, cpu, peak, ...; see ``recgym.benchmark.driver``.
        error: why there is no result; None where there is one.
    """

    suite: str
    name: str
    round: int
    result: dict[str, Any] | None = None
    error: str | None = None

    @property
    def key(self) -> tuple[str, str, int]:
        """What it measures."""
        return self.suite, self.name, self.round


@dataclass
class Store:
    """A directory with ``speed.json``.

    Attributes:
        path: the directory; None: nothing is written.
        configuration: what measurements have to share to be compared.
        measurements: by what they measure.
        peers: versions installed by peer.
    """

    path: Path | None
    configuration: dict[str, Any]
    measurements: dict[tuple[str, str, int], Measurement] = field(default_factory=dict)
    peers: dict[str, dict[str, str]] = field(default_factory=dict)

    @classmethod
    def open(cls, path: Path | None, configuration: dict[str, Any]) -> Store:
        """The store in ``path``, with what an earlier run of the same configuration has measured.

        Raises:
            RecGymError: ``path`` holds measurements of another configuration, or something that is none.
        """
        store = cls(path, configuration)
        file = path / FILE if path else None
        if file is None or not file.is_file():
            return store
        try:
            found = json.loads(file.read_text(encoding="utf-8"))
            before, kept = found["configuration"], [Measurement(**entry) for entry in found["measurements"]]
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise RecGymError(f"{file} does not hold measurements of speed: {error!r}") from error
        changed = [name for name in {**before, **configuration} if before.get(name) != configuration.get(name)]
        if changed:
            name = changed[0]
            raise RecGymError(
                f"{file} was measured with another {name} ({_short(before.get(name))}, now "
                f"{_short(configuration.get(name))}): give another --out"
            )
        store.measurements = {one.key: one for one in kept if one.error is None}  # what failed is tried again
        store.peers = found.get("peers", {})
        return store

    def add(self, measurement: Measurement) -> None:
        """Keeps ``measurement``, on disk too."""
        self.measurements[measurement.key] = measurement
        self.write()

    def write(self, **more: Any) -> None:
        """Writes ``speed.json``, with ``more`` entries beside the measurements; whole or not at all."""
        if self.path is None:
            return
        self.path.mkdir(parents=True, exist_ok=True)
        content = {
            "configuration": self.configuration,
            "peers": self.peers,
            **more,
            "measurements": [vars(one) for one in self.measurements.values()],
        }
        partial = self.path / f"partial-{FILE}"
        partial.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        os.replace(partial, self.path / FILE)


def default_directory(configuration: dict[str, Any]) -> Path:
    """A directory under ``runs`` for this configuration, so that the same command again takes up where it stopped."""
    digest = hashlib.sha256(json.dumps(configuration, sort_keys=True).encode()).hexdigest()[:8]
    return Path("runs") / f"bench-{digest}"


def configuration(env: str, seconds: float, threads: int, device: str, quick: bool, seed: int) -> dict[str, Any]:
    """What two measurements have to share to be compared: settings, code, versions and machine."""
    return {
        "format": FORMAT,
        "env": env,
        "seconds": seconds,
        "threads": threads,
        "device": device,
        "quick": quick,
        "seed": seed,
        "code": recgym_source(),
        "versions": {name: version(name) for name in ("recgym", "torch", "numpy", "gymnasium", "stable_baselines3")},
        "python": platform.python_version(),
        "machine": machine(),
    }


def machine() -> dict[str, Any]:
    """Processor and number of cores that this process may use."""
    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        name = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), name)
    except OSError:
        pass
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"processor": name, "cores": cores, "system": platform.system()}


def _short(value: Any) -> str:
    text = json.dumps(value) if not isinstance(value, str) else value
    return text if len(text) <= 80 else text[:77] + "..."
