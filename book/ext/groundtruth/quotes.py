"""Pages of words may quote what a chapter computed, so that no number in them is typed.

A notebook hands a value to prose with ``glue``, and its own Markdown shows it with a role or, for
a piece of Markdown, a directive. In a page without code the same two are filled in here, before the
page is parsed, from the outputs stored in the notebooks.
"""

from __future__ import annotations

import ast
import json
import re
from functools import cache
from pathlib import Path

from sphinx.application import Sphinx

ROLE = re.compile(r"\{glue:text\}`([\w-]+)`")
DIRECTIVE = re.compile(r"^```\{glue:md\} ([\w-]+)\n(?::format: myst\n)?```$", re.MULTILINE)
RECORD = "application/papermill.record/"


@cache
def glued(folder: Path) -> dict[str, str]:
    """Every glued text and piece of Markdown of the notebooks in a folder, by name."""
    found = {}
    for path in sorted(folder.glob("*.ipynb")):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        outputs = [output for cell in cells for output in cell.get("outputs", ())]
        for output in outputs:
            name = output.get("metadata", {}).get("scrapbook", {}).get("name")
            if name:
                found[name] = value(output["data"])
    return found


def value(data: dict[str, str | list[str]]) -> str:
    """A glued output as text: Markdown as it is, a string without its quotation marks."""
    by_kind = {mime.removeprefix(RECORD): "".join(text) for mime, text in data.items()}
    if "text/markdown" in by_kind:
        return by_kind["text/markdown"]
    plain = by_kind.get("text/plain", "")
    return ast.literal_eval(plain) if plain[:1] in "'\"" else plain


def fill_in(text: str, values: dict[str, str]) -> str:
    """The page with each quoted name replaced; a name that nobody glued stays and is warned of."""

    def quoted(match: re.Match) -> str:
        return values.get(match[1], match[0])

    return DIRECTIVE.sub(quoted, ROLE.sub(quoted, text))


def read(app: Sphinx, docname: str, source: list[str]) -> None:
    if app.env.doc2path(docname).endswith(".md"):
        source[0] = fill_in(source[0], glued(Path(app.srcdir, "chapters")))


def setup(app: Sphinx) -> None:
    app.connect("source-read", read)
