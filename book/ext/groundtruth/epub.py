"""The EPUB: formulas as MathML, so that no reading system needs a script, a style sheet of its own,
and what web pages alone need taken out. epubcheck finds nothing to complain of."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from docutils import nodes
from latex2mathml.converter import convert
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.builders.epub3 import Epub3Builder
from sphinx.config import Config
from sphinx.util.math import get_node_equation_number
from sphinx.writers.html5 import HTML5Translator

from . import offline

RENDERER, COVER = "mathml", "cover.png"
COVER_SIZE = (1200, 1800)
STYLES = ("pygments.css", "epub.css")
UNIQUE = "ground-truth"
DESCRIPTION = (
    "How a large language model works, by building one: every number and figure comes out of a run."
)
THEMES = ("sphinx_book_theme", "pydata_sphinx_theme", "sphinx_thebe", "sphinx_togglebutton")

MATHML = "{http://www.w3.org/1998/Math/MathML}"
ROWS = ("math", "mrow", "mtd", "mstyle")
FUNCTIONS = ("ln", "log", "exp", "sin", "cos", "tanh", "max", "min", "arg", "Pr")
ElementTree.register_namespace("", MATHML[1:-1])

DOCTYPE = re.compile(r"<!DOCTYPE[^>]*>\s*")
SPACE_GLYPH = re.compile(r"<path(?=[^>]*/>)(?![^>]*\sd=)")  # matplotlib's: a glyph without a line
ITEM = re.compile(r'(<item [^>]*href="([^"]+)" media-type="[^"]+")')


# --- formulas -----------------------------------------------------------------------------------


def formula(tex: str, display: str = "inline") -> str:
    """TeX as MathML; lines that are broken by two backslashes are aligned."""
    if r"\\" in tex and r"\begin" not in tex:
        tex = rf"\begin{{split}}{tex}\end{{split}}"
    return spaced(convert(tex.replace("{aligned}", "{split}"), display=display))


def spaced(mathml: str) -> str:
    """A thin space between a function's name and a neighbor that is no sign, as TeX has it."""
    root = ElementTree.fromstring(mathml)
    for row in root.iter():
        if row.tag.removeprefix(MATHML) not in ROWS:
            continue
        for place in range(len(row) - 1, 0, -1):
            pair = row[place - 1], row[place]
            if any(one.tag == f"{MATHML}mi" and one.text in FUNCTIONS for one in pair) and all(
                one.tag.removeprefix(MATHML) not in ("mo", "mspace") for one in pair
            ):
                row.insert(place, ElementTree.Element(f"{MATHML}mspace", width="0.17em"))
    return ElementTree.tostring(root, encoding="unicode")


def inline(self: HTML5Translator, node: nodes.math) -> None:
    self.body.append(formula(node.astext()))
    raise nodes.SkipNode


def block(self: HTML5Translator, node: nodes.math_block) -> None:
    self.body.append(self.starttag(node, "div", CLASS="math"))
    if node["number"]:
        number = get_node_equation_number(self, node)
        self.body.append(f'<span class="eqno">({number})</span>')
    self.body.append(formula(node.astext(), "block") + "</div>\n")
    raise nodes.SkipNode


# --- the package --------------------------------------------------------------------------------


class Epub(Epub3Builder):
    """Sphinx's builder, whose files are put in order before they are packed."""

    def build_content(self) -> None:
        out = Path(self.outdir)
        for path in (out / "_static").iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name not in STYLES:
                path.unlink()
        shutil.rmtree(out / "_sphinx_design_static", ignore_errors=True)
        title, _, subtitle = str(self.config.project).partition(": ")
        offline.draw_card(title, subtitle, out / "_static" / COVER, COVER_SIZE)
        for path in (out / "_images").glob("*.svg"):
            text = DOCTYPE.sub("", path.read_text(encoding="utf-8"))
            path.write_text(SPACE_GLYPH.sub('<path d=""', text), encoding="utf-8")
        super().build_content()
        self.declare(out)

    def declare(self, out: Path) -> None:
        """The package file has to say which pages hold MathML, and which picture is the cover."""

        def item(found: re.Match[str]) -> str:
            name = found[2]
            if name == f"_static/{COVER}":
                return found[1] + ' properties="cover-image"'
            if name.endswith(".xhtml") and (out / name).exists():  # but the table of contents
                page = (out / name).read_text(encoding="utf-8")
                return found[1] + (' properties="mathml"' if "<math" in page else "")
            return found[1]

        package = out / "content.opf"
        text = package.read_text(encoding="utf-8")
        package.write_text(ITEM.sub(item, text), encoding="utf-8")


# --- what Sphinx calls --------------------------------------------------------------------------


def complete_config(app: Sphinx, config: Config) -> None:
    config["epub_basename"] = "ground-truth"
    config["epub_title"] = config["project"]
    config["epub_identifier"] = config["epub_uid"] = UNIQUE
    config["epub_description"] = DESCRIPTION
    config["epub_contributor"] = config["epub_publisher"] = config["author"]
    config["epub_show_urls"] = "no"
    config["epub_tocscope"] = "includehidden"
    config["epub_tocdup"] = False
    config["epub_cover"] = (f"_static/{COVER}", "epub-cover.html")
    config["epub_css_files"] = [("epub.css", {})]


def become_epub(app: Sphinx) -> None:
    """Take away what the themes of the web pages hang on each page."""
    if app.builder.name != "epub":
        return
    app.config["html_math_renderer"] = RENDERER
    for event in ("doctree-resolved", "html-page-context"):
        heard = app.events.listeners.get(event, [])
        heard[:] = [one for one in heard if not one.handler.__module__.startswith(THEMES)]


def open_contents(app: Sphinx, doctree: nodes.document) -> None:
    """Let the table of contents go down to the sections, as that of the PDF."""
    if app.builder.name == "epub" and app.env.docname == app.config.root_doc:
        for node in doctree.findall(addnodes.toctree):
            node["titlesonly"], node["maxdepth"] = False, 3


def strip(app: Sphinx, pagename: str, template: str, context: dict, doctree: Any) -> None:
    """Runs last of all page hooks: no scripts, and this book's style sheets alone."""
    if app.builder.name == "epub":
        context["script_files"] = []
        context["css_files"] = [
            one for one in context["css_files"] if Path(str(one.filename)).name in STYLES
        ]


def setup(app: Sphinx) -> None:
    app.add_builder(Epub, override=True)
    app.add_html_math_renderer(RENDERER, (inline, None), (block, None))
    app.connect("config-inited", complete_config, priority=950)
    app.connect("builder-inited", become_epub, priority=100)
    app.connect("doctree-read", open_contents)
    app.connect("html-page-context", strip, priority=950)
