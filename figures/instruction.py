"""Figures of chapter 7, Instruction tuning: the template, packed rows, skills, arms, judges."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from figures import style

Interval = tuple[float, float, float]  # low end, value, high end
TOKEN_SIZE = 7.4  # points
MOST = 12  # rows of packing that are drawn
FILL = {"control": "#B9C0CC", "user": style.PALE, "assistant": "#F6CF86"}


# --- the template -------------------------------------------------------------------------------


def _widths(fig: Figure, ax: Axes, tokens: Sequence[str]) -> list[float]:
    """The width of each token's box in the panel's units, 0 to 1."""
    renderer = FigureCanvasAgg(fig).get_renderer()
    across = ax.get_window_extent(renderer).width
    widths = []
    for token in tokens:
        drawn = ax.text(0, 0, token, fontsize=TOKEN_SIZE, family="DejaVu Sans Mono")
        widths.append(drawn.get_window_extent(renderer).width / across + 0.014)
        drawn.remove()
    return widths


@style.figure
def template(tokens: Sequence[str], mask: Sequence[int], control: Sequence[bool]) -> Figure:
    """A conversation as boxes, one a token; what is learned is colored and marked by a 1 below."""
    fig, ax = style.canvas("text", 1.9)
    ax.axis("off")
    ax.set(xlim=(0, 1), ylim=(0, 1))
    fig.draw_without_rendering()
    left, line, lines = 0.0, 0, []
    for width in _widths(fig, ax, tokens):
        if left + width > 1:
            left, line = 0.0, line + 1
        lines.append((left, line, width))
        left += width
    ax.set(ylim=(line + 1, 0))
    for (x, row, width), token, learned, special in zip(lines, tokens, mask, control, strict=True):
        fill = FILL["assistant" if learned else "control" if special else "user"]
        ax.add_patch(Rectangle((x, row + 0.08), width, 0.5, fc=fill, ec=style.INK, lw=0.6))
        ax.text(x + width / 2, row + 0.33, token, fontsize=TOKEN_SIZE, ha="center",
                va="center_baseline", family="DejaVu Sans Mono")  # fmt: skip
        ax.text(x + width / 2, row + 0.76, str(learned), fontsize=7, ha="center",
                va="center_baseline", weight="bold" if learned else "normal",
                color=style.INK if learned else style.GRAY)  # fmt: skip
    return fig


# --- packing ------------------------------------------------------------------------------------


def _bar(ax: Axes, row: int, parts: Sequence[tuple[int, int]], capacity: int) -> None:
    """One row: each conversation a box, its answered tokens a darker stretch at its right end."""
    left = 0
    for length, learned in parts:
        ax.barh(row, length, 0.72, left, color=style.PALE, ec=style.INK, lw=0.5)
        ax.barh(row, learned, 0.72, left + length - learned, color=style.COLORS["token"],
                ec=style.INK, lw=0.5)  # fmt: skip
        left += length
    ax.barh(row, capacity - left, 0.72, left, color=style.PAPER, ec=style.GRAY, lw=0.5,
            hatch="////")  # fmt: skip


@style.figure
def packed_rows(
    alone: Sequence[Sequence[tuple[int, int]]],
    packed: Sequence[Sequence[tuple[int, int]]],
    capacity: int,
) -> Figure:
    """Rows of (tokens, tokens learned) of conversations, one a row and packed."""
    fig, panels = style.canvas("text", 2.5, columns=2, sharey=True)
    titles = "a row each, padded", "packed"
    for ax, rows, title in zip(panels, (alone, packed), titles, strict=True):
        width = max(sum(length for length, _ in parts) for parts in rows)
        for number, parts in enumerate(rows[:MOST]):
            _bar(ax, number, parts, capacity if title == "packed" else width)
        shown = f"{title}: {min(MOST, len(rows))} of {len(rows)} rows"
        ax.set(title=shown, xlabel="token", xlim=(0, capacity), ylim=(MOST - 0.4, -0.6), yticks=[])
    panels[0].set_ylabel("row")
    fills = {"not learned": style.PALE, "answers": style.COLORS["token"]}
    hands = [Patch(fc=color, ec=style.INK, lw=0.5, label=name) for name, color in fills.items()]
    hands.append(Patch(fc=style.PAPER, ec=style.GRAY, hatch="////", lw=0.5, label="empty"))
    fig.legend(handles=hands, loc="outside lower center", ncols=3)
    return fig


# --- the run ------------------------------------------------------------------------------------


@style.figure
def skills(n_tokens: Sequence[float], shares: Mapping[str, Sequence[float]]) -> Figure:
    """Exact match by tokens seen, a small panel for each kind of question."""
    columns = 5
    rows = math.ceil(len(shares) / columns)
    fig, grid = style.canvas("text", 0.84 * rows + 0.35, rows, columns, sharex=True, sharey=True,
                             squeeze=False)  # fmt: skip
    panels = list(grid.flat)
    for ax, (kind, values) in zip(panels, shares.items(), strict=False):
        ax.fill_between(n_tokens, values, color=style.COLORS["position"], alpha=0.35, lw=0)
        ax.plot(n_tokens, values, color=style.COLORS["train"], lw=1.1)
        ax.text(0.04, 1.06, kind, fontsize=8, va="bottom", weight="bold" if kind == "all" else
                "normal", transform=ax.get_yaxis_transform())  # fmt: skip
        ax.set(ylim=(0, 1.02), yticks=[0, 1], xlim=(0, max(n_tokens)))
        ax.axhline(0.5, color=style.GRAY, lw=0.5, ls=":")
    for ax in panels[len(shares) :]:
        ax.remove()
    fig.supxlabel("million tokens seen", fontsize=8.5)
    fig.supylabel("share exactly right", fontsize=8.5)
    return fig


@style.figure
def exercises(losses: Sequence[float], ends: Mapping[str, int], every: int) -> Figure:
    """The loss of each step, and where each exercise ends, a name over its stretch.

    Each ``every``-th step of an exercise compares names instead; these steps have a line of their
    own.
    """
    fig, ax = style.canvas("text", 2.1)
    starts = [0, *ends.values()]
    within = [step - max(x for x in starts if x < step) for step in range(1, len(losses) + 1)]
    names = [step for step, place in enumerate(within, 1) if place % every == 0]
    others = [step for step, place in enumerate(within, 1) if place % every]
    looks = ((others, "train", "-", None), (names, "value", "--", "compared"))
    for steps, color, dashes, label in looks:
        ax.plot(steps, [losses[step - 1] for step in steps], color=style.COLORS[color],
                ls=dashes, lw=1.0, label=label)  # fmt: skip
    ax.set(xlim=(1, len(losses)), ylim=(0, None), xlabel="step", ylabel="nats a learned token")
    start = 0
    for name, end in ends.items():
        ax.text((start + end) / 2, 1.02, name, ha="center", fontsize=8,
                transform=ax.get_xaxis_transform())  # fmt: skip
        if end < len(losses):
            ax.axvline(end, color=style.GRAY, lw=0.8, ls=":")
        start = end
    ax.legend(loc="upper right")
    return fig


@style.figure
def before_after(
    shares: Mapping[str, Mapping[str, Interval]], baseline: Mapping[str, float]
) -> Figure:
    """For each kind the share with its interval, a mark for each set, and the baseline's."""
    kinds = list(next(iter(shares.values())))
    fig, ax = style.canvas("text", 0.165 * len(kinds) + 0.85)
    looks = (("o", "value"), ("s", "key"), ("^", "query"))
    for (name, found), (marker, color), off in zip(shares.items(), looks, (-0.17, 0.17, 0),
                                                   strict=False):  # fmt: skip
        for row, kind in enumerate(kinds):
            if kind not in found:
                continue
            low, value, high = found[kind]
            ax.plot((low, high), (row + off, row + off), color=style.COLORS[color], lw=1.0)
            ax.plot(value, row + off, marker, color=style.COLORS[color], ms=3.4,
                    label=None if row else name)  # fmt: skip
    rows = range(len(kinds))
    ax.plot([baseline[kind] for kind in kinds], rows, "|", color=style.COLORS["peer"], ms=8,
            mew=2, label="most frequent answer")  # fmt: skip
    ax.set(yticks=list(rows), yticklabels=kinds, ylim=(len(kinds) - 0.4, -0.6), xlim=(-0.02, 1.01),
           xlabel="share exactly right")  # fmt: skip
    ax.grid(axis="x")
    ax.set_axisbelow(True)
    fig.legend(loc="outside upper center", ncols=3)
    return fig


Curves = Sequence[tuple[Sequence[float], Sequence[float]]]


@style.figure
def arms(panels: Mapping[str, Mapping[str, Curves]]) -> Figure:
    """Exact match by millions of tokens seen; an arm has one color and dash, a seed one line."""
    fig, row = style.canvas("text", 3.4, columns=len(panels), sharey=True, squeeze=False)
    looks = list(zip((*style.SEQUENCE, style.INK, style.GRAY), (*style.LINES, "-", "--"),
                     ("o", "s", "^", "v", "D", "P", "X", "*"), strict=True))  # fmt: skip
    for ax, (title, runs) in zip(row[0], panels.items(), strict=True):
        if len(runs) > len(looks):
            raise ValueError(f"{len(runs)} arms have only {len(looks)} looks; draw fewer")
        for (arm, seeds), (color, dashes, marker) in zip(runs.items(), looks, strict=False):
            for number, (n_tokens, values) in enumerate(seeds):
                ax.plot(n_tokens, values, color=color, ls=dashes, lw=1.0, marker=marker, ms=2.6,
                        label=None if number else arm)  # fmt: skip
        ax.set(title=title, xlabel="million tokens seen", xlim=(0, None))
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2)
    row[0][0].set(ylabel="share exactly right", ylim=(0, None))
    return fig


# --- judging ------------------------------------------------------------------------------------


@style.figure
def judges(scores: Mapping[str, tuple[Sequence[float], Sequence[float]]]) -> Figure:
    """For each metric what it gives to right and to wrong answers, as shares of each group."""
    fig, panels = style.canvas("text", 2.0, columns=len(scores), sharey=True, squeeze=False)
    edges = [i / 10 for i in range(11)]
    for ax, (name, (right, wrong)) in zip(panels[0], scores.items(), strict=True):
        for values, color, hatch in ((wrong, "bad", None), (right, "good", "////")):
            weights = [1 / len(values)] * len(values) if len(values) else None
            ax.hist(values, bins=edges, weights=weights, color=style.COLORS[color], alpha=0.55,
                    hatch=hatch, ec=style.INK, lw=0.4)  # fmt: skip
        ax.axvline(0.5, color=style.INK, lw=0.8, ls="--")
        ax.set(title=name, xlabel="score", xlim=(0, 1), ylim=(0, 1.02))
    panels[0][0].set_ylabel("share of answers")
    hands = [
        Patch(fc=style.COLORS["bad"], alpha=0.55, ec=style.INK, lw=0.4, label="wrong answers"),
        Patch(fc=style.COLORS["good"], alpha=0.55, ec=style.INK, lw=0.4, hatch="////",
              label="right answers"),
    ]  # fmt: skip
    fig.legend(handles=hands, loc="outside lower center", ncols=2)
    return fig
