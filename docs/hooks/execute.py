"""Runs notebooks in place, each from a directory of its own, and keeps their outputs small."""

from __future__ import annotations

import argparse
import re
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
SECONDS = 600  # of a whole notebook on a machine with other work; none should take 180 on its own


def execute(path: Path, directory: Path) -> nbformat.NotebookNode:
    """The notebook with the outputs of a run whose working directory is ``directory``.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell raised.
    """
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(
        notebook,
        timeout=SECONDS,
        kernel_name="python3",
        record_timing=False,
        resources={"metadata": {"path": str(directory)}},
    ).execute()
    return notebook


def tidy(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The same without stderr (progress bars), HTML (pandas' text form is kept) and the kernel's own metadata."""
    notebook.metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    for cell in notebook.cells:
        cell.metadata = {}
        if cell.cell_type != "code":
            continue
        cell.outputs = _joined([output for output in cell.outputs if output.get("name") != "stderr"])
        for output in cell.outputs:
            output.get("data", {}).pop("text/html", None)
            if "image/png" in output.get("data", {}):
                output.data.pop("text/plain", None)
            elif "text/plain" in output.get("data", {}):
                output.data["text/plain"] = _COLOURS.sub("", output.data["text/plain"])
    return notebook


def _joined(outputs: list[nbformat.NotebookNode]) -> list[nbformat.NotebookNode]:
    """Printed text in one piece, however the kernel happened to send it."""
    found: list[nbformat.NotebookNode] = []
    for output in outputs:
        if found and output.output_type == found[-1].output_type == "stream":
            found[-1].text += output.text
        else:
            found.append(output)
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("notebooks", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, help="directory for the results; in place if not given")
    options = parser.parse_args()
    for source in options.notebooks:
        with tempfile.TemporaryDirectory() as scratch:
            done = tidy(execute(source, Path(scratch)))
        nbformat.write(done, source if options.out is None else options.out / source.name)
