"""Virtual environments for peers, made once with pip and kept under ``$RECGYM_HOME``."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from recgym.errors import RecGymError
from recgym.paths import recgym_home

_READY = "installed.json"  # written last: the versions that pip chose
_LOG = "pip.log"


class PeerError(RecGymError):
    """A peer that could not be installed or run; the message is the reason to report."""


@dataclass(frozen=True)
class Peer:
    """Another simulator, and what pip has to install for it.

    No peer here depends on torch. One that did would have to name the running version, from the index that the user's
    own torch came from: pip would otherwise take a build for another device.

    Attributes:
        name: of the distribution.
        requirements: installed with their dependencies.
        alone: installed after them, without theirs (those that no longer install, and that the environment never uses).
    """

    name: str
    requirements: tuple[str, ...]
    alone: tuple[str, ...] = ()

    @property
    def home(self) -> Path:
        """The folder of its virtual environment; another one where the requirements or the Python change."""
        wanted = json.dumps([self.requirements, self.alone, sys.version_info[:2]])
        digest = hashlib.sha256(wanted.encode()).hexdigest()[:8]
        return recgym_home() / "bench" / f"{self.name}-{digest}"

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.home / ("Scripts/python.exe" if os.name == "nt" else "bin/python")

    def installed(self) -> dict[str, str] | None:
        """Version by distribution, or None where it is not installed."""
        try:
            versions: dict[str, str] = json.loads((self.home / _READY).read_text(encoding="utf-8"))
        except (OSError, json.JSONDecodeError):
            return None
        return versions if self.python.is_file() else None

    def install(self) -> None:
        """Makes the environment, unless it is there.

        Raises:
            PeerError: with the last line that venv or pip said.
        """
        if self.installed() is not None:
            return
        self.home.mkdir(parents=True, exist_ok=True)
        pip = [str(self.python), "-m", "pip", "--disable-pip-version-check"]
        self._call([sys.executable, "-m", "venv", "--clear", str(self.home)])
        self._call([*pip, "install", *self.requirements])
        if self.alone:
            self._call([*pip, "install", "--no-deps", *self.alone])
        listed = json.loads(self._call([*pip, "list", "--format", "json"]))
        versions = {entry["name"]: entry["version"] for entry in listed}
        (self.home / _READY).write_text(json.dumps(versions, indent=2) + "\n", encoding="utf-8")

    def _call(self, command: list[str]) -> str:
        try:
            done = subprocess.run(command, capture_output=True, text=True, env=clean_environment(), timeout=1800)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise PeerError(f"{command[0]} did not run: {error}") from error
        if done.returncode:
            (self.home / _LOG).write_text(done.stdout + done.stderr, encoding="utf-8")
            raise PeerError(f"{last_line(done.stderr or done.stdout)} (all of it in {self.home / _LOG})")
        return done.stdout


def clean_environment() -> dict[str, str]:
    """The environment variables without those that would let another Python's packages in."""
    return {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}


def last_line(text: str) -> str:
    """The last line of ``text`` that says something; of a traceback, the error."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    said = [line for line in lines if line.startswith("ERROR")] or lines
    return said[-1] if said else "nothing was said"
