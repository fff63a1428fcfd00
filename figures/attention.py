"""Figures of chapter 3, Causal attention: averages, masks, scales, maps, rotations and costs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, Rectangle

from figures import style

AVERAGED = ((1.0, 0.0), (0.0, 2.0), (5.0, 1.0), (2.0, 1.0))  # the four vectors of the chapter
BATCH, TIME, WIDTH, HEADS = 4, 256, 768, 12  # one layer of GPT-2 small, chapter 2's batch
SCALES = {0: "no scale", 0.5: "divided by √C", 1: "divided by C"}


def _tint(color: str, strength: float) -> str:
    """A color mixed with white, for fills under black text."""
    channels = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
    return "#" + "".join(f"{round(255 - strength * (255 - c)):02X}" for c in channels)


def _cell(
    ax: Axes, x: float, y: float, text: str, fill: str, width: float = 1.0, edge: str = style.INK
) -> None:
    """One box of a drawn table; ``(x, y)`` is its lower left corner."""
    ax.add_patch(Rectangle((x, y), width, 1, fc=fill, ec=edge, lw=0.7))
    ax.text(x + width / 2, y + 0.5, text, ha="center", va="center_baseline", fontsize=7.5)


def _paper(ax: Axes, x: tuple[float, float], y: tuple[float, float]) -> None:
    ax.set(xlim=x, ylim=y)
    ax.set_axis_off()


def _minus(text: str) -> str:
    return text.replace("-", "−")


def _future(ax: Axes, n: int, rows: Sequence[int] | None = None) -> None:
    """Hatch what lies above the diagonal: it does not exist, which is not the same as zero."""
    for t in range(n) if rows is None else rows:
        if t + 1 < n:
            box = Rectangle((t + 1, t), n - t - 1, 1, fc=style.PAPER, ec=style.PALE, lw=0)
            box.set_hatch("/////")
            ax.add_patch(box)


# --- averages and masks -------------------------------------------------------------------------


@style.figure
def causal_average() -> Figure:
    """A triangular matrix of weights times four vectors: the averages of the past."""
    n, d = len(AVERAGED), len(AVERAGED[0])
    weights = [[1 / (t + 1) if s <= t else 0.0 for s in range(n)] for t in range(n)]
    averages = [[sum(weights[t][s] * AVERAGED[s][i] for s in range(n)) for i in range(d)]
                for t in range(n)]  # fmt: skip
    fig, ax = style.canvas("text", 2.0)
    _paper(ax, (-1.9, 13.4), (-5.6, 0.9))
    fractions = {0: "1", 1: "1/2", 2: "1/3", 3: "1/4"}
    for t in range(n):
        for s in range(n):
            seen = s <= t
            fill = _tint(style.COLORS["query"], 0.1 + 0.6 * weights[t][s]) if seen else style.PAPER
            _cell(ax, s, -1 - t, fractions[t] if seen else "", fill,
                  edge=style.INK if seen else style.PALE)  # fmt: skip
        for i in range(d):
            shade = 0.3 if t <= 2 else 0.08
            _cell(ax, 5.4 + i, -1 - t, f"{AVERAGED[t][i]:g}", _tint(style.COLORS["value"], shade))
            _cell(ax, 9 + 1.3 * i, -1 - t, f"{averages[t][i]:g}",
                  _tint(style.COLORS["token"], 0.35 if t == 2 else 0.08), width=1.3)  # fmt: skip
        ax.text(-0.25, -0.5 - t, f"$t = {t}$", ha="right", va="center", fontsize=8)
    for x, sign in ((4.7, "×"), (8.2, "=")):
        ax.text(x, -2, sign, ha="center", va="center", fontsize=12)
    for x, width in ((0, n), (9, 2.6)):  # the third row, and what it makes
        ax.add_patch(Rectangle((x, -3), width, 1, fill=False, ec=style.INK, lw=1.8))
    for x, name in ((2, "$A$"), (6.4, "$x$"), (10.3, "averages")):
        ax.text(x, 0.25, name, ha="center", fontsize=8.5)
    for x, text in ((2, "rows sum to 1"), (6.4, "positions 0 to 2"), (10.3, "row 2: their mean")):
        ax.text(x, -4.35, text, ha="center", va="top", fontsize=7.5, color=style.GRAY)
    return fig


@style.figure
def masking(scores: Any, weights: Any) -> Figure:
    """Scores, scores with the mask added, and the weights that the softmax makes of them."""
    n = len(scores)
    fig, ax = style.canvas("text", 1.75)
    _paper(ax, (-0.3, 3 * n + 5.0), (-n - 0.7, 1.0))
    limit = float(scores.abs().max())
    for panel, name in enumerate(("scores $QK^T/\\sqrt{d_k}$", "scores $+ M$", "weights")):
        left = panel * (n + 2.2)
        for t in range(n):
            for s in range(n):
                value, future = float((weights if panel == 2 else scores)[t, s]), s > t
                strength = value if panel == 2 else 0.25 + 0.25 * value / limit
                color = style.COLORS["query" if panel == 2 else "key"]
                fill = _tint(color, 0.7 * max(strength, 0))
                text = _minus(f"{value:.2f}")
                if future and panel:
                    fill, text = style.PAPER, "−∞" if panel == 1 else ""
                _cell(ax, left + s, -1 - t, text, fill,
                      edge=style.PALE if future and panel else style.INK)  # fmt: skip
        ax.text(left + n / 2, 0.3, name, ha="center", fontsize=8.5)
    for panel, name in enumerate(("add $M$", "softmax")):
        x = panel * (n + 2.2) + n
        ax.add_patch(FancyArrowPatch((x + 0.2, -n / 2), (x + 2.0, -n / 2), arrowstyle="-|>",
                                     mutation_scale=8, lw=0.9, color=style.INK))  # fmt: skip
        ax.text(x + 1.1, -n / 2 + 0.25, name, ha="center", fontsize=7.5)
    ax.text(2 * (n + 2.2) + n / 2, -n - 0.5, "each row sums to 1", ha="center", fontsize=7.5,
            color=style.GRAY)  # fmt: skip
    return fig


# --- the scale ----------------------------------------------------------------------------------


@style.figure
def scaling(
    widths: Sequence[int],
    spreads: Sequence[float],
    table: Mapping[float, Sequence[Sequence[float]]],
) -> Figure:
    """Spread of the scores, positions attended to and size of the Jacobian, by head width."""
    fig, (left, middle, right) = style.canvas("text", 2.35, columns=3)
    left.plot(widths, [math.sqrt(C) for C in widths], style.LINES[1], color=style.GRAY,
              label="√C")  # fmt: skip
    left.plot(widths, spreads, "o", color=style.COLORS["key"], label="measured")
    left.set(yscale="log", ylim=(1, 60), yticks=(1, 2, 4, 8, 16, 32),
             yticklabels=("1", "2", "4", "8", "16", "32"))  # fmt: skip
    left.set_title("spread of the scores")
    left.legend()
    colors = {0: style.COLORS["bad"], 0.5: style.COLORS["good"], 1: style.COLORS["gradient"]}
    for row, (power, found) in enumerate(table.items()):
        for ax, column in ((middle, 0), (right, 1)):
            ax.plot(widths, [pair[column] for pair in found], style.LINES[(1, 0, 2)[row]],
                    marker="osd"[row], ms=3, color=colors[power], label=SCALES[power])  # fmt: skip
    middle.set(ylim=(0, 68))
    middle.set_title("positions attended to")
    right.set(ylim=(0, None))
    right.set_title("size of the Jacobian")
    for ax in (left, middle, right):
        ax.set(xscale="log", xticks=widths, xlabel="head width C")
        ax.set_xticklabels([f"{C:,}" for C in widths], fontsize=7)
        ax.minorticks_off()
    handles, labels = middle.get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside lower center", ncols=3)
    return fig


# --- losses -------------------------------------------------------------------------------------


def _smooth(losses: Sequence[float], width: int = 10) -> list[float]:
    """Means over the last ``width`` steps, so that lines can be told apart."""
    return [sum(losses[max(0, i - width + 1) : i + 1]) / min(i + 1, width)
            for i in range(len(losses))]  # fmt: skip


@style.figure
def bound(losses: Mapping[str, Sequence[float]], lowest: float) -> Figure:
    """The losses of two readers of facts, and what no average can pass."""
    fig, ax = style.canvas("text", 2.3)
    for row, (name, loss) in enumerate(losses.items()):
        color = style.COLORS[("bad", "good")[row]]
        ax.plot(_smooth(loss), style.LINES[(1, 0)[row]], color=color, label=name)
    ax.axhline(lowest, color=style.COLORS["floor"], lw=0.9, ls=style.LINES[3])
    n = max(map(len, losses.values()))
    ax.text(n, lowest - 0.12, "no average can pass this line", ha="right", va="top", fontsize=8)
    ax.set(xlabel="step", ylabel="loss (nats)", ylim=(0, None), xlim=(0, n))
    ax.legend(loc="upper right")
    return fig


@style.figure
def leak(losses: Mapping[str, Sequence[float]], floors: Mapping[str, float]) -> Figure:
    """The story layer with a right and a leaking mask, and the lines that it may not cross."""
    fig, ax = style.canvas("text", 2.4)
    n = min(map(len, losses.values()))
    for row, (name, loss) in enumerate(losses.items()):
        color = style.COLORS[("good", "bad")[row]]
        ax.plot(_smooth(loss[:n], 5), style.LINES[row], color=color, label=name)
    for row, (name, value) in enumerate(floors.items()):
        ax.axhline(value, color=style.COLORS["floor"], lw=0.9, ls=style.LINES[row + 2])
        ax.text(n, value + 0.12, name, ha="right", va="bottom", fontsize=8)
    ax.set(xlabel="step", ylabel="loss (nats a token)", ylim=(0, None), xlim=(0, n))
    ax.legend(loc="upper right")
    return fig


# --- maps ---------------------------------------------------------------------------------------


def _visible(token: str) -> str:
    return token.replace(" ", "·").replace("\n", "\\n")


@style.figure
def one_map(tokens: Sequence[str], weights: Any, framed: tuple[int, int] | None = None) -> Figure:
    """One head's weights (T, T) with the tokens along both sides; one cell may be framed."""
    n = len(tokens)
    fig, ax = style.canvas("narrow", 3.3)
    mesh = ax.pcolormesh(weights.numpy(), cmap=style.HEAT, vmin=0, vmax=1,
                         edgecolors=style.PAPER, linewidth=0.5)  # fmt: skip
    _future(ax, n)
    if framed is not None:
        row, column = framed
        ax.add_patch(Rectangle((column, row), 1, 1, fill=False, ec=style.COLORS["key"], lw=2,
                               clip_on=False, zorder=3))  # fmt: skip
    places = [t + 0.5 for t in range(n)]
    labels = [_visible(token) for token in tokens]
    ax.set_xticks(places, labels, rotation=90)
    ax.set_yticks(places, labels)
    ax.set(ylim=(n, 0), xlabel="key: looked at", ylabel="query: looks")
    ax.tick_params(length=0, labelsize=7.5)
    bar = fig.colorbar(mesh, ax=ax, ticks=(0, 0.5, 1), pad=0.02, aspect=30)
    bar.outline.set_linewidth(0.5)  # type: ignore[operator]
    return fig


@style.figure
def heads(tokens: Sequence[str], maps: Sequence[Any]) -> Figure:
    """The heads (H, T, T) of a layer before training, above, and after, below; one scale."""
    n, n_head = len(tokens), len(maps[0])
    fig, axes = style.canvas("text", 2.9, rows=2, columns=n_head)
    for row, (name, layer) in enumerate(zip(("before", "after"), maps, strict=True)):
        for head in range(n_head):
            ax = axes[row][head]
            mesh = ax.pcolormesh(layer[head].numpy(), cmap=style.HEAT, vmin=0, vmax=1,
                                 edgecolors=style.PAPER, linewidth=0.3)  # fmt: skip
            _future(ax, n)
            ax.set(ylim=(n, 0), xticks=(), yticks=(), aspect="equal")
            if row == 0:
                ax.set_title(f"head {head}", loc="center")
            if row == 1:
                ax.set_xticks([t + 0.5 for t in range(n)], [_visible(t) for t in tokens],
                              rotation=90, fontsize=5.5)  # fmt: skip
            if head == 0:
                ax.set_yticks([t + 0.5 for t in range(n)], [_visible(t) for t in tokens],
                              fontsize=5.5)  # fmt: skip
                ax.set_ylabel(name, fontweight="bold")
            ax.tick_params(length=0, pad=1)
    bar = fig.colorbar(mesh, ax=axes, ticks=(0, 0.5, 1), pad=0.01, aspect=40)
    bar.outline.set_linewidth(0.5)  # type: ignore[operator]
    return fig


# --- rotary positions ---------------------------------------------------------------------------


def _dial(ax: Axes, turned: Any, pair: int) -> None:
    """One pair at positions 0, 1, 2, ... as hands, the later the darker."""
    n, half = len(turned), turned.shape[1] // 2
    for t in range(n):
        a, b = float(turned[t, pair]), float(turned[t, pair + half])
        shade = _tint(style.COLORS["position"], 0.3 + 0.7 * t / (n - 1))
        ax.plot([0, a], [0, b], color=shade, lw=2.2 - t / n, zorder=t)
        ax.plot(a, b, "o", ms=3.4, mfc=shade, mec=style.INK, mew=0.5, zorder=t + 1)
        if pair == 0:
            ax.text(1.3 * a, 1.3 * b, str(t), fontsize=7, ha="center", va="center")
    ax.set(xlim=(-1.5, 1.5), ylim=(-1.5, 1.5), aspect="equal")
    ax.set_axis_off()


@style.figure
def rotary(turn: Callable[[Any, Any], Any], query: Any, key: Any) -> Figure:
    """Pairs as hands that turn with the position, and a score against the distance."""
    import torch

    width, reach = len(query), 60
    fig = style.canvas("text", 3.7)[0]
    fig.clear()
    grid = fig.add_gridspec(2, 4, height_ratios=(1, 1.5))
    unit = torch.zeros(6, width)
    unit[:, : width // 2] = 1.0
    turned = turn(unit, torch.arange(6))
    for column, pair in enumerate((0, width // 16, width // 8, width // 4)):
        ax = fig.add_subplot(grid[0, column])
        _dial(ax, turned, pair)
        frequency = 10_000 ** (-2 * pair / width)
        ax.set_title(f"pair {pair}: {frequency:.3g} rad", loc="center", fontsize=8)
    ax = fig.add_subplot(grid[1, :])
    for row, place in enumerate((reach, 500, 2000)):
        keys = turn(key.expand(reach + 1, -1), place - torch.arange(reach + 1))
        asked = turn(query[None], torch.tensor([place]))[0]
        ax.plot(range(reach + 1), (keys @ asked / math.sqrt(width)).tolist(), style.LINES[row],
                lw=(3.4, 2.0, 1.0)[row], color=style.SEQUENCE[row],
                label=f"query at {place:,}")  # fmt: skip
    ax.plot(range(reach + 1), [-d / 8 for d in range(reach + 1)], style.LINES[1],
            color=style.GRAY, lw=1.2, label="ALiBi, slope 1/8")  # fmt: skip
    ax.axhline(0, color=style.PALE, lw=0.8, zorder=0)
    ax.set(xlabel="distance of the key, in positions", ylabel="score, or penalty on it")
    ax.legend(ncols=2, loc="lower left")
    return fig


# --- without the table, and what is kept --------------------------------------------------------


@style.figure
def online_softmax(scores: Any, block: int, rows: Sequence[tuple[float, float, float]]) -> Figure:
    """Scores in blocks, the running maximum, and what happens to the running sum."""
    values = scores.tolist()
    fig, ax = style.canvas("text", 2.1)
    ax.bar(range(len(values)), values, 0.6, color=_tint(style.COLORS["key"], 0.45), ec=style.INK,
           lw=0.6, label="score")  # fmt: skip
    edges = [block * i - 0.5 for i in range(len(rows) + 1)]
    top = max(values)
    for i, (maximum, total, shrink) in enumerate(rows):
        ax.plot(edges[i : i + 2], [maximum, maximum], color=style.COLORS["query"], lw=2,
                label="running maximum $m$" if i == 0 else None)  # fmt: skip
        if i:
            before = rows[i - 1][0]
            ax.plot([edges[i]] * 2, [before, maximum], color=style.COLORS["query"], lw=2)
            ax.axvline(edges[i], color=style.GRAY, lw=0.7, ls=style.LINES[3])
        kept = "nothing before" if i == 0 else f"old sums × {shrink:.3f}"
        ax.text((edges[i] + edges[i + 1]) / 2, top + 1.5, f"{kept}\nsum {total:.3f}", ha="center",
                va="center", fontsize=8)  # fmt: skip
    ax.set(xlim=(edges[0], edges[-1]), ylim=(0, top + 2.4), yticks=range(int(top) + 1),
           xlabel="key", ylabel="score", xticks=range(len(values)))  # fmt: skip
    ax.legend(loc="upper left", bbox_to_anchor=(1.0, 0.9))
    return fig


@style.figure
def cache_bytes(bytes_per_token: Mapping[int, int], weight_bytes: int) -> Figure:
    """Cache against length for several numbers of key/value heads, beside the weights."""
    fig, ax = style.canvas("text", 2.4)
    lengths = [2**i for i in range(10, 18)]
    names = {max(bytes_per_token): "MHA", min(bytes_per_token): "MQA"}
    for row, (n_kv_head, size) in enumerate(bytes_per_token.items()):
        gigabytes = [size * T / 1e9 for T in lengths]
        label = f"{names.get(n_kv_head, 'GQA')}, K = {n_kv_head}"
        ax.plot(lengths, gigabytes, style.LINES[row], marker="osd"[row], ms=3,
                color=style.SEQUENCE[row], label=label)  # fmt: skip
    ax.axhline(weight_bytes / 1e9, color=style.GRAY, lw=0.9, ls=style.LINES[3])
    ax.text(lengths[0], 1.15 * weight_bytes / 1e9, "all weights of the model", fontsize=8)
    ax.set(xscale="log", yscale="log", xlabel="length (tokens)", ylabel="cache of one text (GB)")
    ax.set_xticks(lengths, [f"{T:,}" for T in lengths])
    ax.minorticks_off()
    ax.legend(loc="lower right")
    return fig


@style.figure
def time_memory(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Seconds and bytes of a training pass against length, with the table and without."""
    fig, axes = style.canvas("text", 2.5, columns=2)
    kinds = (("table", "with the table", 1, "bad"), ("fused", "SDPA", 0, "good"))
    for ax, key, unit in ((axes[0], "seconds", 1.0), (axes[1], "bytes", 1e6)):
        for kind, label, line, color in kinds:
            chosen = [r for r in rows if r["kind"] == kind and r["backward"] and r[key] > 0]
            ax.plot([r["length"] for r in chosen], [r[key] / unit for r in chosen],
                    style.LINES[line], marker="o", ms=3, color=style.COLORS[color],
                    label=label)  # fmt: skip
        lengths = sorted({r["length"] for r in rows})
        ax.set(xscale="log", yscale="log", xlabel="length $T$")
        ax.set_xticks(lengths, [f"{T:,}" for T in lengths], fontsize=7)
        ax.minorticks_off()
    axes[0].set_title("seconds")
    axes[1].set_title("peak memory, MB")
    axes[0].legend()
    return fig


# --- block diagram ------------------------------------------------------------------------------


def _shape(tensor: Any) -> str:
    return "(" + ", ".join(f"{size:,}" for size in tensor.shape) + ")"


@style.tikz_values("attention-head-shapes")
def head_shapes() -> dict[str, str]:
    """Shapes through one layer of GPT-2 small, read off a pass of llm_core's on meta tensors."""
    import torch

    from llm_core.attention import CausalSelfAttention
    from llm_core.config import GPTConfig

    with torch.device("meta"):
        layer = CausalSelfAttention(GPTConfig(1, TIME, 1, HEADS, WIDTH))
        x = torch.zeros(BATCH, TIME, WIDTH)
        q, k, v = layer.heads(x)
        scores = q @ k.transpose(-2, -1)
        heads = scores.softmax(dim=-1) @ v
        joined = heads.transpose(1, 2).flatten(2)
        shapes = {"X": x, "Qkv": layer.qkv(x), "Q": q, "K": k, "V": v, "Scores": scores,
                  "Heads": heads, "Joined": joined, "Y": layer.out(joined)}  # fmt: skip
    return {f"shape{name}": _shape(tensor) for name, tensor in shapes.items()}
