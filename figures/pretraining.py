"""Figures of chapter 5, Pretraining, from its run on: loss, ablation, errors, decoding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import LogLocator, NullFormatter

from figures import style

Curve = tuple[Sequence[float], Sequence[float]]
TEXT_SIZE = 7.6  # points, of a story's tokens
SHADE = 0.6  # the part of the color map on which text stays legible


def _smooth(values: Sequence[float]) -> list[float]:
    """Means over the last twentieth of the steps so far: the same width on a logarithmic axis."""
    means = []
    for end in range(1, len(values) + 1):
        recent = values[max(0, end - 1 - end // 20) : end]
        means.append(sum(recent) / len(recent))
    return means


def _named(ax: Axes, height: float, words: str, x: float, ha: str, va: str = "bottom") -> None:
    """A word on a level, at the left or right end of the panel."""
    ax.text(x, height, words, ha=ha, va=va, fontsize=7.5, transform=ax.get_yaxis_transform())


# --- the run ------------------------------------------------------------------------------------


@style.figure
def loss_and_floor(
    losses: Sequence[float],
    validation: Curve,
    gaps: Curve,
    levels: Mapping[str, float],
    marks: Sequence[int],
) -> Figure:
    """Training and validation loss above the levels that bound them; the gap to the floor."""
    fig, (left, right) = style.canvas("text", 2.7, columns=2, width_ratios=(3, 2))
    left.plot(range(1, len(losses) + 1), _smooth(losses), color=style.COLORS["train"], lw=1.0,
              label="training")  # fmt: skip
    left.plot(*validation, "o", color=style.COLORS["validation"], ms=2.6, label="unseen stories")
    for dashes, (name, level) in zip(style.LINES[1:], levels.items(), strict=False):
        left.axhline(level, color=style.COLORS["floor"], lw=0.9, ls=dashes)
        _named(left, level, name, 0.99, "right", "top" if name == "floor" else "bottom")
    left.set(ylim=(0, None), ylabel="loss (nats a token)", title="loss")
    left.legend(loc="lower left", bbox_to_anchor=(0, 0.12))
    right.plot(*gaps, "o-", color=style.COLORS["validation"], ms=2.6, lw=1.2)
    right.set(yscale="log", title="gap to the floor")
    for ax in (left, right):
        for mark in marks:
            ax.axvline(mark, color=style.GRAY, lw=0.6, ls=":", zorder=0)
        ax.set(xscale="log", xlabel="step", xlim=(1, 1.1 * len(losses)))
    return fig


# --- the ablation -------------------------------------------------------------------------------


Runs = Mapping[str, Sequence[tuple[Sequence[float], ...]]]


@style.figure
def plateau(arms: Runs) -> Figure:
    """Gap and names tracked by tokens read; an arm has one color, a seed one line."""
    return _by_tokens(arms)


@style.figure
def optimizers(arms: Runs) -> Figure:
    """The same for one run with either optimizer."""
    return _by_tokens(arms)


def _by_tokens(arms: Runs) -> Figure:
    fig, panels = style.canvas("text", 2.9, columns=2)
    colors, lines = (*style.SEQUENCE, style.INK), (*style.LINES, "-")
    for (arm, runs), color, line in zip(arms.items(), colors, lines, strict=False):
        look = {"color": color, "ls": line, "lw": 1.0}
        for number, (n_tokens, *curves) in enumerate(runs):
            for ax, values in zip(panels, curves, strict=True):
                label = None if number else arm
                ax.plot([n / 1e6 for n in n_tokens], values, label=label, **look)
    left, right = panels
    left.set(title="gap to the floor (nats a token)", yscale="log")
    left.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    left.yaxis.set_major_formatter("{x:g}")
    left.yaxis.set_minor_formatter(NullFormatter())
    right.set(title="share of settled names tracked", ylim=(-0.02, 1))
    right.legend(loc="upper left")
    for ax in panels:
        ax.set(xlabel="million tokens read")
    return fig


# --- token by token -----------------------------------------------------------------------------


def _lines_of(ax: Axes, tokens: Sequence[str], fig: Figure) -> list[list[tuple[str, float, float]]]:
    """Tokens set as text: lines of (token, left, width), in shares of the panel's width."""
    renderer = FigureCanvasAgg(fig).get_renderer()
    across = ax.get_window_extent(renderer).width

    def width_of(text: str) -> float:
        drawn = ax.text(0, 0, f"|{text}|", fontsize=TEXT_SIZE)
        extent = drawn.get_window_extent(renderer).width
        drawn.remove()
        return extent / across

    bars = width_of("")
    lines: list[list[tuple[str, float, float]]] = [[]]
    at = 0.0
    for token in tokens:
        width = width_of(token) - bars
        if at + width > 1:
            lines.append([])
            at, token = 0.0, token.lstrip(" ")
            width = width_of(token) - bars
        lines[-1].append((token, at, width))
        at += width
    return lines


@style.figure
def story_kl(tokens: Sequence[str], divergence: Sequence[float], most: float = 0.5) -> Figure:
    """A story whose tokens are shaded by KL(truth || model), in nats, up to ``most``."""
    fig, ax = style.canvas("text", 0.55 + 0.2 * (1 + sum(map(len, tokens)) // 78))
    ax.axis("off")
    shades = colormaps["Oranges"]
    scale = Normalize(0, most)
    bar = fig.colorbar(
        _shaded(shades, scale),
        ax=ax,
        orientation="horizontal",
        fraction=0.06,
        aspect=60,
        pad=0.02,
        extend="max",
    )
    bar.set_label("KL (truth || model) of the question that this token answers, nats", fontsize=7.5)
    fig.draw_without_rendering()
    lines = _lines_of(ax, tokens, fig)
    values = iter(divergence)
    for row, line in enumerate(lines):
        for token, left, width in line:
            value = min(next(values), most)
            ax.add_patch(
                Rectangle((left, row + 0.08), width, 0.84, color=shades(SHADE * scale(value)), lw=0)
            )
            ax.text(left, row + 0.5, token, fontsize=TEXT_SIZE, va="center_baseline")
    ax.set(xlim=(0, 1), ylim=(len(lines), 0))
    return fig


def _shaded(shades: Any, scale: Normalize) -> Any:
    """What a color bar reads, with the part of the color map that text stays legible on."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import ListedColormap

    return ScalarMappable(scale, ListedColormap([shades(SHADE * i / 255) for i in range(256)]))


@style.figure
def calibration(
    confidence: Sequence[float],
    right: Sequence[float],
    model: Sequence[float],
    truth: Sequence[float],
) -> Figure:
    """Top choices by how sure the model was; single probabilities beside the true ones."""
    fig, (left, beside) = style.canvas("text", 2.7, columns=2)
    for ax in (left, beside):
        ax.plot((1e-6, 1), (1e-6, 1), color=style.COLORS["limit"], lw=0.8, ls="--", zorder=0)
    left.plot(confidence, right, "o-", color=style.COLORS["ours"], lw=1.2)
    left.set(xlabel="the model's probability", ylabel="share that came", xlim=(0, 1.02),
             ylim=(0, 1.02), title="its first choice")  # fmt: skip
    beside.plot(truth, model, ".", color=style.COLORS["ours"], ms=1.6, alpha=0.5)
    low = 1e-4
    beside.set(xscale="log", yscale="log", xlim=(low, 1.6), ylim=(low, 1.6))
    beside.set(xlabel="true probability", ylabel="the model's probability")
    beside.set_title("each possible token")
    return fig


# --- decoding -----------------------------------------------------------------------------------


@style.figure
def temperature(
    temperatures: Sequence[float],
    exact: Sequence[tuple[float, float, float]],
    consistency: Sequence[float],
    variety: Sequence[float],
    of_program: float,
) -> Figure:
    """What is right and what is different in stories told at several temperatures.

    ``exact`` are shares with the low and high ends of their intervals.
    """
    fig, (left, right) = style.canvas("text", 2.4, columns=2)
    shares, lows, highs = zip(*exact, strict=True)
    below = [max(0.0, share - low) for share, low in zip(shares, lows, strict=True)]
    above = [max(0.0, high - share) for share, high in zip(shares, highs, strict=True)]
    left.plot(temperatures, consistency, "s--", color=style.COLORS["position"],
              label="right so far (share of text)")  # fmt: skip
    left.errorbar(temperatures, shares, yerr=(below, above), fmt="o-", color=style.COLORS["good"],
                  capsize=2.5, label="exact to the end")  # fmt: skip
    left.set(xlabel="temperature", ylabel="share", ylim=(0, 1.02), title="right")
    left.legend(loc="best")
    right.plot(temperatures, variety, "o-", color=style.COLORS["token"], label="the model")
    right.axhline(of_program, color=style.COLORS["floor"], lw=0.9, ls="--")
    _named(right, of_program, "the program", 0.01, "left")
    right.set(xlabel="temperature", ylabel="entropy of the hero's name (nats)", title="different")
    right.set_ylim(0, 1.15 * max(of_program, *variety))
    for ax in (left, right):
        ax.set_xticks(temperatures)
    return fig


# --- embeddings and heads -----------------------------------------------------------------------


@style.figure
def head_grid(scores: Mapping[str, Any]) -> Figure:
    """A panel for each score, a cell for each head, layers downward: (L, H) shares of one."""
    fig, axes = style.canvas("text", 2.2, columns=len(scores))
    for ax, (title, values) in zip(axes, scores.items(), strict=True):
        n_layer, n_head = values.shape
        mesh = ax.pcolormesh(values, cmap=style.HEAT, vmin=0, vmax=1,
                             edgecolors=style.PAPER, linewidth=0.5)  # fmt: skip
        for layer in range(n_layer):
            for head in range(n_head):
                share = float(values[layer, head])
                color = style.PAPER if share > 0.55 else style.INK
                ax.text(head + 0.5, layer + 0.5, f"{100 * share:.0f}", ha="center", va="center",
                        color=color, fontsize=7)  # fmt: skip
        ax.set(title=title, ylim=(n_layer, 0), xlabel="head")
        ax.set_xticks([head + 0.5 for head in range(n_head)], [str(h) for h in range(n_head)])
        ax.set_yticks([layer + 0.5 for layer in range(n_layer)], [str(n) for n in range(n_layer)])
        ax.tick_params(length=0)
    axes[0].set_ylabel("layer")
    bar = fig.colorbar(mesh, ax=axes, ticks=(0, 0.5, 1), pad=0.01, aspect=30)
    bar.outline.set_linewidth(0.5)  # type: ignore[operator]
    return fig
