"""What each web page carries: description and social card, the landing page's opening, few scripts.

The pages must also work from a disk with the network cut; offline.py sees to the files they need.
"""

from __future__ import annotations

import re
from html import escape
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.transforms.post_transforms import SphinxPostTransform

from . import offline

DESCRIPTION_LENGTH = 200
LEAD = "Promise."  # chapters open with this word in bold; a description does without it
SPARE = ("sphinx-thebe", "THEBE_JS_URL", "thebe_selector", "design-tabs")  # no page uses them
HOME = "Welcome"  # the landing page's name in the sidebar, where the title already stands above
GENERATED = {"genindex": "Index", "search": "Search"}  # pages whose titles are in the templates
SEVERAL = {"exercise-content", "solution-content"}  # sphinx-exercise gives every box these ids
REPAIRS = (  # for readers who hear the page: a part without a landmark, a role out of use
    ('class="bd-sidebar-primary ', r'role="complementary" aria-label="Sidebar" \g<0>'),
    ('role="doc-biblioentry"', 'role="listitem"'),
)


def complete_config(app: Sphinx, config: Config) -> None:
    """The name in the sidebar, colors that follow the system, formulas outside the tab order."""
    title = config["html_title"].partition(": ")[0]
    mark = "book/static/favicon.svg"
    config["html_theme_options"]["logo"] = {
        "text": title, "image_light": mark, "image_dark": mark, "alt_text": ""
    }  # fmt: skip
    config["html_context"].setdefault("default_mode", "auto")
    # Unnamed, Sphinx would take the renderer that the EPUB brings. With MathJax as it comes, each
    # formula would be a tab stop of its own: hundreds in a chapter.
    config["html_math_renderer"] = "mathjax"
    math = {"menuOptions": {"settings": {"inTabOrder": False}}}
    config["mathjax3_config"] = {"options": math}


def shorten(text: str, length: int) -> str:
    """At most length characters, cut between words."""
    text = " ".join(text.split())
    return text if len(text) <= length else text[: length - 1].rsplit(" ", 1)[0].rstrip(",;:") + "…"


def plain(node: nodes.Node) -> str:
    """A paragraph's words; formulas lose their backslashes."""
    return "".join(
        text.astext().replace("\\", "") if isinstance(text.parent, nodes.math) else text.astext()
        for text in node.findall(nodes.Text)
    )


def description(doctree: nodes.document | None, fallback: str) -> str:
    """The page's first paragraph of its own; generated pages take the fallback."""
    for section in doctree.findall(nodes.section) if doctree else ():
        for child in section.findall(nodes.paragraph):
            text = plain(child).removeprefix(LEAD).strip()
            if text:
                return shorten(text, DESCRIPTION_LENGTH)
    return fallback


def card(app: Sphinx, pagename: str, title: str, text: str) -> str:
    base = app.config.html_baseurl.rstrip("/")
    fields = {
        "og:type": "book" if pagename == app.config.root_doc else "article",
        "og:site_name": app.config.html_title,
        "og:title": title,
        "og:description": text,
        "og:url": f"{base}/{pagename}.html",
        "og:image": f"{base}/_static/{offline.CARD}",
        "og:image:alt": app.config.html_title,
    }
    tags = [f'<meta name="description" content="{escape(text)}" />']
    tags += [f'<meta property="{key}" content="{escape(v)}" />' for key, v in fields.items()]
    tags.append('<meta name="twitter:card" content="summary_large_image" />')
    return "\n    ".join(tags)


def is_spare(asset: Any) -> bool:
    """Whether a script or style sheet belongs to an extension that this book does not use."""
    name = str(getattr(asset, "filename", asset) or "")
    text = name + str(getattr(asset, "attributes", {}).get("body", ""))
    return any(word in text for word in SPARE)


def dress(app: Sphinx, pagename: str, template: str, context: dict, doctree: Any) -> None:
    """Runs last of all page hooks: what the theme and the extensions added stands in context."""
    if app.builder.name != "html":
        return
    title = GENERATED.get(pagename) or context.get("pagetitle") or app.config.html_title
    tags = card(app, pagename, title, description(doctree, f"{title}: {app.config.html_title}"))
    context["metatags"] = context.get("metatags", "") + "\n    " + tags
    context["root_title"] = HOME
    if pagename == "search":
        app.add_js_file(offline.TEXTS, priority=100)
        app.add_js_file("offline-search.js", priority=101)
    for kind in ("script_files", "css_files"):
        context[kind] = [asset for asset in context[kind] if not is_spare(asset)]


def repair(app: Sphinx, failure: Exception | None) -> None:
    """Runs when the pages are written: what comes from templates stands in no hook before."""
    if failure or app.builder.name != "html":
        return
    for page in offline.pages(app):
        text = page.read_text(encoding="utf-8")
        for fault, remedy in REPAIRS:
            text = re.sub(fault, remedy, text)
        page.write_text(text, encoding="utf-8")


class Opening(SphinxPostTransform):
    """On the landing page: the title in two lines, and what stands before its first heading."""

    default_priority = 800
    formats = ("html",)

    def run(self, **kwargs: Any) -> None:
        self.unname_boxes()
        section = next(iter(self.document.findall(nodes.section)), None)
        if self.env.docname != self.config.root_doc or section is None:
            return
        title, _, subtitle = section[0].astext().partition(": ")
        section[0].clear()
        section[0] += nodes.inline("", title, classes=["book-title"])
        section[0] += nodes.Text(": ")
        section[0] += nodes.inline("", subtitle, classes=["book-subtitle"])
        opening = nodes.container(classes=["opening"])
        while len(section) > 1 and not isinstance(section[1], nodes.section):
            opening += section.pop(1)
        section.insert(1, opening)
        section["classes"].append("landing")

    def unname_boxes(self) -> None:
        """An id stands once on a page; the boxes keep the one of their label."""
        for section in self.document.findall(nodes.section):
            section["ids"] = [name for name in section["ids"] if name not in SEVERAL]


def setup(app: Sphinx) -> None:
    app.add_js_file("book.js", loading_method="defer")
    app.connect("config-inited", complete_config, priority=900)
    app.connect("html-page-context", dress, priority=900)
    app.connect("build-finished", repair)
    app.add_post_transform(Opening)
    offline.setup(app)
