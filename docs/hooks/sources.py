"""Lays the packages out as they install, so that the API reference finds recgym.agents and the like."""

from __future__ import annotations

import shutil
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
LAYOUT = ROOT / ".cache" / "docs"  # which mkdocs.yml tells griffe


def on_startup(command: str, dirty: bool) -> None:
    """Lays them out before mkdocstrings reads its paths: one that is not there yet would be dropped."""
    lay_out()


def on_config(config: Any) -> Any:
    """Lays them out anew whenever a served site is built again."""
    lay_out()
    return config


def lay_out() -> None:
    """Copies the Python files of every top folder of ``package-dir`` to where it installs below ``LAYOUT``."""
    shutil.rmtree(LAYOUT, ignore_errors=True)
    folders = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-dir"]
    for package, folder in folders.items():
        for file in (ROOT / folder).rglob("*.py"):
            target = LAYOUT.joinpath(*package.split("."), file.relative_to(ROOT / folder))
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)
