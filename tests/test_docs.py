"""Every code block of the README runs, as it stands."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import recgym

README = Path(__file__).parents[1] / "README.md"
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", README.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
PYTHON = [code for language, code in BLOCKS if language == "python"]
SHELL = [code for language, code in BLOCKS if language == "sh"]
OWN_DATA = [code for code in PYTHON if "build_world" in code]


def commands(block: str) -> list[str]:
    return [line.split("#")[0].strip() for line in block.replace("\\\n", " ").splitlines() if line.strip()]


def run(arguments: list[str], where: Path, home: Path) -> str:
    environment = {**os.environ, "RECGYM_HOME": str(home), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(arguments, cwd=where, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


def test_blocks_are_of_known_languages() -> None:
    assert {language for language, _ in BLOCKS} <= {"python", "sh", "text"}
    assert len(OWN_DATA) == 1


@pytest.mark.parametrize(
    "code", [code for code in PYTHON if code not in OWN_DATA], ids=lambda code: code.split("\n")[0]
)
def test_python_blocks_run(code: str, tmp_path: Path) -> None:
    run([sys.executable, "-c", code], tmp_path, tmp_path / "home")


def write_shop(where: Path) -> None:
    """A small log in the columns that the README maps."""
    rng = np.random.default_rng(0)
    rows = []
    for customer in range(150):
        tastes = rng.choice(120, 40, replace=False)
        moment = pd.Timestamp("2024-01-01") + pd.Timedelta(days=int(rng.integers(5)))
        for trip in range(15):
            moment += pd.Timedelta(days=int(rng.integers(1, 8)))
            for sku in rng.choice(tastes, rng.integers(1, 6), replace=False):
                rows.append((f"c{customer}", f"s{sku}", moment, f"o{customer}-{trip}", int(rng.integers(1, 4)), 2.5))
    columns = ["customer", "sku", "ts", "order_id", "qty", "price"]
    pd.DataFrame(rows, columns=columns).to_csv(where / "events.csv", index=False)
    skus = [f"s{i}" for i in range(120)]
    items = pd.DataFrame({"sku": skus, "title": [f"Thing {i}" for i in range(120)]})
    items.assign(category="things", brand="ours").to_csv(where / "items.csv", index=False)


@pytest.mark.slow
def test_own_data_block_builds_a_world(tmp_path: Path) -> None:
    write_shop(tmp_path)
    home = tmp_path / "home"
    run(
        [sys.executable, "-c", OWN_DATA[0] + "\nenv.reset(seed=0)\nenv.step(env.action_space.sample())"], tmp_path, home
    )
    card = run([sys.executable, "-m", "recgym", "world", "card", "shop"], tmp_path, home)
    assert "# My shop" in card


@pytest.mark.slow
@pytest.mark.parametrize("block", SHELL, ids=lambda block: block.split("\n")[0])
def test_recgym_commands_run(block: str, tmp_path: Path) -> None:
    for command in commands(block):
        words = shlex.split(command)
        if words[0] == "recgym":  # make and pip set up the environment that this runs in
            run([sys.executable, "-m", "recgym", *words[1:]], tmp_path, tmp_path / "home")


def test_readme_shows_the_figures_of_the_shipped_card() -> None:
    metrics = json.loads((Path(recgym.__file__).parent / "worlds/bundles/ecommerce/world.json").read_text())["metrics"]
    table = README.read_text(encoding="utf-8").split("<!-- card -->")[1].split("<!-- /card -->")[0]
    figures = []
    for row in metrics["marginals"]["rows"][:2]:
        figures += [f"{row[source]['ks']:.3f}" for source in ("model", "popularity")]
    for name in ("model", "popularity"):
        figures.append("{:.3f} [{:.3f}, {:.3f}]".format(*metrics["sequences"][name]["network"]))
    for name in ("model", "personal_frequency", "popularity"):
        for metric in ("ndcg@10", "recall@10"):
            figures.append("{:.3f} [{:.3f}, {:.3f}]".format(*metrics["next_trip"][name][metric]))
    for kind in ("uniform", "popularity"):
        for name in ("model", "own_frequency"):
            figures.append("{:.3f} [{:.3f}, {:.3f}]".format(*metrics["auc"][kind][name]))
    missing = [figure for figure in figures if f"| {figure} |" not in table]
    assert not missing
