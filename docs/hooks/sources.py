"""Lays the packages out as they install, so that the API reference finds recgym.agents and the like."""

from __future__ import annotations

import shutil
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
LAYOUT = ROOT / ".cache" / "docs"  # which mkdocs.yml tells griffe


def on_config(config: Any) -> Any:
    """Copies the Python files of every top folder of ``package-dir`` to where it installs below ``LAYOUT``."""
    shutil.rmtree(LAYOUT, ignore_errors=True)
    folders = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-dir"]
    for package, folder in folders.items():
        for file in (ROOT / folder).rglob("*.py"):
            target = LAYOUT.joinpath(*package.split("."), file.relative_to(ROOT / folder))
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)
    return config
