"""What the folder of web pages carries, so that it works from a disk with the network cut.

After the pages are written: fonts and the social card come in, the search gets the pages' texts
(it would fetch them, which browsers forbid under file://), and what no page asks for goes out.
"""

from __future__ import annotations

import json
import re
import shutil
from html import escape
from html.parser import HTMLParser
from pathlib import Path

import font_lato
from PIL import Image, ImageDraw, ImageFont
from sphinx.application import Sphinx

FONTS = ("Regular", "Italic", "Bold", "BoldItalic")
FONT_FILES = Path(font_lato.__file__).parent / "files"
CARD, CARD_SIZE = "card.png", (1200, 630)
INK, ACCENT, PAPER, PALE = "#1F2A44", "#B3261E", "#FFFFFF", "#C9D3E6"
TEXTS = "search-texts.js"

KEPT_MATHJAX = ("tex-chtml.js", "output/chtml/fonts/woff-v2/", "input/tex/extensions/", "a11y/",
                "sre/mathmaps/en.", "sre/mathmaps/base.", "sre/mathmaps/nemeth.")  # fmt: skip
UNUSED = (  # of the theme: sources of its scripts, other languages, old font formats, live code
    "scripts/*.map", "styles/*.map", "locales", "vendor/fontawesome/*/js",
    "vendor/fontawesome/*/webfonts/*.ttf", "sphinx-thebe.*", "thebelab*", "design-tabs.js",
    "images/logo_deepnote.svg", "images/logo_jupyterhub.svg", "*webpack-macros.html",
)  # fmt: skip
HEAD = (  # fonts asked for twice, which file:// refuses; icons come from the style sheet
    re.compile(r'<link rel="preload" as="font"[^>]*>\s*'),
    re.compile(r'<script src="[^"]*/fontawesome/[^"]*"></script>\s*'),
)


class Article(HTMLParser):
    """The text of a page's article, with the ids that search results point to."""

    VOID = frozenset(("area", "br", "col", "embed", "hr", "img", "input", "source", "wbr"))
    SILENT = frozenset(("script", "style", "svg", "button"))

    def __init__(self) -> None:
        super().__init__()
        self.parts: list[str] = []
        self.stack: list[tuple[str, bool, bool]] = []  # tag, kept, silent
        self.defining = False  # a glossary term's mark holds its definition, too

    @property
    def silent(self) -> bool:
        return not self.stack or self.stack[-1][2]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        classes = (values.get("class") or "").split()
        if tag in self.VOID or (not self.stack and "bd-article" not in classes):
            return
        silent = tag in self.SILENT or "headerlink" in classes or bool(self.stack and self.silent)
        kept = bool(values.get("id")) and not silent
        if tag == "dt":
            self.end_definition()
            self.defining = kept
        elif tag == "dd" and not silent:
            self.parts.append(": ")
        self.stack.append((tag, kept and tag != "dt", silent))
        if kept:
            self.parts.append(f'<div id="{escape(values["id"] or "")}">')

    def end_definition(self) -> None:
        if self.defining:
            self.parts.append("</div>")
        self.defining = False

    def handle_endtag(self, tag: str) -> None:
        if tag == "dl":
            self.end_definition()
        if self.stack and self.stack[-1][0] == tag and self.stack.pop()[1]:
            if self.parts[-1].startswith("<div id="):  # an empty mark: the search cannot show it
                self.parts.pop()
            else:
                self.parts.append("</div>")

    def handle_data(self, data: str) -> None:
        if not self.silent:
            self.parts.append(escape(data, quote=False))

    def html(self) -> str:
        return '<div role="main">' + re.sub(r"\s+", " ", "".join(self.parts)) + "</div>"


def pages(app: Sphinx) -> list[Path]:
    return sorted(
        path for path in Path(app.outdir).rglob("*.html")
        if not path.relative_to(app.outdir).parts[0].startswith("_")
    )  # fmt: skip


def write_texts(app: Sphinx) -> None:
    """One script with the text of every document, under the names that the search asks for."""
    texts = {}
    for document in sorted(app.env.found_docs):
        article = Article()
        article.feed(Path(app.outdir, f"{document}.html").read_text(encoding="utf-8"))
        texts[f"{document}.html"] = article.html()
    lines = [f"{json.dumps(name)}: {json.dumps(text)}" for name, text in texts.items()]
    script = "window.PAGE_TEXTS = {\n" + ",\n".join(lines) + "\n};\n"
    Path(app.outdir, "_static", TEXTS).write_text(script, encoding="utf-8")


def draw_card(
    title: str, subtitle: str, path: Path, page_size: tuple[int, int] = CARD_SIZE
) -> None:
    """The picture that a link to the book shows elsewhere; taller, the cover of the EPUB."""
    image = Image.new("RGB", page_size, INK)
    down = page_size[1] - CARD_SIZE[1]
    draw = ImageDraw.Draw(image)
    size = 44
    for row, shades in enumerate(((0.9,), (0.5, 0.9), (0.35, 0.6, 0.95))):
        for column, shade in enumerate(shades):
            corner = (96 + column * (size + 14), 90 + row * (size + 14))
            fill = tuple(round(a + (255 - a) * shade) for a in bytes.fromhex(INK[1:]))
            draw.rectangle((*corner, corner[0] + size, corner[1] + size), fill=fill)
    bold = ImageFont.truetype(str(FONT_FILES / "Lato-Bold.ttf"), 104)
    regular = ImageFont.truetype(str(FONT_FILES / "Lato-Regular.ttf"), 46)
    draw.text((92, 310 + down), title, font=bold, fill=PAPER)
    draw.rectangle((96, 458 + down, 226, 465 + down), fill=ACCENT)
    draw.text((96, 500 + down), subtitle, font=regular, fill=PALE)
    image.save(path, optimize=True)


def bring_fonts(static: Path) -> None:
    folder = static / "fonts"
    folder.mkdir(exist_ok=True)
    for name in (*(f"Lato-{style}.ttf" for style in FONTS), "OFL.txt"):
        shutil.copyfile(FONT_FILES / name, folder / name)


def prune(static: Path) -> None:
    for pattern in UNUSED:
        for path in static.glob(pattern):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    mathjax = static / "mathjax"
    for path in [p for p in mathjax.rglob("*") if p.is_file()]:
        if not path.relative_to(mathjax).as_posix().startswith(KEPT_MATHJAX):
            path.unlink()
    for folder in sorted((p for p in mathjax.rglob("*") if p.is_dir()), reverse=True):
        if not any(folder.iterdir()):
            folder.rmdir()


def finish(app: Sphinx, failure: Exception | None) -> None:
    """Runs after sphinx-mathjax-offline has copied its files."""
    if failure or app.builder.name != "html":
        return
    static = Path(app.outdir, "_static")
    bring_fonts(static)
    title, _, subtitle = app.config.html_title.partition(": ")
    draw_card(title, subtitle, static / CARD)
    for page in pages(app):
        text = page.read_text(encoding="utf-8")
        for pattern in HEAD:
            text = pattern.sub("", text)
        page.write_text(text, encoding="utf-8")
    write_texts(app)
    prune(static)


def setup(app: Sphinx) -> None:
    app.connect("build-finished", finish, priority=900)
