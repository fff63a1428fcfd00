"""Figures of chapter 4, The full GPT: activations, wiring, depth, starts, budgets, sampling."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures import style

GPT2_SMALL = {"n_head": 12, "d_model": 768, "d_ff": 3072}  # Radford et al. (2019)
BATCH, TIME = 4, 256
WIRINGS = {  # name: (color, dashes), the same in every figure of this family
    "pre-norm": (style.COLORS["good"], "-"),
    "post-norm": (style.COLORS["key"], "--"),
    "post-norm, warm-up": (style.COLORS["query"], "-."),
    "no residual": (style.COLORS["bad"], ":"),
}


def _panels(height: float, columns: int, **subplots: Any) -> tuple[Figure, Any]:
    """A figure of full width and its axes, side by side."""
    return style.canvas("text", height, columns=columns, **subplots)


def _tint(color: str, strength: float = 0.3) -> str:
    """A color mixed with white, for fills under black text."""
    channels = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
    return "#" + "".join(f"{round(255 - strength * (255 - c)):02X}" for c in channels)


def _line(ax: Axes, wiring: str, x: Sequence[float], y: Sequence[float], **more: Any) -> None:
    color, dashes = WIRINGS[wiring]
    ax.plot(x, y, ls=dashes, color=color, label=wiring, **more)


# --- the block ----------------------------------------------------------------------------------


@style.tikz_values("gpt-block")
def block() -> dict[str, str]:
    """Shapes inside a block, read off a pass through llm_core's parts on the meta device."""
    import torch

    from llm_core.attention import CausalSelfAttention
    from llm_core.config import GPTConfig
    from llm_core.layers import MLP
    from llm_core.model import Block

    d_model, n_head = GPT2_SMALL["d_model"], GPT2_SMALL["n_head"]
    with torch.device("meta"):
        config = GPTConfig(50_257, 1024, 12, n_head, d_model)
        x = torch.zeros(BATCH, TIME, d_model)
        mlp, attention = MLP(config), CausalSelfAttention(config)
        wide = mlp.up(x)
        q = attention.heads(x)[0]
        y = Block(config)(x)
    assert y.shape == x.shape and wide.shape[-1] == GPT2_SMALL["d_ff"]
    shapes = {"shapeX": x, "shapeWide": wide, "shapeHeads": q, "shapeY": y}
    return {
        name: "(" + ", ".join(f"{size:,}" for size in tensor.shape) + ")"
        for name, tensor in shapes.items()
    }


@style.figure
def activations() -> Figure:
    """ReLU, GELU and SiLU, and their slopes."""
    xs = [i / 50 for i in range(-200, 201)]
    root = math.sqrt(2)

    def normal(x: float) -> float:
        return math.exp(-x * x / 2) / math.sqrt(2 * math.pi)

    def below(x: float) -> float:
        return (1 + math.erf(x / root)) / 2

    def sigmoid(x: float) -> float:
        return 1 / (1 + math.exp(-x))

    curves = {
        "ReLU": (lambda x: max(0.0, x), lambda x: float(x > 0)),
        "GELU": (lambda x: x * below(x), lambda x: below(x) + x * normal(x)),
        "SiLU": (
            lambda x: x * sigmoid(x),
            lambda x: sigmoid(x) * (1 + x * (1 - sigmoid(x))),
        ),
    }
    fig, (left, right) = _panels(2.3, columns=2)
    for row, (name, (value, slope)) in enumerate(curves.items()):
        look = {"color": style.SEQUENCE[row], "label": name, "lw": 1.6}
        left.plot(xs, [value(x) for x in xs], ls=style.LINES[row], **look)
        right.plot(xs, [slope(x) for x in xs], ls=style.LINES[row], **look)
    left.set(xlabel="$x$", ylim=(-0.5, 3), xlim=(-4, 4), title="value")
    right.set(xlabel="$x$", ylim=(-0.2, 1.3), xlim=(-4, 4), title="slope")
    left.legend()
    for ax in (left, right):
        ax.axhline(0, color=style.GRAY, lw=0.6, zorder=0)
    return fig


# --- depth --------------------------------------------------------------------------------------


@style.figure
def depth(measured: Mapping[str, tuple[Sequence[float], Sequence[float]]]) -> Figure:
    """Spread of x, and cosine between positions, by the number of blocks, for each wiring."""
    fig, (left, right) = _panels(2.5, columns=2)
    for wiring, (spread, alike) in measured.items():
        blocks = range(len(spread))
        _line(left, wiring, blocks, spread)
        _line(right, wiring, blocks, alike)
    spread = measured["pre-norm"][0]
    last = len(spread) - 1
    growth = (spread[last] ** 2 - spread[0] ** 2) / last  # variance that each block adds
    root = [math.sqrt(spread[0] ** 2 + n * growth) for n in range(last + 1)]
    left.plot(range(last + 1), root, ls=(0, (1, 2)), color=style.INK, lw=1.0,
              label="equal variances add")  # fmt: skip
    left.set(xlabel="blocks", ylabel="spread of $x$", ylim=(0, None), xlim=(0, last))
    right.set(xlabel="blocks", ylabel="cosine between positions", ylim=(0, 1.03), xlim=(0, last))
    left.set_title("size")
    right.set_title("alikeness")
    left.legend(loc="lower right", bbox_to_anchor=(1.03, 0.22))
    return fig


@style.figure
def gradients(
    depths: Sequence[int],
    last: Mapping[str, Sequence[float]],
    thrown: Mapping[str, Sequence[float]],
) -> Figure:
    """Gradient in the last block, and the change of the output by one step, by depth."""
    fig, (left, right) = _panels(2.5, columns=2)
    for ax, measured in ((left, last), (right, thrown)):
        for wiring, values in measured.items():
            _line(ax, wiring, depths, values, marker="o")
        ax.set_xscale("log", base=2)
        ax.set_yscale("log")
        ax.set_xticks(depths, [str(n) for n in depths])
        ax.minorticks_off()
        ax.set_xlabel("blocks")
    first = last["pre-norm"][0]
    root = [first * math.sqrt(depths[0] / n) for n in depths]
    left.plot(depths, root, ls=(0, (1, 2)), color=style.INK, lw=1.0, label="1 / root of the depth")
    left.set_title("gradient in the last block")
    right.set_title("output thrown by a step")
    low, high = min(map(min, last.values())), max(map(max, last.values()))
    left.set_ylim(low / 3.2, high * 1.5)
    left.legend(loc="lower left")
    return fig


@style.figure
def init(streams: Mapping[str, Sequence[float]]) -> Figure:
    """Spread of the residual stream by depth for several ways to draw the weights."""
    fig, ax = style.canvas("text", 2.6)
    colors = {"0.02": style.COLORS["query"], "fan-in": style.COLORS["good"],
              "0.4": style.COLORS["bad"]}  # fmt: skip
    for name, spread in streams.items():
        scheme = name.split(",")[0]
        dashes = "--" if "," in name else "-"
        ax.plot(range(len(spread)), spread, ls=dashes, color=colors[scheme])
        ax.text(len(spread) - 0.6, spread[-1], name.replace("no 1", "no $1").replace("2L)", "2L}$")
                .replace("√(", r"\sqrt{"), va="center", fontsize=8)  # fmt: skip
    ax.set_yscale("log")
    ax.set(xlabel="blocks", ylabel="spread of $x$", xlim=(0, 1.28 * len(spread)))
    ax.set_xticks(range(0, len(spread), 8))
    return fig


# --- counting -----------------------------------------------------------------------------------


@style.figure
def budget(tables: Mapping[str, Mapping[str, int]]) -> Figure:
    """Shares of the parameters by kind of part, one bar a model."""
    looks = {
        "token embedding": (style.COLORS["token"], ""),
        "position embedding": (style.COLORS["position"], "...."),
        "attention": (_tint(style.COLORS["query"], 0.65), ""),
        "MLP": (_tint(style.COLORS["value"], 0.45), ""),
        "normalization": (style.INK, ""),
        "head": (_tint(style.COLORS["token"], 0.35), "////"),
    }
    fig, ax = style.canvas("text", 2.2)
    totals = [sum(table.values()) for table in tables.values()]
    labels = [f"{name}  ({n / 1e9:,.2f} B)" for name, n in zip(tables, totals, strict=True)]
    left = [0.0] * len(labels)
    for part, (color, hatch) in looks.items():
        share = [100 * t[part] / n for t, n in zip(tables.values(), totals, strict=True)]
        ax.barh(labels, share, left=left, color=color, hatch=hatch, edgecolor=style.INK,
                linewidth=0.5, height=0.68, label=part)  # fmt: skip
        for y, (a, width) in enumerate(zip(left, share, strict=True)):
            if width > 5:
                ax.text(a + width / 2, y, f"{width:.0f}", ha="center", va="center_baseline",
                        fontsize=7.5, bbox={"fc": style.PAPER, "ec": "none", "pad": 0.8,
                                            "alpha": 0.75})  # fmt: skip
        left = [a + b for a, b in zip(left, share, strict=True)]
    ax.invert_yaxis()
    ax.set(xlabel="percent of the parameters", xlim=(0, 100))
    ax.legend(loc="upper center", ncols=3, bbox_to_anchor=(0.4, 1.32), handlelength=1.3)
    return fig


# --- training -----------------------------------------------------------------------------------


def _smooth(values: Sequence[float], width: int = 5) -> list[float]:
    """Running means, so that lines which cross can be told apart."""
    parts = [values[max(0, i - width + 1) : i + 1] for i in range(len(values))]
    return [sum(part) / len(part) for part in parts]


def _ladder(ax: Axes, ladder: Mapping[str, float], least: float, gap: float) -> None:
    """The levels that bound a loss, each named at the right, by ``gap`` above its line."""
    for row, (name, value) in enumerate(ladder.items()):
        if value >= least:
            ax.axhline(value, color=style.COLORS["floor"], lw=0.8, ls=style.LINES[row + 1])
            ax.text(0.995, value + gap, name, ha="right", va="bottom" if gap > 0 else "top",
                    fontsize=7.5, transform=ax.get_yaxis_transform())  # fmt: skip


@style.figure
def wirings(losses: Mapping[str, Sequence[float]], ladder: Mapping[str, float]) -> Figure:
    """Losses of one model, wired and started in four ways."""
    fig, ax = style.canvas("text", 2.7)
    for wiring, loss in losses.items():
        _line(ax, wiring, range(1, len(loss) + 1), _smooth(loss), lw=1.4)
    lowest = min(min(_smooth(loss)) for loss in losses.values())
    _ladder(ax, ladder, least=lowest - 0.2, gap=-0.07)
    ax.set(xlabel="step", ylabel="loss (nats a token)", xlim=(0, len(loss)))
    ax.set_ylim(lowest - 0.25, 7.5)
    ax.legend(loc="lower left")
    return fig


@style.figure
def training(losses: Sequence[float], ladder: Mapping[str, float]) -> Figure:
    """A first run, between ignorance and the floor."""
    fig, ax = style.canvas("text", 2.6)
    ax.plot(range(1, len(losses) + 1), losses, color=style.COLORS["train"], lw=1.0)
    _ladder(ax, ladder, least=0.0, gap=0.06)
    ax.set(xlabel="step", ylabel="loss (nats a token)", xlim=(0, len(losses)), ylim=(0, 7.8))
    return fig


# --- generation ---------------------------------------------------------------------------------


@style.figure
def sampling(
    tokens: Sequence[str], truth: Sequence[float], settings: Mapping[str, Sequence[float]]
) -> Figure:
    """The probabilities of the same tokens under several settings, and the truth."""
    fig, axes = style.canvas("text", 3.6, rows=2, columns=3, sharex=True, sharey=True)
    places = range(len(tokens))
    for ax, (name, q) in zip(axes.flat, settings.items(), strict=True):
        for place, (height, p) in enumerate(zip(q, truth, strict=True)):
            possible = p > 0
            ax.bar(place, height, 0.75, ec=style.INK, lw=0.5, hatch="" if possible else "/////",
                   color=style.COLORS["token"] if possible else style.PAPER)  # fmt: skip
        dots = [(place, p) for place, p in enumerate(truth) if p > 0]
        at, heights = [place for place, _ in dots], [p for _, p in dots]
        ax.plot(at, heights, "o", ms=3.4, mfc=style.PAPER, mec=style.INK, mew=0.9)
        ax.set_title(name, fontsize=8.5)
    axes[0, 0].set_ylim(0, 1.05 * max(max(truth), *(max(q) for q in settings.values())))
    for ax in axes[1]:
        ax.set_xticks(places, [token.replace(" ", "·") for token in tokens], rotation=90,
                      fontsize=7)  # fmt: skip
    for ax in axes[:, 0]:
        ax.set_ylabel("probability")
    return fig


@style.figure
def speed(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Tokens a second by program, for two formats of weights and two batch sizes."""
    fig, axes = style.canvas("text", 2.6, columns=2, sharey=True)
    names = [row["contender"] for row in rows if row["dtype"] == "float32" and row["batch"] == 1]
    names.remove("reading the weights")
    for ax, dtype in zip(axes, ("float32", "bfloat16"), strict=True):
        found = {(row["contender"], row["batch"]): row["tokens_per_second"]
                 for row in rows if row["dtype"] == dtype}  # fmt: skip
        for y, name in enumerate(names):
            color = style.COLORS["ours" if name.startswith("llm_core") else "peer"]
            for batch, shift, fill in ((1, -0.2, color), (8, 0.2, _tint(color, 0.45))):
                if (name, batch) in found:
                    ax.barh(y + shift, found[name, batch], 0.38, color=fill, ec=style.INK, lw=0.5)
                    value, bound = found[name, batch], found["reading the weights", 1]
                    beside = bound if batch == 1 and 0.7 * bound < value < bound else value
                    ax.text(beside, y + shift, f" {value:.0f}",
                            va="center", fontsize=7, zorder=4,
                            bbox={"fc": style.PAPER, "ec": "none", "pad": 0.3})  # fmt: skip
        ax.axvline(
            found["reading the weights", 1], color=style.COLORS["limit"], lw=0.9, ls="--", zorder=3
        )
        ax.set_title({"float32": "32-bit weights", "bfloat16": "16-bit weights"}[dtype])
        ax.set_xlabel("tokens a second")
        ax.margins(x=0.16)
    axes[0].set_yticks(range(len(names)), names)
    axes[0].invert_yaxis()
    axes[0].text(0.98, 0.02, "dark: one text, light: eight", transform=axes[0].transAxes,
                 ha="right", va="bottom", fontsize=7, color=style.GRAY)  # fmt: skip
    return fig
