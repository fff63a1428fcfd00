"""Notebooks as files: find them, read and write them, hash their code, make them canonical.

A canonical notebook differs from another only where code, words or results differ: cell ids count
up, execution counts too, and no time stamp or kernel version is kept. What ``execute`` measured
stands in the metadata under ``ground_truth``.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import nbformat
from nbformat import NotebookNode

ROOT = Path(__file__).resolve().parent.parent
CHAPTERS = ROOT / "chapters"
RECORD = "ground_truth"
KEPT_CELL_METADATA = ("tags", "mystnb")
ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


def chapter_paths(chapter: str | None = None) -> list[Path]:
    """The notebooks of the book, chapters before appendices, or the one named ``chapter``.

    A chapter's file begins with two digits, an appendix's with ``a`` and one: 05, a1.
    """
    paths = sorted(CHAPTERS.glob("*.ipynb"))
    if not chapter:
        return paths
    found = [p for p in paths if p.stem == chapter or p.stem.startswith(f"{chapter}-")]
    if not found:
        known = ", ".join(p.stem.split("-")[0] for p in paths)
        raise SystemExit(f"error: no chapter {chapter!r}; there are {known}")
    return found


def number(path: Path) -> str:
    """What the book calls it: 5 for ``05-pretraining``, A for the appendix ``a1-the-world``."""
    first = path.stem.split("-")[0]
    return chr(ord("A") + int(first[1:]) - 1) if first.startswith("a") else str(int(first))


def read(path: Path) -> NotebookNode:
    try:
        return nbformat.read(path, as_version=4)
    except (nbformat.reader.NotJSONError, nbformat.ValidationError) as error:
        raise SystemExit(f"error: {path.name} is not a notebook: {error}") from error


def write(notebook: NotebookNode, path: Path) -> None:
    """Write atomically: an interrupted run leaves the old file."""
    text = json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True) + "\n"
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(temporary, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def code_cells(notebook: NotebookNode) -> Iterator[NotebookNode]:
    return (cell for cell in notebook.cells if cell.cell_type == "code")


def markdown_cells(notebook: NotebookNode) -> Iterator[NotebookNode]:
    return (cell for cell in notebook.cells if cell.cell_type == "markdown")


def tags(cell: NotebookNode) -> set[str]:
    return set(cell.metadata.get("tags", []))


def code_hash(notebook: NotebookNode) -> str:
    """Changes when the code that was executed changes; prose may change freely."""
    digest = hashlib.sha256()
    for cell in code_cells(notebook):
        digest.update(cell.source.encode() + b"\0")
    return digest.hexdigest()[:16]


def normalise(notebook: NotebookNode, prefix: str) -> None:
    """Make a notebook canonical, in place."""
    count = 0
    for number, cell in enumerate(notebook.cells):
        cell.id = f"{prefix}-{number:03d}"
        cell.source = "\n".join(line.rstrip() for line in cell.source.strip("\n").split("\n"))
        cell.metadata = NotebookNode(
            {key: cell.metadata[key] for key in KEPT_CELL_METADATA if cell.metadata.get(key)}
        )
        if cell.cell_type == "code":
            count += 1
            cell.execution_count = count if cell.outputs or cell.execution_count else None
            cell.outputs = normalised_outputs(cell.outputs, cell.execution_count)
    record = notebook.metadata.get(RECORD)
    notebook.metadata = NotebookNode(
        kernelspec={"display_name": "Python 3", "language": "python", "name": "python3"},
        language_info={"name": "python"},
    )
    if record:
        notebook.metadata[RECORD] = record
    notebook.nbformat_minor = 5


def normalised_outputs(outputs: list[NotebookNode], count: int | None) -> list[NotebookNode]:
    """Join neighboring streams, drop memory addresses and what a front end would add."""
    kept: list[NotebookNode] = []
    for output in outputs:
        if output.output_type == "stream":
            output.text = ADDRESS.sub("", output.text)
            if kept and kept[-1].output_type == "stream" and kept[-1].name == output.name:
                kept[-1].text += output.text
                continue
        elif output.output_type == "execute_result":
            output.execution_count = count
        if "data" in output and "text/plain" in output.data:
            output.data["text/plain"] = ADDRESS.sub("", output.data["text/plain"])
        kept.append(output)
    return kept


def printed(cell: NotebookNode) -> str:
    """The text a code cell shows: its streams and the plain text of its results."""
    parts = []
    for output in cell.outputs:
        if output.output_type == "stream":
            parts.append(output.text)
        elif output.output_type in ("execute_result", "display_data"):
            shows_picture = any(mime.startswith("image/") for mime in output.data)
            if not shows_picture:
                text = output.data.get("text/markdown") or output.data.get("text/plain", "")
                parts.append(text + "\n")
    return "".join(parts)
