"""The built pages of _build/html as the tests of the web pages read them or open them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SITE = ROOT / "_build" / "html"
CHAPTERS = sorted((ROOT / "chapters").glob("*.ipynb"))
WIDTHS = {"phone": 390, "tablet": 820, "desktop": 1440}
FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--no-first-run",
)  # fmt: skip
FORMULAS_DONE = "async () => { if (window.MathJax?.startup) await MathJax.startup.promise; }"
OPEN_SOLUTIONS = """() => document.querySelectorAll(".toggle-hidden .toggle-button")
  .forEach((button) => button.click())"""
VOID = frozenset(("br", "col", "hr", "img", "input", "link", "meta", "source", "wbr"))


@dataclass
class Element:
    tag: str
    attributes: dict[str, str]
    inside: tuple[str, ...]  # classes of everything around it


@dataclass
class Page(HTMLParser):
    """A built page's elements, its title, and the ids that an anchor can point to."""

    path: Path
    elements: list[Element] = field(default_factory=list)
    title: str = ""

    def __post_init__(self) -> None:
        super().__init__()
        self.stack: list[tuple[str, str]] = []
        self.feed(self.path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = {name: value or "" for name, value in attrs}
        self.elements.append(Element(tag, attributes, tuple(c for _, c in self.stack)))
        if tag not in VOID:
            self.stack.append((tag, attributes.get("class", "")))

    def handle_endtag(self, tag: str) -> None:
        if tag in [name for name, _ in self.stack]:
            while self.stack.pop()[0] != tag:
                pass

    def handle_data(self, data: str) -> None:
        if self.stack and self.stack[-1][0] == "title":
            self.title += data

    @property
    def name(self) -> str:
        return self.path.relative_to(SITE).as_posix()

    def with_class(self, *names: str) -> list[Element]:
        wanted = set(names)
        return [e for e in self.elements if wanted & set(e.attributes.get("class", "").split())]

    def meta(self, name: str) -> list[str]:
        found = (e.attributes for e in self.elements if e.tag == "meta")
        return [a["content"] for a in found if name in (a.get("name"), a.get("property"))]

    def ids(self) -> list[str]:
        return [e.attributes["id"] for e in self.elements if "id" in e.attributes]

    def addresses(self) -> list[str]:
        pairs = ((e.tag, e.attributes.get(key)) for e in self.elements for key in ("href", "src"))
        return [address for tag, address in pairs if address and tag != "base"]


def in_article(element: Element) -> bool:
    return any("bd-article" in classes.split() for classes in element.inside)


def page_of(chapter: Path) -> str:
    return f"chapters/{chapter.stem}.html"


def built_pages() -> dict[str, Page]:
    """Every page by its name, without the one that only leads to the first; skips where none is."""
    if not (SITE / "index.html").exists():
        pytest.skip("there are no web pages yet; write them with: make html")
    paths = [p for p in SITE.rglob("*.html") if not p.relative_to(SITE).parts[0].startswith("_")]
    return {page.name: page for page in map(Page, sorted(paths)) if page.name != "index.html"}


@contextmanager
def chromium() -> Iterator:
    """A browser without a network; skips where this machine has none."""
    names = ("chromium", "chromium-browser", "google-chrome")
    program = next(filter(None, map(shutil.which, names)), None)
    if program is None:
        pytest.skip("no Chromium on this machine; install it with: make browser")
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=list(FLAGS))
        room = {"width": WIDTHS["desktop"], "height": 900}
        context = browser.new_context(viewport=room, reduced_motion="reduce")
        context.set_default_timeout(10_000)
        context.set_offline(True)
        yield context
        browser.close()


def show(tab, name: str, query: str = "") -> None:
    tab.goto((SITE / name).as_uri() + query)
    tab.evaluate(FORMULAS_DONE)
