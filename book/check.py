"""Hold notebooks, pages, figures and references against the book's rules; print every breach.

Reads files only: nothing is executed, so it takes seconds. What only Sphinx can know (a broken
directive, say) is caught by the build, where each warning is an error.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import yaml
from nbformat import NotebookNode

from book import notebooks
from book.notebooks import ROOT, tags

CODE_LINES, CODE_COLUMNS = 30, 76
OUTPUT_LINES, OUTPUT_COLUMNS = 25, 76
ABSOLUTE = re.compile(
    r"(?:/(?:home|root|Users|tmp|work|mnt|private|var/folders)/[\w.-]+)|[A-Z]:\\\\?\w"
)
ANSI = re.compile(r"\x1b\[")

LABEL = re.compile(r"^\(([\w-]+)\)=\s*$|^:(?:name|label): ([\w:-]+)\s*$", re.MULTILINE)
MATH_LABEL = re.compile(r"^\$\$\s*\(([\w-]+)\)\s*$", re.MULTILINE)
REFERENCE = re.compile(r"\{(numref|ref|eq|prf:ref|term|cite:?\w*|glue:\w+|doc)\}`([^`]+)`")
GLUED_BLOCK = re.compile(r"^```\{glue:md\} (\S+)$", re.MULTILINE)
TARGET = re.compile(r"<([^<>]+)>\s*$")
STARTED = re.compile(r"```+\{(exercise|solution)-start\}")
FIGURE_PATH = re.compile(r"^```+\{(?:figure|image)\} (\S+)", re.MULTILINE)
FIGURE_BLOCK = re.compile(r"^(```+)\{figure\} (\S+)\n(.*?)^\1", re.MULTILINE | re.DOTALL)
BIB_KEY = re.compile(r"^@\w+\{([^,\s]+),", re.MULTILINE)
GLOSSARY_TERM = re.compile(r"^(?=\S)(?!```|:)(.+)$", re.MULTILINE)
SETUP_URL = re.compile(r"git\+(https://\S+?)[\s\"']")


class Breaches(list[str]):
    def add(self, place: str, text: str) -> None:
        self.append(f"{place}: {text}")


def pages() -> list[Path]:
    """The book's Markdown pages: those that _toc.yml names."""
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    names = [toc["root"]] + [c["file"] for part in toc["parts"] for c in part["chapters"]]
    return [ROOT / f"{name}.md" for name in names if (ROOT / f"{name}.md").exists()]


def texts() -> Iterator[tuple[str, str]]:
    """(place, Markdown) of every page and every Markdown cell."""
    for path in pages():
        yield path.name, path.read_text(encoding="utf-8")
    for path in notebooks.chapter_paths():
        for cell in notebooks.markdown_cells(notebooks.read(path)):
            yield f"{path.stem} cell {cell.id}", cell.source


# ---------------------------------------------------------------- notebooks
def check_stamp(notebook: NotebookNode, name: str, found: Breaches) -> None:
    record = notebook.metadata.get(notebooks.RECORD)
    number = name.split("-")[0]
    if record is None:
        found.add(name, f"was never executed; run make execute CHAPTER={number}")
    elif record["stamp"] != notebooks.code_hash(notebook):
        found.add(name, f"its code is newer than its outputs; run make execute CHAPTER={number}")
    elif record["profile"] != "book":
        found.add(name, f"was executed under {record['profile']!r}; the book prints 'book'")


def check_code(cell: NotebookNode, place: str, found: Breaches) -> None:
    lines = cell.source.splitlines()
    if len(lines) > CODE_LINES:
        found.add(place, f"{len(lines)} lines of code; at most {CODE_LINES}")
    for line in lines:
        if len(line) > CODE_COLUMNS:
            found.add(place, f"{len(line)} columns, at most {CODE_COLUMNS}: {line.strip()[:40]}")
    if ABSOLUTE.search(cell.source):
        found.add(place, f"an absolute path: {ABSOLUTE.search(cell.source).group()}")


def check_outputs(cell: NotebookNode, place: str, found: Breaches) -> None:
    for output in cell.outputs:
        if output.output_type == "error":
            found.add(place, f"an error is stored: {output.ename}: {output.evalue}")
        if output.output_type == "stream" and output.name == "stderr":
            found.add(place, f"something on stderr: {output.text.strip()[:60]}")
    text = notebooks.printed(cell)
    lines = text.rstrip("\n").splitlines()
    if "remove-cell" in tags(cell) or "remove-output" in tags(cell):
        return
    if len(lines) > OUTPUT_LINES:
        found.add(place, f"prints {len(lines)} lines; at most {OUTPUT_LINES}")
    wide = max((len(line) for line in lines), default=0)
    if wide > OUTPUT_COLUMNS:
        found.add(place, f"prints {wide} columns; at most {OUTPUT_COLUMNS}")
    if ANSI.search(text):
        found.add(place, "prints ANSI color codes")
    if ABSOLUTE.search(text):
        found.add(place, f"prints an absolute path: {ABSOLUTE.search(text).group()}")


def check_live_figure(cell: NotebookNode, place: str, found: Breaches) -> None:
    shows = any("image/svg+xml" in output.get("data", {}) for output in cell.outputs)
    meta = cell.metadata.get("mystnb", {})
    if not shows:
        return
    for group, key in (("figure", "name"), ("figure", "caption"), ("image", "alt")):
        if not meta.get(group, {}).get(key):
            found.add(place, f"a figure without {key}")


def check_rhythm(notebook: NotebookNode, name: str, found: Breaches) -> None:
    """Never two code cells without a word between."""
    previous = None
    for cell in notebook.cells:
        if "remove-cell" in tags(cell):
            continue
        if cell.cell_type == "code" and previous is not None and previous.cell_type == "code":
            found.add(f"{name} cell {cell.id}", "follows a code cell without a word between")
        previous = cell


def definitions(notebook: NotebookNode) -> Iterator[str]:
    """Functions and classes that the chapter's text defines (not its exercises)."""
    inside_exercise = False
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            for line in cell.source.splitlines():
                if STARTED.match(line):
                    inside_exercise = True
                elif re.match(r"```+\{(exercise|solution)-end\}", line):
                    inside_exercise = False
        elif not inside_exercise and "exercise" not in tags(cell):
            source = re.sub(r"^\s*[%!].*$", "pass", cell.source, flags=re.MULTILINE)
            for node in ast.parse(source).body:
                if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                    yield node.name


def check_notebooks(found: Breaches) -> None:
    homes: dict[str, set[str]] = defaultdict(set)
    url = yaml.safe_load((ROOT / "_config.yml").read_text())["repository"]["url"]
    for path in notebooks.chapter_paths():
        notebook = notebooks.read(path)
        check_stamp(notebook, path.stem, found)
        check_rhythm(notebook, path.stem, found)
        for cell in notebooks.code_cells(notebook):
            place = f"{path.stem} cell {cell.id}"
            check_code(cell, place, found)
            check_outputs(cell, place, found)
            check_live_figure(cell, place, found)
            for address in SETUP_URL.findall(cell.source):
                if address.removesuffix(".git") != url:
                    found.add(place, f"installs from {address}; _config.yml says {url}")
        for name in definitions(notebook):
            homes[name].add(path.stem)
    for name, chapters in sorted(homes.items()):
        if len(chapters) > 1:
            found.add(name, f"is defined in {' and '.join(sorted(chapters))}; import it instead")


# ---------------------------------------------------------------- references
def glued() -> dict[str, str]:
    """What the cells hand to the prose, by name; of Markdown its source, which may hold labels."""
    return {
        output["metadata"]["scrapbook"]["name"]: "".join(
            text for mime, text in output["data"].items() if mime.endswith("text/markdown")
        )
        for path in notebooks.chapter_paths()
        for cell in notebooks.code_cells(notebooks.read(path))
        for output in cell.outputs
        if "scrapbook" in output.get("metadata", {})
    }


def defined() -> dict[str, set[str]]:
    """What can be referred to, by kind."""
    labels: set[str] = set()
    for text in [text for _, text in texts()] + list(glued().values()):
        labels |= {a or b for a, b in LABEL.findall(text)} | set(MATH_LABEL.findall(text))
    for path in notebooks.chapter_paths():
        for cell in notebooks.code_cells(notebooks.read(path)):
            labels.add(cell.metadata.get("mystnb", {}).get("figure", {}).get("name", ""))
    glossary = (ROOT / "glossary.md").read_text(encoding="utf-8")
    body = re.search(r"^```+\{glossary\}\n(.*?)^```", glossary, re.MULTILINE | re.DOTALL)
    terms = GLOSSARY_TERM.findall(body.group(1)) if body else []
    return {
        "label": labels,
        "term": {term.strip().lower() for term in terms},
        "cite": set(BIB_KEY.findall((ROOT / "references.bib").read_text(encoding="utf-8"))),
        "glue": set(glued()),
    }


def check_references(found: Breaches) -> None:
    known = defined()
    for place, text in texts():
        for name in set(GLUED_BLOCK.findall(text)) - known["glue"]:
            found.add(place, f"{{glue:md}} points nowhere: {name}")
        for role, content in REFERENCE.findall(text):
            target = TARGET.search(content)
            name = (target.group(1) if target else content).strip()
            if role.startswith("cite"):
                missing = [key for key in name.split(",") if key.strip() not in known["cite"]]
            elif role.startswith("glue"):
                missing = [name] * (name.split(":")[0] not in known["glue"])
            elif role == "term":
                missing = [name] * (name.lower() not in known["term"])
            elif role == "doc":
                missing = [name] * (not list(ROOT.glob(f"{name.lstrip('/')}.*")))
            else:
                missing = [name] * (name not in known["label"])
            for key in missing:
                found.add(place, f"{{{role}}} points nowhere: {key}")


# ---------------------------------------------------------------- figures
def is_figure(node: ast.FunctionDef) -> bool:
    marks = [getattr(mark, "id", getattr(mark, "attr", "")) for mark in node.decorator_list]
    return "figure" in marks


def drawn() -> dict[str, bool]:
    """Label without ``fig-`` of each figure function: whether it needs no data."""
    found = {}
    for path in sorted((ROOT / "figures").glob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef) and is_figure(node):
                needs = len(node.args.args) - len(node.args.defaults)
                needs += sum(default is None for default in node.args.kw_defaults)
                found[f"{path.stem}-{node.name}".replace("_", "-")] = needs == 0
    for path in (ROOT / "figures" / "tikz").glob("*.tex"):
        found[path.stem] = True
    return found


def check_figures(found: Breaches) -> None:
    functions = drawn()
    rendered = {p.stem for p in (ROOT / "figures" / "rendered").glob("*.*")}
    shown: set[str] = set()
    for place, text in texts():
        shown |= {Path(path).name.removesuffix(".*") for path in FIGURE_PATH.findall(text)}
        for _, path, body in FIGURE_BLOCK.findall(text):
            stem = Path(path).name.removesuffix(".*")
            for option in (":alt:", f":name: fig-{stem}"):
                if option not in body:
                    found.add(place, f"figure {stem} without {option}")
    for path in notebooks.chapter_paths():
        for cell in notebooks.code_cells(notebooks.read(path)):
            name = cell.metadata.get("mystnb", {}).get("figure", {}).get("name", "")
            if name and name.removeprefix("fig-") not in functions:
                found.add(f"{path.stem} cell {cell.id}", f"{name} is drawn by no function")
            shown.add(name.removeprefix("fig-"))
    static = {name for name, needs_nothing in functions.items() if needs_nothing}
    for name in sorted(static - rendered):
        found.add(f"figures/{name}", "is not rendered; run make figures")
    for name in sorted(rendered - static):
        found.add(f"figures/rendered/{name}", "no function draws it")
    for name in sorted(functions.keys() - shown):
        found.add(f"figures/{name}", "an orphan: no page shows it")


def main() -> None:
    found = Breaches()
    check_notebooks(found)
    check_references(found)
    check_figures(found)
    if found:
        raise SystemExit("\n".join(found) + f"\nerror: {len(found)} breaches of the book's rules")
    count = len(notebooks.chapter_paths())
    print(f"{count} chapters, {len(pages())} pages, {len(drawn())} figures: no breach")
