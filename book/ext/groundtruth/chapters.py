"""The head of a chapter: how long it runs, how much memory it takes, where its web page is.

Times and memory come from the notebook's metadata, where ``make execute`` wrote what it measured.
The printed page carries a QR code to the web page.
"""

from __future__ import annotations

import json
from pathlib import Path

import segno
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform
from sphinx.transforms.post_transforms import SphinxPostTransform

FOLDER = "chapters/"
ANCHOR = "You need."  # the measurements follow the paragraph that opens with these words


def measured(path: Path) -> dict | None:
    """What ``make execute`` recorded in a notebook, None where it has not been executed yet."""
    return json.loads(path.read_text(encoding="utf-8"))["metadata"].get("ground_truth")


def duration(seconds: float) -> str:
    minutes, rest = divmod(max(1, round(seconds)), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def head_line(record: dict) -> str:
    machine = record["machine"]
    return (
        f"{duration(record['seconds'])} and {record['peak_bytes'] / 2**20:,.0f} MiB at the peak, "
        f"measured under the profile {record['profile']} on {machine['cores']} cores "
        f"({machine['cpu']}), Python {record['versions']['python']}."
    )


class MeasuredHead(SphinxTransform):
    """Insert "It takes." after the chapter's "You need." paragraph."""

    default_priority = 480

    def apply(self, **kwargs) -> None:
        docname = self.env.docname
        if not docname.startswith(FOLDER):
            return
        record = measured(Path(self.env.doc2path(docname)))
        for paragraph in self.document.findall(nodes.paragraph):
            if record and paragraph.astext().startswith(ANCHOR):
                line = nodes.paragraph("", "", classes=["measured"])
                line += nodes.strong("", "It takes.")
                line += nodes.Text(" " + head_line(record))
                paragraph.parent.insert(paragraph.parent.index(paragraph) + 1, line)
                return


def page_url(app: Sphinx, docname: str) -> str:
    return app.config.html_baseurl.rstrip("/") + f"/{docname}.html"


class PrintedHead(SphinxPostTransform):
    """In print, set the QR code that the next chapter title carries."""

    default_priority = 760
    formats = ("latex",)

    def run(self, **kwargs) -> None:
        from sphinx import addnodes

        for file in list(self.document.findall(addnodes.start_of_file)):
            docname = file.get("docname", "")
            sections = [c for c in file.children if isinstance(c, nodes.section)]
            if docname.startswith(FOLDER) and sections:
                name = "qr-" + Path(docname).name
                url = page_url(self.app, docname)
                segno.make(url, error="l").save(
                    str(Path(self.app.outdir, name + ".png")), border=0, scale=20
                )
                file.insert(0, nodes.raw("", f"\\bookqr{{{name}}}{{{url}}}\n", format="latex"))


def setup(app: Sphinx) -> None:
    app.add_transform(MeasuredHead)
    app.add_post_transform(PrintedHead)
