"""Tangle the cells tagged ``minillm`` into ``minillm.py``: the book's listings, one runnable file.

nbconvert turns the cells into Python. The imports are not listed anywhere: a name that the cells
use and do not define has to be imported by some cell of the chapters, and that line is taken.
"""

from __future__ import annotations

import ast
import builtins
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from jinja2 import DictLoader
from nbconvert import PythonExporter
from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell, new_notebook

from book import notebooks
from llm_core.runtime import atomic_write

TAG = "minillm"
TARGET = notebooks.ROOT / "minillm.py"
OWN = ("llm_core", "figures", "book", "minillm")  # what the file has to do without

TEMPLATE = '''\
{%- extends 'null.j2' -%}
{% block header -%}
"""A language model from scratch in one file: tokenizer, GPT, training and sampling.

These are the listings of the book *Ground Truth: Build a Large Language Model from Scratch*, in its
order, and nothing else: what a chapter derives stands here as it stands there. Give it any text in
UTF-8; it learns tokens from it, trains a small model to predict them and lets it speak:

    pip install {{ resources.packages }}
    python minillm.py mybook.txt

Generated from the chapters by `make minillm`: change their cells, not this file.
"""

{{ resources.imports }}
{% endblock header %}
{% block input %}


{{ cell.source }}
{% endblock input %}
{% block markdowncell %}


# {{ "-" * (resources.width - 2) }}
# {{ cell.source }}
# {{ "-" * (resources.width - 2) }}
{% endblock markdowncell %}
{% block footer %}


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python minillm.py FILE, a text in UTF-8")
    main(sys.argv[1])
{% endblock footer %}
'''
FOOTER = "sys, main"  # the names that the template itself uses


# --- cells ----------------------------------------------------------------------------------------


def title(notebook: NotebookNode, path: Path) -> str:
    """``Chapter 1: Tokenization``."""
    for cell in notebooks.markdown_cells(notebook):
        if found := re.search(r"^# (.+)$", cell.source, re.MULTILINE):
            return f"Chapter {notebooks.number(path)}: {found[1].strip()}"
    raise SystemExit(f"error: {path.name} has no title")


def imports_of(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """The names that imports at the top level of a cell bind, each with a line that does it."""
    for node in tree.body:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            for alias in node.names:
                name = f"{alias.name} as {alias.asname}" if alias.asname else alias.name
                source = f"from {node.module} " if isinstance(node, ast.ImportFrom) else ""
                yield alias.asname or alias.name.split(".")[0], f"{source}import {name}"


def without_imports(source: str) -> str:
    """A cell without the lines of its imports."""
    lines = source.split("\n")
    for node in ast.parse(source).body:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            for number in range(node.lineno - 1, node.end_lineno or node.lineno):
                lines[number] = ""
    return "\n".join(lines).strip("\n")


def parsed(source: str) -> ast.Module:
    """A cell as Python; lines that only IPython understands are left out."""
    lines = ["" if line.lstrip().startswith(("%", "!")) else line for line in source.split("\n")]
    return ast.parse("\n".join(lines))


def defined(tree: ast.Module) -> set[str]:
    """What the statements of a file give a name to, anywhere: functions, classes, variables."""
    found = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and stores(node)}
    found |= {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
    definitions = (ast.FunctionDef, ast.ClassDef)
    return found | {node.name for node in ast.walk(tree) if isinstance(node, definitions)}


def stores(node: ast.Name) -> bool:
    return not isinstance(node.ctx, ast.Load)


def free_names(tree: ast.Module) -> set[str]:
    """Names that are used and neither defined nor Python's own."""
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and not stores(node)}
    return used - defined(tree) - set(dir(builtins)) - {"__name__"}


# --- the file -------------------------------------------------------------------------------------


def import_lines(sources: Iterable[str], tree: ast.Module) -> list[str]:
    """A line for each free name. Ends the program where no chapter imports one from outside."""
    known: dict[str, str] = {"sys": "import sys"}
    for source in sources:
        for name, line in imports_of(parsed(source)):
            if line.split()[1].split(".")[0] not in OWN:
                known.setdefault(name, line)
    free = free_names(tree)
    if missing := sorted(free - set(known)):
        raise SystemExit(
            f"error: the cells tagged {TAG} use {', '.join(missing)}, which none of them defines "
            "and no chapter imports from outside; tag the cell that does, or do without"
        )
    return sorted({known[name] for name in free})


def packages(lines: Iterable[str]) -> str:
    """What to install for these imports."""
    roots = {line.split()[1].split(".")[0] for line in lines}
    return " ".join(sorted(roots - set(sys.stdlib_module_names)))


def formatted(source: str) -> str:
    """As `make check` wants it: imports sorted, lines joined and broken by ruff."""
    name = ["--stdin-filename", str(TARGET), "-"]
    for command in (["check", "--fix-only", "--select", "I"], ["format"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *command, "--quiet", *name],
            input=source,
            capture_output=True,
            text=True,
            encoding="utf-8",
        )
        if done.returncode:
            raise SystemExit(f"error: ruff {command[0]} refuses {TARGET.name}: {done.stderr}")
        source = done.stdout
    return source


def tangle(paths: Iterable[Path] | None = None) -> str:
    """The text of ``minillm.py``, from these notebooks or from the whole book."""
    whole, every = new_notebook(), list[str]()
    for path in notebooks.chapter_paths() if paths is None else paths:
        notebook = notebooks.read(path)
        every += [cell.source for cell in notebooks.code_cells(notebook)]
        tagged = [cell for cell in notebooks.code_cells(notebook) if TAG in notebooks.tags(cell)]
        if tagged:
            whole.cells += [new_markdown_cell(title(notebook, path)), *tagged]
    code = "\n".join(cell.source for cell in notebooks.code_cells(whole))
    lines = import_lines(every, ast.parse(f"{code}\n{FOOTER}"))
    for cell in notebooks.code_cells(whole):
        cell.source = without_imports(cell.source)
    resources: dict[str, Any] = {"imports": "\n".join(lines), "packages": packages(lines)}
    exporter = PythonExporter(
        extra_loaders=[DictLoader({"minillm.j2": TEMPLATE})], template_file="minillm.j2"
    )
    source, _ = exporter.from_notebook_node(whole, {**resources, "width": 100})
    return formatted(source)


def main() -> None:
    """Write ``minillm.py``; say how long it is."""
    source = tangle()
    with atomic_write(TARGET, "w") as file:
        file.write(source)
    print(f"{TARGET.name}: {len(source.splitlines())} lines")
