"""The printed look, taken back from sphinx-jupyterbook-latex.

That extension is kept for its transforms (parts from the captions of _toc.yml, hidden inputs, cell
wrappers), but it also forces XeLaTeX, its own class, which needs a 1.4 GB font package, and a text
width of 17.5 cm. Here that part is undone and the book's own look put in its place.
"""

from __future__ import annotations

from unicodedata import east_asian_width

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util.texescape import escape

OPENINGS = {  # what opens a part that gets no page of its own
    "Front Matter": "\\bookunnumbered",
    "Appendices": "\\bookappendices",
    "Back Matter": "\\bookunnumbered",
}
KEPT_TOGETHER = 16  # lines: a cell with its output up to this size is not split over two pages
FIRST_LINES = 8  # of a longer one, this much at least stands before a page ends
BOX_KEPT_TOGETHER = 30  # the same for an exercise or a solution with its cells
TEXT_COLUMNS = 85  # characters in a line of prose inside a box, roughly
FULL_SIZE_COLUMNS = 78  # a listing with longer lines is set smaller, so that none wraps
NESTED_COLUMNS = 8  # what a list or a box takes away from them at most

BARS = {  # admonition: background, bar
    ("note", "seealso"): ("EFF5FB", "2B6CB0"),
    ("tip", "hint"): ("EEF7F1", "2F855A"),
    ("important",): ("F4F1FA", "5B3E96"),
    ("warning", "caution", "attention"): ("FDF6E7", "B7791F"),
    ("danger", "error"): ("FCEFEE", "B3261E"),
}
CODE = {
    "pre_background-TeXcolor": "{HTML}{F5F6F8}",
    "pre_border-TeXcolor": "{HTML}{2B6CB0}",
    "pre_border-top-width": "0pt",
    "pre_border-right-width": "0pt",
    "pre_border-bottom-width": "0pt",
    "pre_border-left-width": "2.5pt",
    "pre_padding": "5pt",
    "pre_padding-left": "8pt",
    "pre_border-radius": "0pt",
}
GEOMETRY = (
    r"\usepackage[paperwidth=7.375in,paperheight=9.25in,inner=0.95in,outer=0.95in,"
    r"top=0.95in,bottom=0.9in,headsep=18pt,footskip=28pt]{geometry}"
)
SUBJECT = (
    "How a large language model works, by building one: tokenization, attention, pretraining, "
    "fine-tuning, with every claim checked"
)
KEYWORDS = (
    "large language model, GPT, transformer, tokenization, attention, pretraining, fine-tuning, "
    "PyTorch"
)


def sphinxsetup() -> str:
    options = {
        "verbatimwithframe": "true",
        "verbatimhintsturnover": "false",
        "verbatimwrapslines": "false",  # WrapLongLines asks for it where it is needed
        "verbatimforcewraps": "true",
        "inlineliteralwraps": "true",
        "TitleColor": "{HTML}{1F2A44}",
        "InnerLinkColor": "{HTML}{1D4E89}",
        "OuterLinkColor": "{HTML}{1D4E89}",
        "div.topic_box-shadow": "none",
        **CODE,
    }
    for kinds, (background, bar) in BARS.items():
        for kind in kinds:
            options[f"div.{kind}_border-width"] = "0pt"
            options[f"div.{kind}_border-left-width"] = "2.5pt"
            options[f"div.{kind}_background-TeXcolor"] = f"{{HTML}}{{{background}}}"
            options[f"div.{kind}_border-TeXcolor"] = f"{{HTML}}{{{bar}}}"
            options[f"div.{kind}_border-radius"] = "0pt"
            options[f"div.{kind}_padding"] = "7pt"
    return ",".join(f"{key}={value}" for key, value in options.items())


def preamble(config: Config) -> str:
    title, _, subtitle = config["html_title"].partition(": ")
    fields = {
        "pdftitle": config["html_title"],
        "pdfauthor": config["author"],
        "pdfsubject": SUBJECT,
        "pdfkeywords": KEYWORDS,
        "pdflang": "en-US",
    }
    metadata = ",".join(f"{key}={{{escape(value)}}}" for key, value in fields.items())
    return "\n".join(
        [
            r"\usepackage{bookstyle}",
            rf"\newcommand\booktitle{{{escape(title)}}}",
            rf"\newcommand\booksubtitle{{{escape(subtitle)}}}",
            rf"\newcommand\bookedition{{{escape(config['release'])}}}",
            rf"\AtBeginDocument{{\hypersetup{{{metadata}}}}}",
        ]
    )


def take_back(app: Sphinx, config: Config) -> None:
    """Runs after sphinx-jupyterbook-latex has written its settings over ours."""
    config["latex_engine"] = "lualatex"
    config["latex_theme"] = "manual"
    config["latex_elements"].update(
        {
            "papersize": "letterpaper",
            "pointsize": "10pt",
            "extraclassoptions": "openany,twoside",
            "babel": r"\usepackage[english]{babel}",
            "fncychap": "",
            "fontpkg": r"\usepackage{bookfonts}",
            "geometry": GEOMETRY,
            "figure_align": "htbp",
            "printindex": r"\footnotesize\raggedright\printindex",
            "maxlistdepth": "8",
            "fvset": r"\fvset{fontsize=\normalsize}",
            "sphinxsetup": sphinxsetup(),
            "preamble": preamble(config),
        }
    )


def depth_for_reading(app: Sphinx) -> None:
    if app.builder.name == "latex":
        # exercises get their numbers on reading: 2.1 as on the web, not 2.1.1
        app.config["numfig_secnum_depth"] = 1


def raw(tex: str) -> nodes.raw:
    return nodes.raw("", tex, format="latex")


class Structure(SphinxPostTransform):
    """Drop the landing page; front and back matter get no numbers, appendices letters."""

    default_priority = 750  # after sphinx-jupyterbook-latex has arranged the parts (700)
    formats = ("latex",)

    def run(self, **kwargs) -> None:
        # Parts are level 0 in LaTeX: figures and equations restart with each chapter. Set here, as
        # env-updated does not fire when no source has changed.
        self.app.config["numfig_secnum_depth"] = 2
        if self.env.docname != self.config.root_doc:
            return
        self.drop_landing_page()
        for file in list(self.document.findall(addnodes.start_of_file)):
            sections = [c for c in file.children if isinstance(c, nodes.section)]
            if not sections:
                continue
            if file["docname"] in OPENINGS:
                sections[0].replace(sections[0][0], raw(OPENINGS[file["docname"]] + "\n"))
            elif file["docname"] not in self.env.titles:  # a numbered part
                sections[0].insert(1, raw("\\booknumbered\n"))
            elif file["docname"] == "bibliography":  # LaTeX prints its own heading
                for section in sections:
                    file.remove(section)

    def drop_landing_page(self) -> None:
        for child in list(self.document.children):
            if isinstance(child, nodes.section) and child.get("docname") == self.config.root_doc:
                for part in list(child.children):
                    if not isinstance(part, nodes.title):  # the writer swallows the first title
                        child.remove(part)


def line_count(node: nodes.Node) -> int:
    """Printed lines of a cell's input or output; a figure or table counts as many."""
    if any(True for _ in node.findall(lambda n: isinstance(n, (nodes.image, nodes.table)))):
        return 99
    return sum(len(b.astext().splitlines()) + 1 for b in node.findall(nodes.literal_block))


class KeepTogether(SphinxPostTransform):
    """Short cells, outputs included, and short listings are not split over two pages."""

    default_priority = 1100  # after the cells have been wrapped (999)
    formats = ("latex",)

    def run(self, **kwargs) -> None:
        for cell in list(self.document.findall(nodes.container)):
            # Inside a box LaTeX does not know where the page ends: the box keeps itself together.
            if "cell" in cell.get("classes", []) and not any(map(is_box, ancestors(cell))):
                self.reserve(cell, [line_count(part) for part in cell.children])
        for block in list(self.document.findall(nodes.literal_block)):
            if not any("cell" in p.get("classes", []) for p in ancestors(block) if p.parent):
                captioned = block.parent.get("literal_block", False)
                whole = block.parent if captioned else block
                self.reserve(whole, [len(whole.astext().splitlines()) + 1])
                if max(map(len, block.astext().splitlines()), default=0) > FULL_SIZE_COLUMNS:
                    surround(
                        whole, "\\begingroup\\fvset{fontsize=\\footnotesize}\n", "\\endgroup\n"
                    )

    def reserve(self, node: nodes.Node, counts: list[int]) -> None:
        """Begin on a new page where too little is left for all lines, or for a good beginning."""
        wanted = sum(counts)
        if wanted > KEPT_TOGETHER:
            wanted = counts[0] if 0 < counts[0] <= KEPT_TOGETHER else FIRST_LINES
        if wanted:
            node.parent.insert(node.parent.index(node), raw(f"\\bookneed{{{wanted}}}\n"))


def columns(text: str) -> int:
    """Columns of the longest line; a character of full width takes two."""
    lines = text.expandtabs().splitlines()
    return max((sum(1 + (east_asian_width(c) in "WF") for c in line) for line in lines), default=0)


class WrapLongLines(SphinxPostTransform):
    """Ask for wrapped lines only around listings that need it: it makes TeX set each line thrice,
    which was two fifths of the time of a pass (EXPERIMENTS.md).
    """

    default_priority = 1110  # after KeepTogether
    formats = ("latex",)

    def run(self, **kwargs) -> None:
        for block in list(self.document.findall(nodes.literal_block)):
            depth = sum(
                is_box(p) or isinstance(p, (nodes.list_item, nodes.Admonition, nodes.block_quote))
                for p in ancestors(block)
            )
            if columns(block.astext()) > FULL_SIZE_COLUMNS - NESTED_COLUMNS * depth:
                captioned = block.parent.get("literal_block", False)
                surround(
                    block.parent if captioned else block,
                    "\\begingroup\\sphinxsetup{verbatimwrapslines=true}\n",
                    "\\endgroup\n",
                )


def is_box(node: nodes.Node) -> bool:
    from sphinx_exercise import nodes as exercise

    kinds = exercise.exercise_node, exercise.exercise_enumerable_node, exercise.solution_node
    return isinstance(node, kinds)


def box_lines(node: nodes.Element) -> int:
    """Printed lines of a box, title and spaces included, roughly: enough to place it."""
    text = sum(1 + len(p.astext()) // TEXT_COLUMNS for p in node.findall(nodes.paragraph))
    return 3 + text + line_count(node)


def surround(node: nodes.Node, before: str, after: str) -> None:
    place = node.parent.index(node)
    node.parent.insert(place + 1, raw(after))
    node.parent.insert(place, raw(before))


def ancestors(node: nodes.Node):
    while node.parent is not None:
        node = node.parent
        yield node


def visit_admonition(self, node: nodes.Element) -> None:
    """Sphinx prints every titled admonition as a note; the class names its true kind."""
    kinds = {kind for group in BARS for kind in group}
    kind = next((c for c in node.get("classes", []) if c in kinds), "note")
    self.body.append(f"\n\\begin{{sphinxadmonition}}{{{kind}}}")
    self.no_latex_floats += 1


def depart_admonition(self, node: nodes.Element) -> None:
    self.body.append("\\end{sphinxadmonition}\n")
    self.no_latex_floats -= 1


def boxed(environment: str):
    """Visitors that put an exercise or a solution into a box of ours."""

    def visit(self, node: nodes.Element) -> None:
        registry = self.builder.env.sphinx_exercise_registry[node["label"]]
        labels = f"{registry.get('docname')}:{node['label']}", f"exercise:{node['label']}"
        marks = "".join(f"\\label{{{label}}}" for label in labels)
        lines = box_lines(node)
        wanted = lines if lines <= BOX_KEPT_TOGETHER else FIRST_LINES
        start = f"\n\\bookneed{{{wanted}}}\\phantomsection{marks}\n\\begin{{{environment}}}"
        self.body.append(start)

    def depart(self, node: nodes.Element) -> None:
        self.body.append(f"\\end{{{environment}}}\n")

    return visit, depart


def setup(app: Sphinx) -> None:
    from sphinx_exercise import nodes as exercise

    app.setup_extension("sphinx_exercise")
    for cls in (exercise.exercise_node, exercise.exercise_enumerable_node):
        app.add_node(cls, override=True, latex=boxed("bookexercise"))
    app.add_node(exercise.solution_node, override=True, latex=boxed("booksolution"))
    app.add_node(nodes.admonition, override=True, latex=(visit_admonition, depart_admonition))
    app.connect("config-inited", take_back, priority=900)
    app.connect("builder-inited", depth_for_reading, priority=900)
    app.add_post_transform(Structure)
    app.add_post_transform(KeepTogether)
    app.add_post_transform(WrapLongLines)
