"""Figures of chapter 6, Classification: what texts leave open, what labels buy, what LoRA adds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator, PercentFormatter

from figures import style

Curve = Sequence[tuple[float, float, float]]  # (x, mean, half of the interval)
GPT2_LAYER = (768, 3072, 8)  # inputs, outputs and rank of the layer that ``lora`` draws


def _percent(ax: Axes, axis: str = "y") -> None:
    along = getattr(ax, f"{axis}axis")
    along.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    along.set_major_formatter(PercentFormatter(1.0, decimals=0))


# --- the task -----------------------------------------------------------------------------------


@style.figure
def posteriors(odds: Mapping[str, Sequence[float]], labels: Mapping[str, str]) -> Figure:
    """How many texts of each task have which true probability of a label."""
    fig, panels = style.canvas("text", 2.2, columns=len(odds))
    bins = [i / 20 for i in range(21)]
    for ax, (task, values) in zip(panels, odds.items(), strict=True):
        share = [1 / len(values)] * len(values)
        ax.hist(values, bins, weights=share, color=style.COLORS["value"], ec=style.INK, lw=0.4)
        ax.axvline(0.5, color=style.INK, lw=0.9, ls="--")
        ax.set(title=task, xlabel=f"true probability of {labels[task]}", xlim=(0, 1))
        _percent(ax)
    panels[0].set_ylabel("share of texts")
    return fig


# --- where to read ------------------------------------------------------------------------------


@style.figure
def read_out(curves: Mapping[str, Sequence[float]], distances: Sequence[int]) -> Figure:
    """Accuracy of a head by how many tokens before the end it reads, for several bodies."""
    fig, ax = style.canvas("text", 2.5)
    places = range(len(distances))
    for row, (name, values) in enumerate(curves.items()):
        ax.plot(places, values, "o", ls=style.LINES[row], color=style.SEQUENCE[row], label=name)
    ax.axhline(0.5, color=style.INK, lw=0.9, ls=":")
    ax.text(0.99, 0.5, "a coin", ha="right", va="bottom", fontsize=7.5,
            transform=ax.get_yaxis_transform())  # fmt: skip
    ax.set_xticks(places, [str(n) for n in distances])
    ax.invert_xaxis()
    ax.set(xlabel="tokens before the last one", ylabel="accuracy", ylim=(0.42, 1))
    _percent(ax)
    ax.legend(loc="upper left", ncols=2)
    return fig


# --- labels -------------------------------------------------------------------------------------


@style.figure
def label_efficiency(tasks: Mapping[str, Mapping[str, Curve]], best: Mapping[str, float]) -> Figure:
    """Accuracy by number of labels, an arm a line with its intervals, under the Bayes line."""
    fig, panels = style.canvas("text", 3.1, columns=len(tasks), squeeze=False)
    for ax, (task, arms) in zip(panels[0], tasks.items(), strict=True):
        for row, (arm, curve) in enumerate(arms.items()):
            n, mean, half = zip(*curve, strict=True)
            n = [one * 1.05 ** (row - len(arms) / 2) for one in n]  # bars beside one another
            ax.errorbar(n, mean, half, fmt="o", ms=3, ls=style.LINES[row], lw=1.3, capsize=2,
                        color=(*style.SEQUENCE, style.GRAY)[row], label=arm)  # fmt: skip
        ax.axhline(best[task], color=style.COLORS["floor"], lw=1.1)
        ax.text(0.02, best[task], "the best possible", va="bottom", fontsize=7.5,
                transform=ax.get_yaxis_transform())  # fmt: skip
        ticks = sorted({n for curve in arms.values() for n, _, _ in curve})
        ax.set(title=task, xlabel="labels", xscale="log")
        ax.set_xticks(ticks, [f"{n:,}" for n in ticks], minor=False)
        ax.tick_params(axis="x", labelrotation=45, which="major")
        ax.minorticks_off()
        _percent(ax)
        top = best[task]
        low = min(m - h for curve in arms.values() for _, m, h in curve)
        ax.set_ylim(low - 0.06 * (top - low), top + 0.10 * (top - low))
    panels[0][0].set_ylabel("accuracy")
    handles, names = panels[0][0].get_legend_handles_labels()
    fig.legend(handles, names, loc="outside lower center", ncols=4)
    return fig


# --- errors and probabilities -------------------------------------------------------------------


@style.figure
def beside_truth(
    model: Sequence[float], truth: Sequence[float], came: Sequence[bool], label: str
) -> Figure:
    """The model's probability of a label against the true one, text by text."""
    fig, ax = style.canvas("narrow", 3.3)
    for wanted, mark, color in ((True, "o", "good"), (False, "x", "bad")):
        points = [(p, q) for p, q, c in zip(truth, model, came, strict=True) if c == wanted]
        name = f"ended {label}" if wanted else "ended otherwise"
        look = {"mfc": "none"} if wanted else {}
        ax.plot(*zip(*points, strict=True), mark, ms=3, mew=0.7, label=name,
                color=style.COLORS[color], **look)  # fmt: skip
    ax.plot((0, 1), (0, 1), color=style.INK, lw=0.8, ls="--")
    for line in (ax.axhline, ax.axvline):
        line(0.5, color=style.GRAY, lw=0.7)
    for x, y, words in ((0.02, 0.96, "mistakes"), (0.78, 0.02, "mistakes")):
        ax.text(x, y, words, fontsize=7.5, style="italic")
    ax.set(xlabel=f"true probability of {label}", ylabel="the model's", xlim=(0, 1), ylim=(0, 1))
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    return fig


@style.figure
def reliability(bins: Mapping[str, tuple[Sequence[float], Sequence[float]]]) -> Figure:
    """How often the predicted label was right, by the probability it was given."""
    fig, ax = style.canvas("narrow", 2.6)
    ax.plot((0.5, 1), (0.5, 1), color=style.INK, lw=0.8, ls="--")
    for row, (name, (confidence, right)) in enumerate(bins.items()):
        color = style.COLORS["bad" if row == 0 else "good"]
        ax.plot(confidence, right, "os"[row], ls=style.LINES[row], color=color, label=name)
    ax.set(xlabel="probability of the predicted label", ylabel="how often it was right")
    lowest = min(min(right) for _, right in bins.values())
    ax.set(xlim=(0.49, 1.01), ylim=(min(0.3, lowest - 0.05), 1.02))
    ax.legend(loc="upper left")
    return fig


# --- LoRA ---------------------------------------------------------------------------------------


@style.figure
def lora() -> Figure:
    """A layer of GPT-2 small, and the two thin matrices beside it, drawn thicker than they are."""
    n_in, n_out, r = GPT2_LAYER
    fig, ax = style.canvas("text", 2.9)
    frozen, learned = style.PALE, style.COLORS["gradient"]
    thin = 0.012  # of the axes: true to scale it would be a hair
    tall, wide = 0.72, 0.72 * n_in / n_out

    def box(x: float, y: float, w: float, h: float, color: str, hatch: str = "") -> None:
        ax.add_patch(Rectangle((x, y), w, h, fc=color, ec=style.INK, lw=0.8, hatch=hatch))

    box(0.10, 0.1, wide, tall, frozen)
    ax.text(0.10 + wide / 2, 0.46, "$W$", ha="center", va="center", fontsize=11)
    ax.text(0.10 + wide / 2, 0.86, f"{n_out} × {n_in}: {n_out * n_in:,}", ha="center")
    ax.text(0.10 + wide / 2, 0.02, "frozen", ha="center", color=style.GRAY)
    ax.text(0.37, 0.46, r"$+\;\;\frac{\alpha}{r}$", ha="center", va="center", fontsize=13)
    box(0.46, 0.1, thin, tall, learned, "////")
    ax.text(0.46 + thin / 2, 0.86, f"$B$  {n_out} × {r}: {n_out * r:,}", ha="center")
    box(0.54, 0.46 - thin, wide, 2 * thin, learned, "////")
    ax.text(0.54 + wide / 2, 0.53, f"$A$  {r} × {n_in}: {r * n_in:,}", ha="center")
    share = r * (n_in + n_out) / (n_in * n_out)
    ax.text(0.80, 0.46, f"learned beside\n{n_out * n_in:,} numbers:\n{r * (n_in + n_out):,},"
            f" or {share:.1%}", va="center")  # fmt: skip
    ax.set(xlim=(0, 1), ylim=(0, 0.95))
    ax.axis("off")
    return fig
