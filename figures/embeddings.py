"""Figures of chapter 2, Embeddings: windows, lookups, positions, distances and costs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Arc, FancyArrowPatch, Rectangle

from figures import style

WORDS = "the cat sat on the mat the dog sat on the rug".split()
STREAM = [sorted(set(WORDS), key=WORDS.index).index(word) for word in WORDS]
CONTEXT = 4
TOY_VOCAB, TOY_WIDTH = len(set(WORDS)), 3
TOY_IDS = STREAM[CONTEXT : 2 * CONTEXT]  # the second window: "the" stands in it twice


def _panels(height: float, columns: int, **subplots: Any) -> tuple[Figure, Any]:
    """A figure of full width and its axes, side by side."""
    return style.canvas("text", height, columns=columns, **subplots)


def _cell(
    ax: Axes, x: float, y: float, text: str, *, fill: str = style.PAPER, edge: str = style.INK,
    width: float = 1.0, height: float = 1.0, size: float = 8.0, bold: bool = False,
    color: str = style.INK, linewidth: float = 0.7,
) -> None:  # fmt: skip
    """One box of a drawn tensor; ``(x, y)`` is its lower left corner."""
    ax.add_patch(Rectangle((x, y), width, height, fc=fill, ec=edge, lw=linewidth))
    ax.text(
        x + width / 2, y + height / 2, text, ha="center", va="center_baseline", fontsize=size,
        fontweight="bold" if bold else "normal", color=color,
    )  # fmt: skip


def _bare(ax: Axes, x: tuple[float, float], y: tuple[float, float]) -> None:
    """Turn axes into paper with the given limits."""
    ax.set(xlim=x, ylim=y)
    ax.set_axis_off()


def _arrow(
    ax: Axes, start: tuple[float, float], end: tuple[float, float], color: str = style.INK,
    bend: float = 0.0, width: float = 0.9, order: float = 2.0,
) -> None:  # fmt: skip
    ax.add_patch(
        FancyArrowPatch(
            start, end, arrowstyle="-|>", mutation_scale=7, lw=width, color=color,
            connectionstyle=f"arc3,rad={bend}", shrinkA=0, shrinkB=0, zorder=order,
        )
    )  # fmt: skip


def _tint(color: str, strength: float = 0.3) -> str:
    """A color mixed with white, for fills under black text."""
    channels = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
    return "#" + "".join(f"{round(255 - strength * (255 - c)):02X}" for c in channels)


# --- windows ------------------------------------------------------------------------------------


@style.figure
def windows() -> Figure:
    """A stream of ids, the windows cut from it, and the targets one place to the right."""
    fig, ax = style.canvas("text", 2.55)
    _bare(ax, (-2.35, 12.1), (-5.2, 2.2))
    for t, (word, token_id) in enumerate(zip(WORDS, STREAM, strict=True)):
        _cell(ax, t, 0, str(token_id), bold=True, fill=_tint(style.COLORS["token"], 0.35))
        ax.text(t + 0.5, 1.3, word, ha="center", va="baseline", fontsize=7.5)
    ax.text(-0.25, 0.5, "stream", ha="right", va="center")
    for row, first in enumerate(range(0, len(STREAM) - CONTEXT, CONTEXT)):
        y = -1.75
        for t in range(first, first + CONTEXT):
            _cell(ax, t, y, str(STREAM[t]), fill=_tint(style.COLORS["token"], 0.35))
            _cell(ax, t, y - 2.1, str(STREAM[t + 1]))
            _arrow(ax, (t + 0.5, y - 0.08), (t + 0.5, y - 1.02), style.GRAY)
        for bottom in (y, y - 2.1):
            ax.add_patch(Rectangle((first, bottom), CONTEXT, 1, fill=False, ec=style.INK, lw=1.6))
        label = f"window {row}: start {first}"
        ax.text(first + CONTEXT / 2, y - 2.75, label, ha="center", fontsize=8, color=style.INK)
    ax.text(-0.25, -1.25, "ids", ha="right", va="center")
    ax.text(-0.25, -3.35, "targets", ha="right", va="center")
    last = 2 * CONTEXT
    ax.text(
        last + 2.1, -2.3, f"{len(STREAM) - last} ids left:\na window needs\n{CONTEXT} + 1 of them",
        ha="center", va="center", fontsize=8, color=style.GRAY,
    )  # fmt: skip
    return fig


@style.figure
def known_answers(
    tokens: Sequence[str], paid: Sequence[float], expected: Sequence[float]
) -> Figure:
    """What a perfect reader pays for each token of a text, and what it pays there on average."""
    fig, ax = style.canvas("text", 2.5)
    places = range(len(tokens))
    ax.bar(places, paid, 0.72, color=style.COLORS["token"], ec=style.INK, lw=0.5,
           label="paid for the token that came")  # fmt: skip
    ax.plot(places, expected, "o", ms=3.2, mfc=style.PAPER, mec=style.INK, mew=0.8,
            label="on average over the possible tokens", clip_on=False)  # fmt: skip
    labels = [token.replace(" ", "·").replace("\n", "\\n") for token in tokens]
    ax.set_xticks(places, labels, rotation=90, fontsize=7.5, family="DejaVu Sans Mono")
    ax.tick_params(axis="x", length=0)
    top = 1.45 * max(*paid, *expected)  # room for the legend
    ax.set(xlim=(-0.8, len(tokens) - 0.2), ylim=(0, top), ylabel="nats")
    ax.legend(loc="upper right", ncols=2)
    return fig


@style.figure
def shuffles(orders: Mapping[str, Sequence[int]]) -> Figure:
    """Which window is read at each place of an epoch, under several ways to shuffle."""
    fig, axes = _panels(2.15, columns=len(orders), sharey=True)
    for ax, (name, order) in zip(axes, orders.items(), strict=True):
        ax.plot(range(len(order)), order, ".", ms=2.6, color=style.COLORS["token"], mec=style.INK,
                mew=0.25)  # fmt: skip
        missed = 1 - len(set(order)) / len(order)
        ax.set_title(name)
        ax.set_xlabel(f"place in the epoch\nnever read: {missed:.0%}")
    axes[0].set_ylabel("window read")
    return fig


# --- lookup and its gradient --------------------------------------------------------------------


def toy_table() -> Any:
    """The chapter's toy table: entry 4.2 stands in row 4, column 2. ``(V, D) float32``."""
    import torch

    columns = torch.arange(TOY_WIDTH) / 10
    return torch.arange(TOY_VOCAB)[:, None] + columns


def _matrix(
    ax: Axes, values: Any, x: float, top: float, form: str, fills: Sequence[str],
    width: float = 1.0, faint_zero: bool = False, size: float = 7.5,
) -> None:  # fmt: skip
    """Draw a matrix row by row from its upper left corner."""
    for r, row in enumerate(values.tolist()):
        for c, value in enumerate(row):
            faint = faint_zero and value == 0
            _cell(ax, x + c * width, top - r - 1, form.format(value), fill=fills[r], width=width,
                  size=size, color="#9CA3AF" if faint else style.INK,
                  bold=faint_zero and not faint)  # fmt: skip


@style.figure
def lookup() -> Figure:
    """A one-hot matrix times the table picks rows: the product, with every number."""
    import torch

    table, ids = toy_table(), torch.tensor(TOY_IDS)
    one_hot = torch.nn.functional.one_hot(ids, TOY_VOCAB).to(table.dtype)
    x = one_hot @ table
    used, idle = _tint(style.COLORS["token"], 0.35), style.PAPER
    fig, ax = style.canvas("text", 2.35)
    _bare(ax, (-1.7, 18.0), (-8.9, 1.5))
    _matrix(ax, one_hot, 0, -1.5, "{:.0f}", [idle] * 4, faint_zero=True)
    ax.text(7.55, -3.5, "×", ha="center", va="center", fontsize=12)
    fills = [used if v in TOY_IDS else idle for v in range(TOY_VOCAB)]
    _matrix(ax, table, 8.7, 0, "{:.1f}", fills, width=1.15)
    ax.text(13.05, -3.5, "=", ha="center", va="center", fontsize=12)
    _matrix(ax, x, 13.8, -1.5, "{:.1f}", [used] * 4, width=1.15)
    for t, token_id in enumerate(TOY_IDS):
        word = WORDS[STREAM.index(token_id)]
        ax.text(-0.2, -2.0 - t, word, ha="right", va="center", fontsize=7.5)
    for v in range(TOY_VOCAB):
        ax.text(8.5, -0.5 - v, str(v), ha="right", va="center", fontsize=7, color=style.GRAY)
    for x0, width, name in ((0, 7, "one-hot"), (8.7, 3.45, "table $E$"), (13.8, 3.45, "$x$")):
        shape = {"one-hot": one_hot, "table $E$": table, "$x$": x}[name].shape
        ax.text(x0 + width / 2, 0.45 if name == "table $E$" else -1.05,
                f"{name}  {tuple(shape)}", ha="center", fontsize=8)  # fmt: skip
    return fig


@style.figure
def scatter_add() -> Figure:
    """The gradient of a lookup: rows of G return to the rows they came from, and add."""
    import torch

    table = toy_table().requires_grad_()
    upstream = 10.0 ** torch.arange(len(TOY_IDS))[:, None] * torch.arange(1, TOY_WIDTH + 1)
    (table[torch.tensor(TOY_IDS)] * upstream).sum().backward()
    assert table.grad is not None
    hit, idle = _tint(style.COLORS["gradient"], 0.4), style.PAPER
    fig, ax = style.canvas("text", 2.45)
    _bare(ax, (-3.5, 17.5), (-7.2, 1.1))
    _matrix(ax, upstream, 0, -1.5, "{:.0f}", [hit] * 4, width=1.5)
    fills = [hit if v in TOY_IDS else idle for v in range(TOY_VOCAB)]
    _matrix(ax, table.grad, 10.5, 0, "{:.0f}", fills, width=1.5, faint_zero=True)
    for t, token_id in enumerate(TOY_IDS):
        word = WORDS[STREAM.index(token_id)]
        ax.text(-0.25, -2.0 - t, f"{word}: id {token_id}", ha="right", va="center", fontsize=7.5)
        _arrow(ax, (4.6, -2.0 - t), (9.7, -0.5 - token_id), style.INK)
    for v in range(TOY_VOCAB):
        ax.text(10.3, -0.5 - v, str(v), ha="right", va="center", fontsize=7, color=style.GRAY)
    for x0, name, top in ((0, "$G$", -1.05), (10.5, "gradient of $E$", 0.45)):
        shape = (len(TOY_IDS) if name == "$G$" else TOY_VOCAB, TOY_WIDTH)
        ax.text(x0 + 2.25, top, f"{name}  {shape}", ha="center", fontsize=8)
    return fig


# --- positions ----------------------------------------------------------------------------------


@style.figure
def sinusoids(table: Any) -> Figure:
    """The sinusoidal table ``(T, D)`` as a heat map, and three of its columns as waves."""
    n_positions, d_model = table.shape
    fig, (left, right) = _panels(2.5, columns=2, width_ratios=(1.35, 1))
    mesh = left.pcolormesh(table.numpy(), cmap=style.HEAT, vmin=-1, vmax=1, edgecolors="face",
                           linewidth=0.15)  # fmt: skip
    left.set(xlabel="dimension", ylabel="position $t$", ylim=(n_positions, 0))
    left.set_title("the table")
    bar = fig.colorbar(mesh, ax=left, ticks=(-1, 0, 1), pad=0.02, aspect=30)
    bar.outline.set_linewidth(0.5)  # type: ignore[operator]
    lanes = [2.6 * lane for lane in range(3)]
    chosen = [0, d_model // 4, d_model // 2]
    for lane, dimension in zip(lanes, chosen, strict=True):
        right.axvline(lane, color=style.PALE, lw=0.8)
        frequency = 10_000 ** (-dimension / d_model)
        between = [t / 8 for t in range(8 * (n_positions - 1) + 1)]
        right.plot([lane + math.sin(frequency * t) for t in between], between,
                   color=style.COLORS["position"], lw=1.2)  # fmt: skip
        right.plot(table[:, dimension] + lane, range(n_positions), ".", ms=2.5, mfc=style.INK,
                   mec="none")  # fmt: skip
    right.set_xticks(lanes, [f"dim {dimension}" for dimension in chosen])
    right.set(xlim=(-1.3, lanes[-1] + 1.3), ylim=(n_positions, 0), yticklabels=())
    right.set_xlabel("−1 to 1 in each lane")
    right.set_title("three columns")
    return fig


def _turns(ax: Axes, table: Any, pair: int, shift: int, starts: Sequence[int]) -> None:
    """One sin/cos pair of the table on its circle, with equal shifts as equal turns."""
    points = table[:, 2 * pair : 2 * pair + 2].flip(-1).tolist()  # cos to the right, sin up
    ax.add_patch(Arc((0, 0), 2, 2, color=style.PALE, lw=1.2, zorder=0))
    for row, start in enumerate(starts):
        for t, color in ((start, style.COLORS["position"]), (start + shift, style.PAPER)):
            px, py = points[t]
            ax.plot([0, px], [0, py], color=style.GRAY, lw=0.7)
            ax.plot(px, py, "o", ms=5, mfc=color, mec=style.INK, mew=0.8, zorder=3)
            ax.text(1.22 * px, 1.22 * py, str(t), ha="center", va="center", fontsize=8)
        radius = (0.45, 0.62)[row]
        angles = [math.degrees(math.atan2(*points[t][::-1])) for t in (start, start + shift)]
        ax.add_patch(Arc((0, 0), 2 * radius, 2 * radius, theta1=angles[0], theta2=angles[1],
                         color=style.INK, lw=1.6))  # fmt: skip
    turn = (angles[1] - angles[0]) % 360
    ax.set(xlim=(-1.4, 1.4), ylim=(-1.4, 1.4), aspect="equal")
    ax.set_axis_off()
    ax.set_title(f"pair {pair}: {shift} steps turn {turn:.0f}°", loc="center")


@style.figure
def rotation(table: Any, pair: int, shift: int, starts: Sequence[int]) -> Figure:
    """A shift in position is a turn by a fixed angle; products depend on the distance alone."""
    fig, (left, right) = _panels(2.35, columns=2, width_ratios=(1, 1.5))
    _turns(left, table, pair, shift, starts)
    products = (table @ table.T) / (table.shape[1] / 2)
    reach = len(table) // 2
    for row, start in enumerate((0, reach // 2, reach - 1)):
        right.plot(range(reach), products[start, start : start + reach].tolist(),
                   style.LINES[row], color=style.SEQUENCE[row], lw=(3.2, 2.0, 1.0)[row],
                   label=f"from position {start}")  # fmt: skip
    right.axhline(0, color=style.GRAY, lw=0.6)
    right.set(xlabel="distance $k$", ylabel="product / its maximum")
    right.set_title("PE($t$) · PE($t+k$)")
    right.legend()
    return fig


@style.figure
def rotary(query: Any, key: Any, angle: float, places: Sequence[tuple[int, int]]) -> Figure:
    """Query and key turned by their positions: equal distance, equal angle between them."""
    fig, axes = _panels(2.1, columns=len(places))
    for ax, place in zip(axes, places, strict=True):
        vectors = []
        for base, t, role in ((query, place[0], "query"), (key, place[1], "key")):
            c, s = math.cos(t * angle), math.sin(t * angle)
            vectors.append((c * base[0] - s * base[1], s * base[0] + c * base[1]))
            vx, vy = vectors[-1]
            _arrow(ax, (0, 0), (vx, vy), style.COLORS[role], width=2.0)
            ax.text(1.24 * vx, 1.24 * vy, f"{role[0]} at {t}", ha="center", va="center",
                    fontsize=8)  # fmt: skip
        product = sum(a * b for a, b in zip(*vectors, strict=True))
        ax.add_patch(Arc((0, 0), 2, 2, color=style.PALE, lw=1.2, zorder=0))
        ax.set(xlim=(-1.5, 1.5), ylim=(-1.35, 1.35), aspect="equal")
        ax.set_axis_off()
        score = f"{product:.2f}".replace("-", "−")
        ax.set_title(f"distance {place[1] - place[0]}: q · k = {score}", loc="center")
    return fig


@style.figure
def addition(tokens: list[str], token: Any, position: Any, batch_size: int) -> Figure:
    """``x = token_embedding + position_embedding``: real values, true shapes."""
    fig, axes = _panels(2.75, columns=3)
    shown, full = (len(tokens), 12), tuple(token.shape)
    shapes = (f"({batch_size}, {full[0]}, {full[1]})", f"({full[0]}, {full[1]})")
    names = (
        ("token_embedding[ids]", shapes[0], "token", token),
        ("+  position_embedding", shapes[1], "position", position),
        ("=  x", shapes[0], "value", token + position),
    )
    limit = float((token + position)[: shown[0], : shown[1]].abs().max())
    for ax, (name, shape, _, values) in zip(axes, names, strict=True):
        ax.pcolormesh(values[: shown[0], : shown[1]].numpy(), cmap=style.HEAT, vmin=-limit,
                      vmax=limit, edgecolors=style.PAPER, linewidth=0.6)  # fmt: skip
        ax.set(ylim=(shown[0], 0), xticks=(), yticks=())
        ax.spines[:].set_visible(False)
        ax.set_title(f"{name}\n{shape}", fontsize=8, loc="center")
        ax.set_xlabel(f"dimensions 0 to {shown[1] - 1} of {full[1]}", fontsize=7.5)
    for ax in (axes[0], axes[2]):  # the rows of a token that comes up more than once
        for t in (t for t, token_text in enumerate(tokens) if tokens.count(token_text) > 1):
            ax.add_patch(Rectangle((0, t), shown[1], 1, fill=False, ec=style.INK,
                                   lw=1.8, zorder=3, clip_on=False))  # fmt: skip
    axes[0].set_yticks([t + 0.5 for t in range(shown[0])], [f"“{t}”" for t in tokens],
                       fontsize=7.5)  # fmt: skip
    axes[1].set_yticks([t + 0.5 for t in range(shown[0])], [str(t) for t in range(shown[0])],
                       fontsize=7.5)  # fmt: skip
    for ax in axes:
        ax.tick_params(length=0)
    return fig


# --- distances, costs, losses -------------------------------------------------------------------


@style.figure
def cosines(samples: Mapping[int, Any]) -> Figure:
    """Cosines of random pairs at several widths against the normal curve of spread 1/sqrt(D)."""
    fig, ax = style.canvas("text", 2.5)
    for row, (width, cosine) in enumerate(samples.items()):
        edges = [i / 100 for i in range(-60, 61)]
        ax.hist(cosine, bins=edges, density=True, color=_tint(style.SEQUENCE[row], 0.45),
                edgecolor="none")  # fmt: skip
        spread = 1 / math.sqrt(width)
        curve = [math.exp(-((e / spread) ** 2) / 2) / spread / math.sqrt(2 * math.pi)
                 for e in edges]  # fmt: skip
        ax.plot(edges, curve, style.LINES[row], color=style.SEQUENCE[row], lw=1.5,
                label=f"D = {width}: theory, spread {spread:.3f}")  # fmt: skip
    ax.set(xlabel="cosine of two different tokens", ylabel="density", xlim=(-0.6, 0.6))
    ax.legend()
    return fig


@style.figure
def parameter_share(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """How much of each model is its token table, its output head, and everything else."""
    fig, ax = style.canvas("text", 0.9 + 0.24 * len(rows))
    parts = (("token", "token embedding", "", style.COLORS["token"]),
             ("head", "output head of its own", "////", style.COLORS["token"]),
             ("rest", "everything else", "", style.PALE))  # fmt: skip
    labels = [f"{row['name']}  ({row['total'] / 1e6:,.0f} M)" for row in rows]
    left = [0.0] * len(rows)
    for key, label, hatch, color in parts:
        share = [100 * row[key] / row["total"] for row in rows]
        fill = _tint(color, 0.35) if hatch else color
        ax.barh(labels, share, left=left, color=fill, hatch=hatch, edgecolor=style.INK,
                linewidth=0.5, height=0.68, label=label)  # fmt: skip
        left = [a + b for a, b in zip(left, share, strict=True)]
    for y, row in enumerate(rows):
        share = 100 * (row["token"] + row["head"]) / row["total"]
        ax.text(share + 1, y, f"{share:.0f}%", va="center_baseline", fontsize=7.5)
    ax.invert_yaxis()
    ax.set(xlabel="percent of the parameters", xlim=(0, 100))
    ax.legend(loc="upper center", ncols=3, bbox_to_anchor=(0.4, 1.16), handlelength=1.3)
    return fig


@style.figure
def impossible_loss(losses: Mapping[str, Sequence[float]], lines: Mapping[str, float]) -> Figure:
    """Training losses with right and wrong targets, and the floor no honest model passes."""
    fig, ax = style.canvas("text", 2.5)
    for row, (name, loss) in enumerate(losses.items()):
        color = style.COLORS[("good", "bad")[row]]
        ax.plot(loss, style.LINES[row], color=color, lw=1.2, label=name)
    for row, (name, value) in enumerate(lines.items()):
        ax.axhline(value, color=style.COLORS["floor"], lw=0.9, ls=style.LINES[row + 2])
        low = value < 1  # no room under a low line, and the legend to the right of its middle
        place, shift, va = (0.66, 0.1, "bottom") if low else (1.0, -0.15, "top")
        ax.text(place * len(loss), value + shift, name, ha="right", va=va, fontsize=8)
    ax.set(xlabel="step", ylabel="loss (nats a token)", ylim=(0, None), xlim=(0, len(loss)))
    ax.legend(loc="upper right", bbox_to_anchor=(1.0, 0.3))
    return fig
