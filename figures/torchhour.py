"""Figures of the appendix PyTorch in an hour: strides over memory, and the graph of autograd."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle

from figures import style

STRIDED = ((5, 8, 2), (7, 1, 6))  # the values differ from their addresses, 0 to 5
HELD = "#FBE5BF"  # the token color mixed with white: memory that the view can reach


def _bare(ax: Axes, x: tuple[float, float], y: tuple[float, float]) -> None:
    """Turn axes into paper with the given limits."""
    ax.set(xlim=x, ylim=y)
    ax.set_axis_off()


def _box(ax: Axes, x: float, y: float, text: str, fill: str) -> None:
    """A cell of memory or of a tensor; ``(x, y)`` is its lower left corner."""
    ax.add_patch(Rectangle((x, y), 1, 1, fc=fill, ec=style.INK, lw=0.7))
    ax.text(x + 0.5, y + 0.47, text, ha="center", va="center_baseline")


def _jump(ax: Axes, start: int, stride: int, dashes: Any) -> None:
    """An arc over the memory from one address to the one a stride further on."""
    end, bend = start + stride, -0.75 if stride > 1 else -0.9
    ax.add_patch(
        FancyArrowPatch(
            (start + 0.5, 5.75), (end + 0.5, 5.75), arrowstyle="-|>", mutation_scale=6, lw=1.0,
            ls=dashes, color=style.INK, connectionstyle=f"arc3,rad={bend}", shrinkA=0, shrinkB=0,
        )
    )  # fmt: skip
    place = (end + 0.95, 6.1) if stride == 1 else (start + stride / 2 + 0.5, 7.3)
    ax.text(*place, f"+{stride}", ha="center", va="center", fontsize=7.5)


def _addresses(view: Any) -> list[list[int]]:
    """The address of each entry of a view of one or two dimensions, row by row."""
    strides, offset = view.stride(), view.storage_offset()
    if view.ndim == 1:
        return [[offset + i * strides[0] for i in range(view.shape[0])]]
    rows, columns = view.shape
    return [[offset + i * strides[0] + j * strides[1] for j in range(columns)] for i in range(rows)]


def _panel(ax: Axes, name: str, view: Any, memory: list[int]) -> None:
    """The memory, the jumps over it, and the tensor that they make of it."""
    _bare(ax, (-0.1, 6.7), (-0.4, 8.4))
    ax.text(0, 8.1, name, family="DejaVu Sans Mono", fontsize=8.5, fontweight="bold", va="center")
    addresses = _addresses(view)
    reached = {address for row in addresses for address in row}
    for address, number in enumerate(memory):
        _box(ax, address, 4.2, str(number), HELD if address in reached else style.PAPER)
        ax.text(address + 0.5, 5.42, str(address), ha="center", va="center", fontsize=6.5,
                color=style.GRAY)  # fmt: skip
    first, strides = view.storage_offset(), view.stride()
    if view.ndim == 2:
        _jump(ax, first, strides[0], "-")
    _jump(ax, first, strides[-1], (0, (3, 1.5)))
    for i, row in enumerate(addresses):
        for j, address in enumerate(row):
            _box(ax, j, 2.0 - i, str(memory[address]), HELD)
    facts = f"shape {tuple(view.shape)}\nstrides {tuple(strides)}\noffset {first}"
    ax.text(len(addresses[0]) + 0.35, 3.0, facts, va="top", fontsize=7.5, linespacing=1.45)


@style.figure
def strides() -> Figure:
    """One row of memory, and three tensors that are ways to walk over it."""
    import torch

    x = torch.tensor(STRIDED)
    views = {"x": x, "x.T": x.T, "x[:, 1]": x[:, 1]}
    fig, axes = style.canvas("text", 2.15, columns=len(views))
    for ax, (name, view) in zip(axes, views.items(), strict=True):
        _panel(ax, name, view, x.flatten().tolist())
    return fig


# --- the graph ----------------------------------------------------------------------------------

PLACES = {
    "x": (0.0, 2.9), "w": (0.0, 1.0), "b": (4.5, -0.95), "y": (4.5, 2.9),
    "product": (2.25, 1.0), "prediction": (4.5, 1.0), "error": (6.75, 1.0), "loss": (9.4, 1.0),
}  # fmt: skip
MADE_BY = {"product": "w × x", "prediction": "product + b", "error": "prediction − y",
           "loss": "error²"}  # fmt: skip
EDGES = (
    ("x", "product", ""), ("w", "product", "× x"), ("product", "prediction", "× 1"),
    ("b", "prediction", "× 1"), ("prediction", "error", "× 1"), ("y", "error", ""),
    ("error", "loss", "× 2 error"),
)  # fmt: skip
HALF_WIDTH, HALF_HEIGHT = 0.72, 0.6
BACK = "#9C3D73"  # the gradient color, dark enough for text


def _node(ax: Axes, name: str, value: float, slope: float | None) -> None:
    """A number of the computation: how it came about, its value, the slope of the loss in it."""
    x, y = PLACES[name]
    leaf = name not in MADE_BY
    ax.add_patch(
        FancyBboxPatch(
            (x - HALF_WIDTH, y - HALF_HEIGHT), 2 * HALF_WIDTH, 2 * HALF_HEIGHT,
            boxstyle="round,pad=0,rounding_size=0.12", fc=style.PALE if leaf else style.PAPER,
            ec=style.INK, lw=1.4 if leaf and slope is not None else 0.7,
        )
    )  # fmt: skip
    ax.text(x, y + 0.36, MADE_BY.get(name, name), ha="center", va="center", fontsize=7.5)
    ax.text(x, y, f"{value:g}", ha="center", va="center", fontsize=9, fontweight="bold")
    below = "no slope" if slope is None else f"slope {slope:g}"
    ax.text(x, y - 0.37, below, ha="center", va="center", fontsize=7.5,
            color=style.GRAY if slope is None else BACK)  # fmt: skip


def _arrow(
    ax: Axes, start: tuple[float, float], end: tuple[float, float], color: str, dashes: Any
) -> None:
    ax.add_patch(
        FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=7, lw=1.0, ls=dashes,
                        color=color, shrinkA=1, shrinkB=1)
    )  # fmt: skip


def _edge(ax: Axes, start: str, end: str, factor: str) -> None:
    """The way forward as a line; where a slope comes back, a broken line with its factor."""
    (x0, y0), (x1, y1) = PLACES[start], PLACES[end]
    if x0 == x1:  # from below
        begin, stop, aside = (x0, y0 + HALF_HEIGHT), (x1, y1 - HALF_HEIGHT), (-0.13, 0.0)
    elif y0 == y1:
        begin, stop, aside = (x0 + HALF_WIDTH, y0), (x1 - HALF_WIDTH, y1), (0.0, 0.13)
    else:
        begin, stop, aside = (x0 + 0.35, y0 - HALF_HEIGHT), (x1 - 0.35, y1 + HALF_HEIGHT), (0, 0)
    ahead = [(x + aside[0], y + aside[1]) for x, y in (begin, stop)]
    _arrow(ax, ahead[0], ahead[1], style.INK, "-")
    if not factor:
        return
    back = [(x - aside[0], y - aside[1]) for x, y in (stop, begin)]
    _arrow(ax, back[0], back[1], style.COLORS["gradient"], (0, (3, 1.5)))
    x, y = (begin[0] + stop[0]) / 2, (begin[1] + stop[1]) / 2
    place = (x + 0.42, y) if x0 == x1 else (x, y - 0.38)
    ax.text(*place, factor, ha="center", va="center", fontsize=7.5, color=BACK)


@style.figure
def graph(values: Mapping[str, float], slopes: Mapping[str, float]) -> Figure:
    """The graph of (w x + b - y)²: each number, and what a change of it does to the loss."""
    fig, ax = style.canvas("text", 2.4)
    _bare(ax, (-0.78, 10.18), (-1.56, 3.56))
    for start, end, factor in EDGES:
        _edge(ax, start, end, factor)
    for name in PLACES:
        _node(ax, name, values[name], slopes.get(name))
    return fig
