"""``{solutions}``: every exercise of the book and where it is solved, as the build finds it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import NamedTuple

from docutils import nodes
from sphinx.application import Sphinx

from .colophon import Table

EXERCISE = re.compile(r"^```\{exercise-start\} (.+)\n:label: (\S+)$", re.MULTILINE)
SOLUTION = re.compile(r"^```\{solution-start\} (\S+)\n:label: (\S+)$", re.MULTILINE)
CHAPTER = re.compile(r"^\((ch-[\w-]+)\)=\n# ", re.MULTILINE)


class Exercise(NamedTuple):
    """What an index says of an exercise; ``solution`` is None where there is none."""

    title: str
    label: str
    solution: str | None


def exercises(path: Path) -> tuple[str, list[Exercise]]:
    """The label of a chapter and its exercises, in order."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    text = "\n\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
    solutions = dict(SOLUTION.findall(text))
    found = [
        Exercise(title, label, solutions.get(label)) for title, label in EXERCISE.findall(text)
    ]
    return CHAPTER.search(text)[1], found


def lines(path: Path) -> list[str]:
    """A chapter's part of the index, as MyST."""
    chapter, found = exercises(path)
    if not found:
        return []
    rows = [f"**{{ref}}`{chapter}`**", ""]
    for one in found:
        where = f"{{ref}}`solved <{one.solution}>`" if one.solution else "open, yours to find"
        rows.append(f"1. {{ref}}`{one.title} <{one.label}>`: {where}")
    return [*rows, ""]


class Solutions(Table):
    def run(self) -> list[nodes.Node]:
        folder = Path(self.env.srcdir) / "chapters"
        found: list[str] = []
        for path in sorted(folder.glob("*.ipynb")):
            self.env.note_dependency(str(path))
            found += lines(path)
        return self.parse_content(found)


def setup(app: Sphinx) -> None:
    app.add_directive("solutions", Solutions)
