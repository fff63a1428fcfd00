"""Figures of the story program: its beats as a graph, and what a perfect model pays."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Rectangle

from figures import style
from figures.beats import Graph, Visit, example, follow, graph
from llm_core.stories import episodes, scenes
from llm_core.stories.engine import Beat

MONO = "DejaVu Sans Mono"
LIT = style.COLORS["token"]  # the path of one story

Point = tuple[float, float]


# --- the graph as a drawing ---------------------------------------------------------------------

ROW, LIT_ROW, TOP, BOTTOM = 0.27, 0.95, 0.86, 0.66  # inches
BUS, LABEL, FIRST, LAST, OUT, BACK = 0.08, 0.17, 1.0, 4.65, 5.05, 5.3  # inches from the left
ENDING = {
    frozenset({"happy"}): ("^", style.COLORS["good"], "ends well"),
    frozenset({"sad"}): ("v", style.COLORS["bad"], "ends badly"),
    frozenset({"happy", "sad"}): ("D", style.INK, "ends well or badly"),
}


def _depths(found: Graph, name: str) -> dict[Beat, int]:
    """How many beats after a plot's first one each stands at least; what waits stands last."""
    beats, first = found.beats[name], episodes.PLOTS[name].first
    late = {after for _, after in found.waits}
    depth, front = {first: 0}, [first]
    while front:
        beat = front.pop(0)
        for before, after in found.edges:
            if before in late or after in late:
                continue
            if before is beat and after in beats and after not in depth:
                depth[after] = depth[beat] + 1
                front.append(after)
    most = max(depth.values())
    return {beat: depth.get(beat, most + 1 + (beat not in late)) for beat in beats}


def _seats(name: str, found: Graph, y: float, height: float, columns: int) -> dict[Beat, Point]:
    """Where the beats of a plot stand: columns by depth, side by side where they share one."""
    beats = found.beats[name]
    depth = _depths(found, name)
    pitch = (LAST - FIRST) / (columns - 1)
    seats = {}
    for level in sorted(set(depth.values())):
        here = [beat for beat in beats if depth[beat] == level]
        for i, beat in enumerate(here):
            offset = (i - (len(here) - 1) / 2) * min(0.34 * height, 0.9 * height / len(here))
            seats[beat] = FIRST + pitch * level, y - offset
    return seats


def _line(
    ax: Axes, points: Sequence[Point], lit: bool = False, head: bool = False, ls: str = "-"
) -> None:
    """Straight pieces, thin and gray or broad and lit, with an arrow head at the end if asked."""
    x, y = zip(*points, strict=True)
    color, width = (LIT, 2.4) if lit else (style.GRAY, 0.6)
    ax.plot(x, y, ls, color=color, lw=width, zorder=2 + lit, solid_capstyle="round")
    if head:
        (x0, y0), (x1, y1) = points[-2:]
        marker = (">" if x1 > x0 else "<") if abs(x1 - x0) > abs(y1 - y0) else "^v"[y1 < y0]
        ax.plot(x1, y1, marker, ms=4, color=color if lit else style.GRAY, zorder=4, mew=0)


def _scene(ax: Axes, beat: Beat, seat: Point, lit: bool) -> None:
    """A beat outside the plots: a box with its name."""
    width, height = 0.085 * len(beat.__name__) * 0.78 + 0.16, 0.21
    ax.add_patch(
        FancyBboxPatch(
            (seat[0] - width / 2, seat[1] - height / 2), width, height, zorder=5,
            boxstyle="round,pad=0,rounding_size=0.05", fc=style.INK if lit else style.PAPER,
            ec=style.INK, lw=0.7,
        )
    )  # fmt: skip
    ink = style.PAPER if lit else style.INK
    ax.text(*seat, beat.__name__, size=7, color=ink, ha="center", va="center_baseline", zorder=6)


def _beat(ax: Axes, seat: Point, endings: set[str] | None, lit: bool) -> None:
    """A beat of a plot: a dot, or a sign for how the episode ends there."""
    marker, color, _ = ENDING[frozenset(endings)] if endings else ("o", style.INK, "")
    face = color if endings else style.PAPER
    size = (5.0 if endings else 4.5) + 1.5 * lit
    ax.plot(*seat, marker, ms=size, mfc=face, mec=color, mew=0.8, zorder=6)


def _odds(ax: Axes, point: Point, odds: Sequence[float]) -> None:
    """The probability of what was decided, on a path."""
    p = math.prod(odds)
    if odds:
        frame = {"boxstyle": "round,pad=0.12", "fc": style.PAPER, "ec": "none"}
        label = f"{p:.3f}" if p < 0.1 else f"{p:.2f}"
        ax.text(*point, label, size=6.5, ha="center", va="center_baseline", zorder=7, bbox=frame,
                fontweight="bold")  # fmt: skip


def _middle(a: Point, b: Point, shift: float = 0.0) -> Point:
    return (a[0] + b[0]) / 2, (a[1] + b[1]) / 2 + shift


def _draw_plot(
    ax: Axes, name: str, found: Graph, seats: Mapping[Beat, Point], y: float, path: Sequence[Visit]
) -> None:
    """One row: its name, its beats and the ways between them; the path's names and odds."""
    taken = [visit for visit in path if visit.plot == name]
    steps = {(visit.beat, visit.following) for visit in taken}
    ax.text(LABEL, y, name, size=7.5, va="center_baseline", weight="bold" if taken else "normal")
    first = seats[episodes.PLOTS[name].first]
    _line(ax, [(BUS, y), (LABEL - 0.03, y)])
    _line(ax, [(FIRST - 0.24, y), (first[0] - 0.07, first[1])], lit=bool(taken))
    for before, after in found.edges:
        if before in seats and after in seats and (before, after) not in found.waits:
            lit = (before, after) in steps
            if before is after:
                _loop(ax, seats[before], lit)
            else:
                _line(ax, [seats[before], seats[after]], lit)
    for before, after in found.waits & {(a, b) for a in seats for b in seats}:
        _line(ax, [seats[before], seats[after]], ls=":")
    x = max(seat[0] for seat in seats.values())
    if not taken:
        _line(ax, [(x + 0.08, y), (OUT, y)])
    lit_beats = {visit.beat for visit in taken}
    for beat, seat in seats.items():
        _beat(ax, seat, found.endings.get(beat), beat in lit_beats)
        if taken:
            low = seat[1] < y - 0.05
            ax.text(seat[0], seat[1] + (-0.1 if low else 0.1), beat.__name__.replace("_", " "),
                    size=6.5, ha="center", va="top" if low else "bottom", zorder=7)  # fmt: skip


def _loop(ax: Axes, seat: Point, lit: bool) -> None:
    """A beat that follows itself: a ring below it."""
    angle = np.linspace(0, 2 * math.pi, 30)
    radius = 0.09 if lit else 0.05
    x, y = seat[0] + radius * np.sin(angle), seat[1] - radius + radius * np.cos(angle)
    ax.plot(x, y, color=LIT if lit else style.GRAY, lw=2.4 if lit else 0.6, zorder=2 + lit)


def _draw_opening(
    ax: Axes, rows: Mapping[str, float], height: float, path: Sequence[Visit]
) -> dict[Beat, Point]:
    """The scenes above the plots and the line that leads from them into each row."""
    top, low = height - 0.16, min(rows.values())
    end = height - TOP + 0.12
    at = {
        scenes.story: (0.95, top), scenes.treasure: (2.15, top - 0.26),
        scenes.setting_out: (3.35, top), scenes.begin: (4.55, top),
    }  # fmt: skip
    steps = {(visit.beat, visit.following): visit for visit in path}
    for before, after in (
        (scenes.story, scenes.setting_out), (scenes.story, scenes.treasure),
        (scenes.treasure, scenes.setting_out), (scenes.setting_out, scenes.begin),
    ):  # fmt: skip
        lit = (before, after) in steps
        _line(ax, [at[before], at[after]], lit)
        if lit:
            _odds(ax, _middle(at[before], at[after]), steps[before, after].odds)
    x = at[scenes.begin][0]
    lit_row = rows[next(visit.plot for visit in path if visit.plot)]
    _line(ax, [(x, top), (x, end), (BUS, end), (BUS, low)])
    _line(ax, [(x, top), (x, end), (BUS, end), (BUS, lit_row), (LABEL - 0.03, lit_row)], True)
    _odds(ax, (1.2, end), next(visit.odds for visit in path if visit.beat is scenes.begin))
    return at


def _draw_ends(
    ax: Axes, rows: Mapping[str, float], height: float, path: Sequence[Visit], last: Sequence[Beat]
) -> dict[Beat, Point]:
    """The scenes below the plots, ``last`` after the closing, and the line that leads to them."""
    y, out, top = 0.26, 0.46, height - 0.16
    closing, onward = (3.85, y), (4.62, y)
    at = {scenes.onward: onward, scenes.closing: closing}
    at |= {beat: (closing[0] - 0.92 * k, y) for k, beat in enumerate(last, start=1)}
    _line(ax, [(OUT, max(rows.values())), (OUT, out), (closing[0], out)])
    for x, _ in (onward, closing):
        _line(ax, [(x, out), (x, y + 0.14)], head=True)
    _line(ax, [onward, (BACK, y), (BACK, top), (4.81, top)], head=True)
    lit_row = rows[next(visit.plot for visit in path if visit.plot)]
    arrival = [(OUT, out), (closing[0], out), (closing[0], y + 0.14)]
    _line(ax, [(LAST + 0.12, lit_row), (OUT, lit_row), *arrival], True, head=True)
    for visit in path:
        if visit.following is scenes.closing:
            _odds(ax, (OUT, 0.75), visit.odds)
        elif visit.beat is scenes.closing or visit.beat in last:
            x, _ = at[visit.beat]
            to = at[visit.following][0] if visit.following else x - 0.72
            _line(ax, [(x, y), (to, y)], True, head=visit.following is None)
            _odds(ax, ((x + to) / 2 - 0.14, y), visit.odds)
    return at


def _draw_frame(ax: Axes, rows: Mapping[str, float], height: float, path: Sequence[Visit]) -> None:
    """What stands above and below the plots."""
    at = _draw_opening(ax, rows, height, path)
    last = [beat for beat in graph().beats[""] if beat not in {*at, scenes.onward, scenes.closing}]
    at |= _draw_ends(ax, rows, height, path, last)
    lit_beats = {visit.beat for visit in path}
    for beat, seat in at.items():
        _scene(ax, beat, seat, beat in lit_beats)


def _draw_odds(ax: Axes, seats: Mapping[Beat, Point], path: Sequence[Visit]) -> None:
    """The odds along the path inside its plot; several times round a loop are one product."""
    odds: dict[tuple[Beat, Beat], list[float]] = {}
    for visit in path:
        if visit.beat in seats and visit.following in seats:
            odds.setdefault((visit.beat, visit.following), []).extend(visit.odds)
    for (before, after), chances in odds.items():
        if before is after:
            x, y = seats[before]
            _odds(ax, (x, y - 0.27), chances)
        else:
            _odds(ax, _middle(seats[before], seats[after]), chances)


def _draw_key(ax: Axes, path: Sequence[Visit]) -> None:
    """The sums of the path, and what the signs mean."""
    decisions = -sum(math.log(p) for visit in path for p in visit.odds)
    total = sum(visit.nats for visit in path)
    lines = (
        f"decisions {decisions:6.1f} nats",
        f"words     {total - decisions:6.1f} nats",
        f"together  {total:6.1f} nats",
    )
    for i, line in enumerate(lines):
        ax.text(LABEL, 0.5 - 0.15 * i, line, size=6.5, family=MONO, va="center_baseline")
    for i, (marker, color, label) in enumerate(ENDING.values()):
        x, y = 1.42, 0.5 - 0.15 * i
        ax.plot(x, y + 0.02, marker, ms=5, color=color, mew=0)
        ax.text(x + 0.09, y, label, size=6, va="center_baseline")


@style.figure
def story_graph() -> Figure:
    """All beats of the program, grouped; the path of the example with the odds of its decisions."""
    found, path = graph(), follow(example())
    names = list(episodes.PLOTS)
    taken = {visit.plot for visit in path if visit.plot}
    heights = {name: LIT_ROW if name in taken else ROW for name in names}
    # (fsum: since Python 3.12 sum rounds in another way, and names in the file hang on last digits)
    height = math.fsum((TOP, *heights.values(), BOTTOM))
    fig, ax = style.canvas("text", height)
    fig.set_layout_engine("none")
    ax.set_position((0, 0, 1, 1))
    ax.set(xlim=(0, style.WIDTHS["text"]), ylim=(0, height))
    ax.axis("off")
    columns = 1 + max(max(_depths(found, name).values()) for name in names)
    rows, y = {}, height - TOP
    for name in names:
        rows[name] = y - heights[name] / 2
        y -= heights[name]
    _draw_frame(ax, rows, height, path)
    for name in names:
        seats = _seats(name, found, rows[name], heights[name], columns)
        _draw_plot(ax, name, found, seats, rows[name], path)
        if name in taken:
            _draw_odds(ax, seats, path)
            exits = [v.beat for v in path if v.beat in seats and v.following not in seats]
            for beat in exits:
                _line(ax, [seats[beat], (LAST + 0.12, rows[name])], lit=True)
    _draw_key(ax, path)
    return fig


# --- statistics ---------------------------------------------------------------------------------


@style.figure
def lengths(words: Sequence[int], tokens: Sequence[int], by_episodes: Sequence[int]) -> Figure:
    """Two histograms: stories by words and by tokens, stacked by the number of episodes."""
    fig, axes = style.canvas("text", 2.4, columns=2, sharey=True)
    kinds = sorted(set(by_episodes))
    shades = ["#C9D0DB", "#98A3B5", style.GRAY, style.INK][-len(kinds) :]
    for ax, values, label in zip(axes, (words, tokens), ("words", "tokens"), strict=True):
        groups = [
            [v for v, n in zip(values, by_episodes, strict=True) if n == kind] for kind in kinds
        ]
        ax.hist(
            groups, bins=40, stacked=True, color=shades, rwidth=1.0,
            label=[f"{kind} episode{'s' * (kind > 1)}" for kind in kinds],
        )  # fmt: skip
        mean = float(np.mean(values))
        ax.axvline(mean, color=style.COLORS["limit"], ls="--", lw=1)
        ax.annotate(f" mean {mean:.0f}", (mean, 0.93), xycoords=("data", "axes fraction"), size=7.5)
        ax.set_xlabel(f"{label} in a story")
    axes[0].set_ylabel("stories")
    fig.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=len(kinds))
    return fig


@style.figure
def token_losses(pieces: Sequence[str], losses: Sequence[float], columns: int = 74) -> Figure:
    """A story with each token shaded by the nats that a perfect model pays for it."""
    most = 6.0
    seats, x, y = [], 0.0, 0
    for piece in pieces:
        shown = piece.replace("\n", "↵")
        if x + len(shown.rstrip()) > columns:
            x, y = 0.0, y + 1
        seats.append((x, y, shown))
        x += len(shown)
        if "\n" in piece:
            x, y = 0.0, y + 1
    fig, ax = style.canvas("text", 0.175 * (y + 3.2))
    fig.set_layout_engine("none")
    ax.set_position((0, 0, 1, 1))
    ax.set(xlim=(-0.5, columns + 0.5), ylim=(y + 3.0, -0.2))
    ax.axis("off")
    for (left, row, shown), nats in zip(seats, losses, strict=True):
        _shaded(ax, left, row, shown, nats / most)
    ax.text(0, y + 2.4, "nats", size=7, va="center")
    for i in range(int(most) + 1):
        label = f"{i}" if i < most else f"{i} or more"
        _shaded(ax, 5 + 5 * i, y + 1.9, label.center(4), i / most)
    return fig


def _shaded(ax: Axes, x: float, y: float, text: str, strength: float) -> None:
    """Text in the code font on a ground that is the darker the stronger."""
    strength = min(1.0, max(0.0, strength))
    channels = [int(LIT[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    face = tuple(1 - strength * (1 - c) for c in channels)
    ax.add_patch(Rectangle((x, y), len(text), 0.86, fc=face, ec=style.PALE, lw=0.4))
    ax.text(x, y + 0.47, text, size=8, family=MONO, va="center_baseline")


@style.figure
def next_token(tokens: Sequence[str], probabilities: Sequence[float], most: int = 14) -> Figure:
    """The likeliest next tokens as bars, and what is left to all others."""
    order = np.argsort(probabilities)[::-1][:most]
    shown = [(tokens[i].replace(" ", "·"), probabilities[i]) for i in order if probabilities[i] > 0]
    others = 1 - sum(p for _, p in shown)
    if others > 1e-9:
        n_others = sum(p > 0 for p in probabilities) - len(shown)
        shown.append((f"{n_others} others", others))
    fig, ax = style.canvas("narrow", 0.19 * len(shown) + 0.5)
    y = np.arange(len(shown))
    ax.barh(y, [p for _, p in shown], color=LIT, ec=style.INK, lw=0.4, height=0.75)
    ax.set_yticks(y, [token for token, _ in shown], family=MONO, size=7.5)
    for i, (_, p) in enumerate(shown):
        ax.text(p, i, f" {p:.1%}", va="center_baseline", size=7)
    ax.set_ylim(len(shown) - 0.4, -0.6)
    ax.set_xlim(0, 1.16 * max(p for _, p in shown))
    ax.set_xlabel("true probability")
    return fig
