"""Leads links to files of the repository that the site shows as pages to those pages, so that both places have them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PAGES = {
    "CHANGELOG.md": "reference/changelog.md",
    "recgym/worlds/bundles/ecommerce/card.md": "reference/card.md",
    **{f"notebooks/{path.name}": f"tutorials/{path.stem}.md" for path in ROOT.glob("notebooks/*.ipynb")},
}


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """The text of a page with such links changed."""
    up = "../" * page.file.src_uri.count("/")
    for file, shown in PAGES.items():
        markdown = markdown.replace(f"]({up}../{file}", f"]({up}{shown}")
    return markdown
