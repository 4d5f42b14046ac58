"""Every code block of the README and of the documentation runs, as it stands; notebooks run; the site builds."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import typer
import yaml

import recgym
from recgym.cli import app

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BUNDLE = Path(recgym.__file__).parent / "worlds/bundles/ecommerce"
FENCE = re.compile(
    r'^(?P<slow><!-- slow -->\n)?```(?P<language>\w*)(?: title="(?P<title>[^"]+)")?\n(?P<code>.*?)^```', re.M | re.S
)


@dataclass(frozen=True)
class Block:
    """A fenced block: code to run or, with a title, the content of a file."""

    language: str
    code: str
    title: str | None
    slow: bool


def blocks(page: Path) -> list[Block]:
    found = FENCE.finditer(page.read_text(encoding="utf-8"))
    return [Block(one["language"], one["code"], one["title"], bool(one["slow"])) for one in found]


def recgym_commands(block: Block) -> list[list[str]]:
    """The ``recgym`` lines of a shell block, as words; make and pip set up the environment that this runs in."""
    lines = (line.split("#")[0].strip() for line in block.code.replace("\\\n", " ").splitlines())
    return [words for words in map(shlex.split, filter(None, lines)) if words[0] == "recgym"]


def run(arguments: list[str], where: Path) -> str:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(arguments, cwd=where, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout + done.stderr


def play(page: Path, where: Path, *, slow: bool) -> None:
    """Runs the blocks of a page one after another in ``where``; without ``slow``, only its quick Python."""
    namespace: dict[str, Any] = {"__name__": "__main__"}
    write_shop(where)
    for block in blocks(page):
        if block.title:
            (where / block.title).write_text(block.code, encoding="utf-8")
        elif block.language == "python" and (slow or not block.slow):
            exec(compile(block.code, f"{page.name}", "exec"), namespace)
        elif block.language == "sh" and slow:
            for words in recgym_commands(block):
                run([sys.executable, "-m", *words], where)


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def is_slow(page: Path) -> bool:
    return any(block.slow or (block.language == "sh" and recgym_commands(block)) for block in blocks(page))


def test_blocks_are_of_known_languages() -> None:
    languages = {block.language for page in PAGES for block in blocks(page)}
    assert languages <= {"python", "sh", "text", "yaml", "toml"}
    assert {block.title for page in PAGES for block in blocks(page) if block.language == "yaml"} == {"patient.yaml"}


@pytest.mark.parametrize(
    "page", [page for page in PAGES if any(b.language == "python" for b in blocks(page))], ids=name
)
def test_python_of_a_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    play(page, tmp_path, slow=False)


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if is_slow(page)], ids=name)
def test_whole_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    play(page, tmp_path, slow=True)


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


def command(words: list[str]) -> Any:
    """The command that ``words`` lead to, and the words left."""
    found = typer.main.get_command(app)
    while hasattr(found, "commands") and words and not words[0].startswith("-"):
        assert words[0] in found.commands, f"recgym has no command {words[0]!r}"
        found, words = found.commands[words[0]], words[1:]
    return found, words


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_commands_of_a_page_exist(page: Path) -> None:
    for block in blocks(page):
        for words in recgym_commands(block) if block.language == "sh" else []:
            found, left = command(words[1:])
            found.make_parser(found.context_class(found)).parse_args(left)  # raises for an unknown option
    for inline in re.findall(r"`recgym ([a-z][^`]*)`", page.read_text(encoding="utf-8")):
        words = inline.split()
        command(words[: next((i for i, word in enumerate(words) if not re.fullmatch(r"[a-z-]+", word)), len(words))])


@pytest.mark.parametrize("page", [*PAGES, *(ROOT / f"{n}.md" for n in ("CONTRIBUTING", "SECURITY"))], ids=name)
def test_links_lead_to_files(page: Path) -> None:
    """Anchors, and pages that are made from the code when the site is built, are for the build to check."""
    made = {"command-line.md", "scenario.md", "registered.md"}
    for target in re.findall(r"\]\(([^)\s#]+)[^)]*\)", page.read_text(encoding="utf-8")):
        if not target.startswith("https://"):
            assert Path(target).name in made or (page.parent / target).is_file(), target


@pytest.mark.slow
def test_site_builds_without_a_warning_and_asks_no_other_host(tmp_path: Path) -> None:
    shutil.rmtree(ROOT / ".cache" / "docs", ignore_errors=True)  # as in a fresh checkout
    said = run([sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")], ROOT)
    assert "WARNING" not in said
    pages = list((tmp_path / "site").rglob("*.html"))
    assert len(pages) > len(PAGES) + len(NOTEBOOKS)
    for page in pages:
        loaded = re.findall(
            r"<(?:script|img|iframe)[^>]+src=\"?(\S+)|<link[^>]+href=\"?([^\s>]+)", page.read_text("utf-8")
        )
        assert not [one for pair in loaded for one in pair if one.startswith(("http", "//"))], page


def pictures(notebook: Any) -> int:
    outputs = [output for cell in notebook["cells"] for output in cell.get("outputs", ())]
    assert not [output for output in outputs if output["output_type"] == "error"]
    return sum("image/png" in output.get("data", {}) for output in outputs)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name)
def test_notebooks_are_committed_with_small_clean_outputs(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text) < 150_000
    assert pictures(json.loads(text)) >= 1
    outputs = json.dumps([cell.get("outputs", []) for cell in json.loads(text)["cells"]])
    assert not re.search(r"(?<![\w.:/])/\w+/\w+[/.]|\\u001b", re.sub(r'"image/png": "[^"]*"', "", outputs))


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=name)
def test_notebooks_run(path: Path, tmp_path: Path) -> None:
    run([sys.executable, str(ROOT / "docs/hooks/execute.py"), str(path), "--out", str(tmp_path)], tmp_path)
    assert pictures(json.loads((tmp_path / path.name).read_text(encoding="utf-8"))) >= 1


def test_tutorials_list_every_notebook() -> None:
    listed = (ROOT / "docs/tutorials/index.md").read_text(encoding="utf-8")
    assert len(NOTEBOOKS) == 7
    assert all(f"(../../notebooks/{path.name})" in listed for path in NOTEBOOKS)


def test_community_files_agree_with_the_package() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == recgym.__version__
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"][0]["hooks"]
    pin = re.search(r"^ruff==.+$", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.M)
    assert pin is not None
    assert {entry for hook in hooks for entry in hook["additional_dependencies"]} == {pin[0]}
    for template in (ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml"):
        assert yaml.safe_load(template.read_text(encoding="utf-8")), template


def test_sizes_are_those_of_the_shipped_world() -> None:
    spec = json.loads((BUNDLE / "world.json").read_text(encoding="utf-8"))
    for page in (ROOT / "README.md", ROOT / "docs/reference/environments.md"):
        text = page.read_text(encoding="utf-8")
        assert f"{spec['num_users']:,} households | {spec['num_items']:,} products" in text


def test_readme_shows_the_figures_of_the_shipped_card() -> None:
    metrics = json.loads((BUNDLE / "world.json").read_text())["metrics"]
    table = (ROOT / "README.md").read_text(encoding="utf-8").split("<!-- card -->")[1].split("<!-- /card -->")[0]
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
