"""The front matter's figure: the chapters as a graph, with three ways through them.

``CHAPTERS`` and ``PATHS`` are the one place that says which chapter needs which and who reads
what; the figure is computed from them, and ``tests/test_frontmatter.py`` holds them against the
chapters in the repository and the tables of the page ``map``.
"""

from __future__ import annotations

from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from figures import style

Point = tuple[float, float]


@dataclass(frozen=True)
class Chapter:
    """A chapter, the chapters it builds on, and its seat: column and row of the drawing."""

    number: int
    title: str
    part: int
    needs: tuple[int, ...]
    seat: tuple[int, int]
    finished: bool = False


@dataclass(frozen=True)
class Path:
    """A way to read the book: its chapters, in order, and how its line is drawn."""

    name: str
    chapters: tuple[int, ...]
    color: str
    line: str | tuple[float, tuple[float, ...]]
    lane: int  # -1, 0 or 1: where the line runs when several share an edge


CHAPTERS = (
    Chapter(1, "Tokenization", 1, (), (0, 0), finished=True),
    Chapter(2, "Embeddings", 1, (1,), (1, 0), finished=True),
    Chapter(3, "Causal\nattention", 1, (2,), (2, 0), finished=True),
    Chapter(4, "The full\nGPT", 1, (3,), (3, 0), finished=True),
    Chapter(5, "Pretraining", 2, (4,), (3, 1), finished=True),
    Chapter(6, "Classification\nfine-tuning", 2, (5,), (3, 2), finished=True),
    Chapter(7, "Instruction\ntuning", 2, (5,), (4, 2), finished=True),
    Chapter(8, "Data\ncuration", 3, (2,), (1, 1)),
    Chapter(9, "Modern\narchitectures", 3, (5,), (0, 2)),
    Chapter(10, "Speed", 3, (5,), (1, 2)),
    Chapter(11, "Scaling\nlaws", 3, (10,), (1, 3)),
    Chapter(12, "Distributed\ntraining", 3, (10,), (1, 4)),
    Chapter(13, "LoRA", 3, (7,), (4, 3)),
    Chapter(14, "Preferences\nand RL", 3, (7,), (4, 4)),
    Chapter(15, "Evaluation,\nsafety", 3, (7,), (4, 5)),
    Chapter(16, "Inference,\ndeployment", 3, (7,), (4, 6)),
    Chapter(17, "Looking\ninside", 3, (5,), (2, 2)),
    Chapter(18, "Image and\ntext", 3, (7,), (4, 7)),
)
BY_NUMBER = {chapter.number: chapter for chapter in CHAPTERS}

PATHS = (
    Path("I train models for a living", (1, 2, 3, 4, 5, 8, 9, 10, 11, 12), "#D55E00", "--", -1),
    Path("The straight road", (1, 2, 3, 4, 5, 6, 7), "#0072B2", "-", 0),
    Path(
        "I only want to fine-tune and use",
        (1, 2, 3, 4, 5, 6, 7, 13, 14, 15, 16),
        "#009E73",
        (0, (1, 0.9)),
        1,
    ),
)

# All in inches, from the lower left corner of a drawing as wide as the text.
HEIGHT = 5.3
BOX = (0.86, 0.42)
PITCH = (1.107, 0.68)
FIRST = (0.016, HEIGHT - 0.05 - BOX[1])  # lower left corner of seat (0, 0)
INDENT = 0.14  # a chapter below its need in the same column stands to the right of the rail
RAIL_WIDTH = 0.8  # of such a chapter's box
LANE = 0.04


def box(chapter: Chapter) -> tuple[float, float, float, float]:
    """The chapter's box: left, bottom, width, height in inches."""
    left = FIRST[0] + chapter.seat[0] * PITCH[0]
    bottom = FIRST[1] - chapter.seat[1] * PITCH[1]
    if on_rail(chapter):
        return left + INDENT, bottom, RAIL_WIDTH, BOX[1]
    return left, bottom, *BOX


def on_rail(chapter: Chapter) -> bool:
    """Whether the chapter hangs in the column below its need, with its siblings."""
    return chapter.seat[1] > 2


def edges() -> list[tuple[Chapter, Chapter]]:
    """Every dependency as (need, chapter)."""
    return [(BY_NUMBER[n], chapter) for chapter in CHAPTERS for n in chapter.needs]


def lanes(need: Chapter, chapter: Chapter) -> list[int]:
    """The lanes of the reading paths that go along a dependency."""
    return [p.lane for p in PATHS if {need.number, chapter.number} <= set(p.chapters)]


def fans_out(need: Chapter) -> bool:
    """Whether lines from this chapter turn off to both sides, each in its own lane."""
    return any(n is need and c.seat[0] != n.seat[0] and c.seat[1] != n.seat[1] for n, c in edges())


def route(need: Chapter, chapter: Chapter, lane: int | None = None) -> list[Point]:
    """The line from a chapter to one that needs it, right angles only; lanes run in parallel.

    ``lane=None`` is the thin line of a dependency that is on no path.
    """
    left, bottom, width, height = box(need)
    to_left, to_bottom, to_width, to_height = box(chapter)
    taken = lanes(need, chapter) or [0]
    own = (lane or 0) * LANE
    centered = own - LANE * sum(taken) / len(taken)
    if on_rail(chapter):
        x, y = left + INDENT / 2 + centered, to_bottom + to_height / 2 - centered
        return [(x, bottom), (x, y), (to_left, y)]
    if chapter.seat[1] == need.seat[1]:
        y = bottom + height / 2 + centered
        return [(left + width, y), (to_left, y)]
    x = left + width / 2 + (own if fans_out(need) else centered)
    if chapter.seat[0] == need.seat[0]:
        return [(x, bottom), (x, to_bottom + to_height)]
    to_x, top = to_left + to_width / 2 + centered, to_bottom + to_height
    turn = (bottom + top) / 2 + LANE + (-LANE if lane is None else abs(own))
    return [(x, bottom), (x, turn), (to_x, turn), (to_x, top)]


def draw_edge(axes: Axes, need: Chapter, chapter: Chapter) -> None:
    """One line a path, or a thin gray one where no path goes, with an arrow head at its end."""
    on_edge = [p for p in PATHS if p.lane in lanes(need, chapter)]
    routes = [route(need, chapter, p.lane) for p in on_edge] or [route(need, chapter)]
    for points, path in zip(routes, on_edge, strict=False):
        x, y = zip(*points, strict=True)
        axes.plot(x, y, color=style.PAPER, linewidth=2.6, zorder=2)
        axes.plot(x, y, color=path.color, linestyle=path.line, linewidth=1.7, zorder=3)
    if not on_edge:
        x, y = zip(*routes[0], strict=True)
        axes.plot(x, y, color=style.GRAY, linewidth=0.7, zorder=1)
    draw_head(axes, routes)


def draw_head(axes: Axes, routes: list[list[Point]]) -> None:
    """One arrow head where the lines of an edge arrive together."""
    x, y = (sum(points[-1][i] for points in routes) / len(routes) for i in (0, 1))
    down = routes[0][-2][1] > routes[0][-1][1]
    marker, x, y = ("v", x, y + 0.035) if down else (">", x - 0.035, y)
    axes.plot(x, y, marker, color=style.INK, markersize=5.5, zorder=6, markeredgewidth=0)


def draw_box(axes: Axes, x: float, y: float, width: float, height: float, finished: bool) -> None:
    """A chapter that is there is dark; a planned one has a thin broken outline."""
    axes.add_patch(
        FancyBboxPatch(
            (x, y),
            width,
            height,
            boxstyle="round,pad=0,rounding_size=0.05",
            facecolor=style.INK if finished else style.PAPER,
            edgecolor=style.INK if finished else style.GRAY,
            linestyle="-" if finished else (0, (3, 1.5)),
            linewidth=0.8,
            zorder=4,
        )
    )


def draw_chapter(axes: Axes, chapter: Chapter) -> None:
    x, y, width, height = box(chapter)
    draw_box(axes, x, y, width, height, chapter.finished)
    ink = style.PAPER if chapter.finished else style.INK
    middle = y + height / 2 - 0.008
    axes.text(
        x + 0.055, middle, str(chapter.number), size=9, weight="bold", color=ink, va="center",
        zorder=5,
    )  # fmt: skip
    axes.text(
        x + 0.24, middle, chapter.title, size=7, color=ink, va="center", linespacing=1.1,
        zorder=5, gid=f"chapter-{chapter.number}",
    )  # fmt: skip


def draw_key(axes: Axes) -> None:
    """What the lines and the boxes mean, in the empty quarter of the drawing."""
    x, y = 2.3, 2.05
    axes.text(x, y + 0.26, "Three ways to read", size=8.5, weight="bold", va="center")
    for i, path in enumerate(sorted(PATHS, key=lambda p: len(p.chapters))):
        row = y - 0.24 * i
        axes.plot([x, x + 0.36], [row, row], color=path.color, linestyle=path.line, linewidth=1.7)
        axes.text(x + 0.46, row, path.name, size=7.5, va="center")
    axes.plot([x, x + 0.36], [y - 0.72] * 2, color=style.GRAY, linewidth=0.7)
    axes.text(x + 0.46, y - 0.72, "needed, on none of the three", size=7.5, va="center")
    for i, (label, finished) in enumerate((("finished", True), ("planned", False))):
        row = y - 0.98 - 0.24 * i
        draw_box(axes, x, row - 0.075, 0.36, 0.15, finished)
        axes.text(x + 0.46, row, label, size=7.5, va="center")


@style.figure
def chapter_map() -> Figure:
    """The chapters, what each needs, and the three reading paths as parallel lines."""
    fig, axes = style.canvas("text", HEIGHT)
    fig.set_layout_engine("none")
    axes.set_position((0, 0, 1, 1))
    axes.set(xlim=(0, style.WIDTHS["text"]), ylim=(0, HEIGHT))
    axes.axis("off")
    for need, chapter in edges():
        draw_edge(axes, need, chapter)
    for chapter in CHAPTERS:
        draw_chapter(axes, chapter)
    draw_key(axes)
    return fig
