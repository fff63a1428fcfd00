"""The Sphinx extension of this book: what Jupyter Book alone does not give it.

latex      the printed look: engine, fonts, boxes, page breaks, metadata
chapters   each chapter's head: measured time and memory, and the QR code to its web page
citations  author-year labels in the list of references
quotes     pages of words quote what a chapter computed
colophon   the page that the build writes about itself
solutions  the index of exercises and their solutions
speed      the records of speed beside peers and limits
web        descriptions and cards of the web pages; offline.py: they work without a network
epub       formulas as MathML, a cover, and what e-readers alone ask for
memory     look up once what Sphinx and pybtex look up for every reference
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.config import Config

from . import chapters, citations, colophon, epub, latex, memory, quotes, solutions, speed, web

THEME_OPTIONS = {
    "navbar_persistent": [],  # else the theme shows a second search field
    "show_navbar_depth": 1,
    "navigation_with_keys": True,
    "search_bar_text": "Search this book",
    "use_download_button": True,
    "use_fullscreen_button": True,
}


def complete_config(app: Sphinx, config: Config) -> None:
    """Set what follows from other settings, so that _config.yml says each thing once."""
    config["project"] = config["html_title"]
    version = re.search(
        r'__version__ = "(.+)"',
        Path(app.srcdir, "llm_core", "__init__.py").read_text(encoding="utf-8"),
    )
    config["version"] = config["release"] = version.group(1)
    config["today"] = colophon.commit_date(Path(app.srcdir))
    config["html_theme_options"].update(THEME_OPTIONS)


def fill_in_addresses(app: Sphinx, docname: str, source: list[str]) -> None:
    """Let pages name the repository, in code blocks too: the address stands in _config.yml."""
    source[0] = source[0].replace(
        "{{ repository_url }}", app.config["html_theme_options"]["repository_url"]
    )


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("config-inited", complete_config, priority=100)
    app.connect("source-read", fill_in_addresses)
    for part in (memory, latex, chapters, citations, colophon, quotes, solutions, speed, web, epub):
        part.setup(app)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
