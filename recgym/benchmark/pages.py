"""Result pages of benchmarks: Markdown files of which each benchmark writes its own part."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from recgym.worlds.world import World


def grid(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first column is text, the others are numbers."""
    rule = f"|---|{'---:|' * (len(head) - 1)}"
    return "\n".join([f"| {' | '.join(head)} |", rule, *(f"| {' | '.join(cells)} |" for cells in lines)])


def world_of(world: World) -> str:
    """Which world figures are of, as a sentence."""
    return f"World `{world.name}`, hash {world.hash[:12]}."


def write_part(page: Path, title: str, part: str, command: str, text: str) -> None:
    """Puts ``text`` under the heading ``part`` of ``page``, after the command it came of; the other parts stay.

    Args:
        page: the Markdown file; a new one begins with ``title``.
        title: its heading and what stands below it.
        part: heading.
        command: what was typed.
        text: what was found.
    """
    before = page.read_text(encoding="utf-8") if page.is_file() else title
    start, *parts = before.split("\n## ")
    by_name = dict(one.split("\n", 1) for one in parts)
    by_name[part] = f"\n    {command}\n\n{text}\n"
    pieces = [start.rstrip("\n"), *(f"## {name}\n\n{body.strip(chr(10))}" for name, body in by_name.items())]
    page.write_text("\n\n".join(pieces) + "\n", encoding="utf-8")


def command_of(script: str, arguments: Sequence[str] | None = None) -> str:
    """What reruns a script of ``benchmarks`` with ``arguments``; None: with those of this process.

    Where results are kept (``--out DIRECTORY``, ``--page FILE``) is left out: it is nobody else's business.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    for option in ("--out", "--page"):
        if option in words:
            at = words.index(option)
            del words[at : at + 2]
    return shlex.join(["python", f"benchmarks/{Path(script).name}", *words])
