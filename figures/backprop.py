"""Figures of the appendix Backpropagation by hand: a computation graph, errors of differences."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, Rectangle

from figures import style

PLACES = {"x": (0.0, 1.7), "w": (0.0, 0.0), "u": (2.9, 1.7), "s": (5.8, 0.85), "L": (8.7, 0.85)}
FORMULAS = {"x": "$x$", "w": "$w$", "u": "$u = w\\,x$", "s": "$s = u + w$",
            "L": "$\\mathcal{L} = s^2$"}  # fmt: skip
WIDTH, HEIGHT = 1.35, 0.42  # of one half of a node's box


def _tint(color: str, strength: float = 0.3) -> str:
    """A color mixed with white, for fills under black text."""
    channels = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
    return "#" + "".join(f"{round(255 - strength * (255 - c)):02X}" for c in channels)


def _node(ax: Axes, name: str, node: Any) -> None:
    """A box: the value above, the gradient below; the formula over it."""
    x, y = PLACES[name]
    halves = ((y, style.PAPER, node.value), (y - HEIGHT, _tint(style.COLORS["gradient"], 0.45),
                                             node.grad))  # fmt: skip
    for bottom, fill, number in halves:
        ax.add_patch(Rectangle((x, bottom), WIDTH, HEIGHT, fc=fill, ec=style.INK, lw=0.8))
        ax.text(x + WIDTH / 2, bottom + HEIGHT / 2, f"{number:g}", ha="center",
                va="center_baseline", fontsize=8.5)  # fmt: skip
    ax.text(x + WIDTH / 2, y + HEIGHT + 0.12, FORMULAS[name], ha="center", va="bottom", fontsize=9)


def _edge(ax: Axes, parent: str, child: str, slope: float) -> None:
    """An arrow from a node to the one made from it, with the slope on it."""
    (x0, y0), (x1, y1) = PLACES[parent], PLACES[child]
    start, end = (x0 + WIDTH + 0.06, y0), (x1 - 0.06, y1)
    ax.add_patch(FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=8, lw=1.0,
                                 color=style.GRAY, shrinkA=0, shrinkB=0))  # fmt: skip
    middle = (start[0] + end[0]) / 2, (start[1] + end[1]) / 2
    ax.text(*middle, f"×{slope:g}", ha="center", va="center", fontsize=8,
            bbox={"fc": style.PAPER, "ec": "none", "pad": 1.0})  # fmt: skip


@style.figure
def expression(nodes: Mapping[str, Any]) -> Figure:
    """The graph of (w x + w)², drawn from nodes with ``value``, ``grad`` and ``parents``."""
    fig, ax = style.canvas("text", 1.75)
    ax.set(xlim=(-0.2, 11.0), ylim=(-0.55, 2.6))
    ax.set_axis_off()
    names = {id(node): name for name, node in nodes.items()}
    for name, node in nodes.items():
        _node(ax, name, node)
        for parent, slope in node.parents:
            _edge(ax, names[id(parent)], name, slope)
    x, y = PLACES["L"]
    for height, text in ((y + HEIGHT / 2, "value"), (y - HEIGHT / 2, "gradient")):
        ax.text(x + WIDTH + 0.08, height, text, va="center_baseline", fontsize=7, color=style.GRAY)
    return fig


@style.figure
def steps(h: Sequence[float], errors: Mapping[str, Sequence[float]]) -> Figure:
    """Relative error of finite differences by step size, and the two slopes of the central one."""
    fig, ax = style.canvas("text", 2.6)
    for row, (name, error) in enumerate(errors.items()):
        ax.plot(h, error, marker="os^"[row], ls=style.LINES[row], color=style.SEQUENCE[row],
                label=name)  # fmt: skip
    central, lowest = errors["central"], min(errors["central"]) / 5
    left = [(step, error) for step, error in zip(h, central, strict=True) if step < 1e-8]
    rounding = math.exp(sum(math.log(step * error) for step, error in left) / len(left))
    truncation = central[3] / h[3] ** 2
    for line in ([truncation * step**2 for step in h], [rounding / step for step in h]):
        kept = [(step, error) for step, error in zip(h, line, strict=True) if error > lowest]
        ax.plot(*zip(*kept, strict=True), ls=(0, (1, 2)), color=style.INK, lw=1.0, zorder=0)
    ax.set(xscale="log", yscale="log", xlabel="step size $h$", ylabel="relative error",
           ylim=(lowest / 2, 30))  # fmt: skip
    ax.legend(loc="lower right")
    return fig
