"""Figures of chapter 5, Pretraining: losses and floors, optimizers, schedules, number formats."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures import style

STEEPNESS = (1.0, 100.0)  # of the chapter's bowl, sideways and upward
CONTOUR = "#C3C8D0"


def _tint(color: str, strength: float = 0.3) -> str:
    """A color mixed with white, for fills under black text."""
    channels = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
    return "#" + "".join(f"{round(255 - strength * (255 - c)):02X}" for c in channels)


def _shown(token: str) -> str:
    return token.replace(" ", "·").replace("\n", "\\n")


# --- the loss -----------------------------------------------------------------------------------


@style.figure
def token_losses(
    tokens: Sequence[str], truth: Sequence[float], rival: Sequence[float], n_named: int = 14
) -> Figure:
    """What the truth pays for each token of a story, its mean, and that of a rival."""
    fig, ax = style.canvas("text", 2.6)
    places = range(len(tokens))
    ax.bar(places, truth, 1.0, color=style.COLORS["token"], lw=0)
    top = 1.42 * max(truth)
    _name_highest(ax, tokens, truth, n_named, top)
    for name, values, dashes in (("the story's floor", truth, "-"), ("the rival", rival, "--")):
        mean = sum(values) / len(values)
        ax.axhline(mean, color=style.COLORS["floor"], lw=0.9, ls=dashes, label=f"mean of {name}"
                   if name == "the rival" else f"{name}, the mean of the bars")  # fmt: skip
    ax.set(xlabel="token of the story", ylabel="nats", xlim=(-1, len(tokens)), ylim=(0, top))
    ax.legend(loc="upper right", ncols=2)
    return fig


def _name_highest(
    ax: Axes, tokens: Sequence[str], heights: Sequence[float], n: int, top: float
) -> None:
    """Write the tokens of the highest bars above them, where two would not touch."""
    taken: list[int] = []
    for place in sorted(range(len(tokens)), key=lambda t: -heights[t]):
        if len(taken) < n and all(abs(place - other) > len(tokens) / 60 for other in taken):
            taken.append(place)
            ax.text(place, heights[place] + 0.015 * top, _shown(tokens[place]), rotation=90,
                    ha="center", va="bottom", fontsize=6.5, family="DejaVu Sans Mono")  # fmt: skip


# --- optimizers ---------------------------------------------------------------------------------


@style.figure
def optimizer_paths(paths: Mapping[str, Sequence[Sequence[float]]]) -> Figure:
    """The points that four optimizers visit in the bowl of the chapter, over its contours."""
    fig, axes = style.canvas("text", 3.3, rows=2, columns=2, sharex=True, sharey=True)
    for ax, (name, path) in zip(axes.flat, paths.items(), strict=True):
        _contours(ax)
        xs, ys = zip(*path, strict=True)
        ax.plot(xs, ys, "-", color=style.COLORS["gradient"], lw=0.9, zorder=3)
        ax.plot(xs, ys, "o", ms=2.2, mfc=style.PAPER, mec=style.INK, mew=0.5, zorder=4)
        ax.plot(xs[0], ys[0], "o", ms=4.5, color=style.INK, zorder=5)
        ax.plot(0, 0, "+", ms=7, color=style.INK, zorder=5)
        ax.set_title(name)
        ax.set(xlim=(-4.5, 4.1), ylim=(-1.5, 1.5))
    for ax in axes[1]:
        ax.set_xlabel("$w_1$")
    for ax in axes[:, 0]:
        ax.set_ylabel("$w_2$")
    return fig


def _contours(ax: Axes, levels: Sequence[float] = (1, 4, 9, 18, 32, 52, 80)) -> None:
    """Ellipses on which the bowl has the same height."""
    angles = [2 * math.pi * i / 200 for i in range(201)]
    for height in levels:
        wide, tall = (math.sqrt(2 * height / steep) for steep in STEEPNESS)
        ax.plot([wide * math.cos(a) for a in angles], [tall * math.sin(a) for a in angles],
                color=CONTOUR, lw=0.7, zorder=1)  # fmt: skip


# --- the learning rate --------------------------------------------------------------------------


def _smooth(values: Sequence[float], width: int = 5) -> list[float]:
    """Means over a few neighbors to both sides."""
    parts = [values[max(0, i - width // 2) : i + width // 2 + 1] for i in range(len(values))]
    return [sum(part) / len(part) for part in parts]


@style.figure
def range_test(rates: Sequence[float], losses: Sequence[float]) -> Figure:
    """Loss against a learning rate that grows at every step."""
    fig, ax = style.canvas("narrow", 2.4)
    lowest = rates[min(range(len(losses)), key=losses.__getitem__)]
    ax.axvspan(lowest / 10, lowest / 3, color=_tint(style.COLORS["good"], 0.25), lw=0)
    ax.plot(rates, losses, ".", ms=2.5, color=style.GRAY)
    ax.plot(rates, _smooth(losses), color=style.COLORS["train"])
    ax.set_xscale("log")
    ax.set(xlabel="learning rate", ylabel="loss (nats a token)", xlim=(rates[0], rates[-1]))
    ax.set_ylim(min(losses) - 0.4, max(losses[0], min(losses)) + 1.2)
    return fig


@style.figure
def schedules(curves: Mapping[str, Sequence[float]]) -> Figure:
    """Learning rate by step under several schedules."""
    fig, ax = style.canvas("text", 2.1)
    for row, (name, rates) in enumerate(curves.items()):
        ax.plot(range(1, len(rates) + 1), rates, ls=style.LINES[row], color=style.SEQUENCE[row],
                label=name)  # fmt: skip
    highest = max(max(rates) for rates in curves.values())
    ax.set(xlabel="step", ylabel="learning rate", ylim=(0, 1.08 * highest))
    ax.set_xlim(0, len(rates))
    ax.legend(loc="lower center")
    return fig


# --- number formats -----------------------------------------------------------------------------


@style.figure
def bf16_grid(sizes: Sequence[float], spacings: Mapping[str, Sequence[float]], lr: float) -> Figure:
    """Distance to the next number by size, for several formats, and twice a step."""
    fig, ax = style.canvas("text", 2.5)
    looks: dict[str, dict[str, Any]] = {
        "bfloat16": {"color": style.COLORS["bad"], "ls": "-"},
        "float16": {"color": style.GRAY, "ls": "-."},
        "float32": {"color": style.COLORS["good"], "ls": "--"},
    }
    for name, distances in spacings.items():
        ax.plot(sizes, distances, **looks[name])
        ax.text(1.08 * sizes[-1], distances[-1], name, va="center", fontsize=8)
    ax.axhline(2 * lr, color=style.INK, lw=0.9, ls=":")
    ax.text(1.1 * sizes[0], 2.5 * lr, f"twice a step of {lr:g}", va="bottom", fontsize=8)
    ax.set(xscale="log", yscale="log", xlabel="size of the weight", ylabel="to the next number",
           xlim=(sizes[0], sizes[-1]))  # fmt: skip
    return fig
