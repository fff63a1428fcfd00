"""Figures of the chapter on tokenization: bytes, merges, patterns, vocabularies and their prices.

The diagrams compute what they show with ``llm_core``; the curves take what the chapter measured.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

import numpy as np
import regex
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Rectangle

from figures import style
from llm_core import corpora
from llm_core.scanner import PATTERNS
from llm_core.tokenizer import train_bpe

MONO = "DejaVu Sans Mono"
FILL = "#FBE3B5"  # the token color, pale enough to write on
ROSE = "Rose is a rose is a rose is a rose."
CODE_LINE = '    log.append(parseURL("I\'LL pay 12345"))'

Word = tuple[bytes, ...]
Pair = tuple[bytes, bytes]


def _visible(token: bytes) -> str:
    """Text of a token with its spaces shown."""
    return token.decode("utf-8", "backslashreplace").replace(" ", "·")


def _bare(ax: Axes, width: float, height: float) -> None:
    """An empty drawing area of that many units, y downwards."""
    ax.set_xlim(0, width)
    ax.set_ylim(height, 0)
    ax.axis("off")


def _mono(ax: Axes, x: float, y: float, text: str, size: float, dark: bool = False) -> None:
    """Text in the code font around a point; ``dark`` is what it stands on."""
    color = style.PAPER if dark else style.INK
    ax.text(x, y, text, size=size, color=color, ha="center", va="center", family=MONO)


def _size_axis(ax: Axes, sizes: Sequence[int]) -> None:
    """The horizontal axis of vocabulary sizes, which are powers of two."""
    ax.set_xscale("log", base=2)
    ax.set_xticks(list(sizes), [f"{size:,}" for size in sizes])
    ax.tick_params(axis="x", labelsize=7)
    ax.set_xlabel("size of the vocabulary")
    ax.grid(axis="y")


def _box(
    ax: Axes, x: float, y: float, width: float, label: str, dark: bool = False, size: float = 6.5
) -> None:
    """A token as a rounded box, one unit high, with its text."""
    corner, shape = (x + 0.1, y + 0.14), "round,pad=0,rounding_size=0.18"
    face = style.INK if dark else FILL
    frame = FancyBboxPatch(corner, width - 0.2, 0.72, boxstyle=shape, fc=face, ec=style.INK, lw=0.5)
    ax.add_patch(frame)
    _mono(ax, x + width / 2, y + 0.5, label, size, dark)


def _merge(word: Word, pair: Pair) -> Word:
    """The word with every occurrence of the pair joined."""
    joined: list[bytes] = []
    i = 0
    while i < len(word):
        hit = word[i : i + 2] == pair
        joined.append(b"".join(pair) if hit else word[i])
        i += 2 if hit else 1
    return tuple(joined)


def _bytes(text: str) -> Word:
    return tuple(bytes([b]) for b in text.encode())


@style.figure
def utf8_bits(text: str = "Aé€😀") -> Figure:
    """Code points as bytes: UTF-8's marker bits dark, the code point's bits light."""
    fig, ax = style.canvas(height=2.0)
    _bare(ax, 46, 4.6 * len(text))
    for row, character in enumerate(text):
        y = 4.6 * row + 1.4
        data = character.encode()
        marker = 1 if len(data) == 1 else len(data) + 1
        ax.text(1.2, y + 1.2, character, size=13, va="center", ha="center")
        ax.text(3.2, y + 1.2, f"U+{ord(character):04X}", size=8, va="center", family=MONO)
        for k, byte in enumerate(data):
            x = 9 + 9.3 * k
            _mono(ax, x + 4, y - 0.6, f"{byte:02X}", 6.5)
            for bit in range(8):
                dark = bit < (marker if k == 0 else 2)
                face = style.INK if dark else FILL
                ax.add_patch(Rectangle((x + bit, y), 1, 2.4, fc=face, ec=style.INK, lw=0.5))
                _mono(ax, x + bit + 0.5, y + 1.2, f"{byte:08b}"[bit], 7, dark)
    return fig


@style.figure
def rose(n_merges: int = 10) -> Figure:
    """One line after each of its first merges, trained without a pattern."""
    merges = train_bpe(ROSE, 256 + n_merges, pattern=None).merges
    word = _bytes(ROSE)
    fig, ax = style.canvas(height=2.9)
    _bare(ax, len(ROSE) + 8, n_merges + 2)
    ax.text(-0.2, 0.5, "merge", size=7, va="center")
    ax.text(len(ROSE) + 7.8, 0.5, "tokens", size=7, va="center", ha="right")
    for row in range(n_merges + 1):
        made = b""
        if row:
            word = _merge(word, merges[row - 1])
            made = b"".join(merges[row - 1])
            ax.text(1.2, row + 1.5, str(row), size=7, va="center", ha="center")
        x = 3.5
        for token in word:
            _box(ax, x, row + 1, len(token), _visible(token), dark=token == made)
            x += len(token)
        ax.text(len(ROSE) + 6.5, row + 1.5, str(len(word)), size=7, va="center", ha="right")
    return fig


@style.figure
def patterns(line: str = CODE_LINE) -> Figure:
    """One line of code cut by the three patterns."""
    names = ("gpt2", "cl100k", "o200k")
    fig, ax = style.canvas(height=1.0)
    _bare(ax, len(line) + 6.0, 3)
    for row, name in enumerate(names):
        ax.text(0, row + 0.5, name, va="center", size=8)
        x = 6.0
        for piece in regex.findall(PATTERNS[name], line):
            _box(ax, x, row, len(piece), _visible(piece.encode()), size=7)
            x += len(piece)
    return fig


@style.figure
def three_alphabets(rows: Sequence[tuple[str, int, float, float, float]]) -> Figure:
    """Bytes a unit against vocabulary.

    ``rows`` hold name, vocabulary, bytes per unit, share of units and of documents not known.
    """
    fig, ax = style.canvas("narrow", 2.5)
    for k, (name, size, length, _, spoiled) in enumerate(rows):
        face = style.COLORS["token"] if spoiled == 0 else "none"
        ax.plot(size, length, "o", ms=7, mec=style.INK, mfc=face)
        label = f"{name}\n({spoiled:.1%})" if spoiled else name
        shift, va = (-8, "top") if k % 2 else (7, "bottom")
        ax.annotate(
            label,
            (size, length),
            (0, shift),
            textcoords="offset points",
            ha="center",
            va=va,
            size=7.5,
        )
    ax.set_xscale("log")
    low, high = min(r[1] for r in rows), max(r[1] for r in rows)
    ax.set_xlim(low / 4, high * 5)
    ax.set_ylim(0, max(r[2] for r in rows) * 1.25)
    ax.set_xlabel("entries in the vocabulary")
    ax.set_ylabel("bytes per unit")
    return fig


def _tree(ax: Axes, word: str, ranks: Mapping[Pair, int]) -> None:
    """Draw one word's merges: leaves on the ground line, ranks in the joints."""
    parts = [(byte, float(i), 0.0) for i, byte in enumerate(_bytes(word))]
    for token, x, _ in parts:
        ax.text(x, -0.15, _visible(token), ha="center", va="top", size=8.5, family=MONO)
    while True:
        pairs = [(a[0], b[0]) for a, b in pairwise(parts)]
        known = [p for p in pairs if p in ranks]
        if not known:
            break
        at = pairs.index(min(known, key=ranks.__getitem__))
        (a, xa, ya), (b, xb, yb) = parts[at : at + 2]
        x, y = (xa + xb) / 2, max(ya, yb) + 1
        ax.plot([xa, xa, xb, xb], [ya, y, y, yb], color=style.INK, lw=0.8, zorder=1)
        frame = {"boxstyle": "round,pad=0.18", "fc": FILL, "ec": style.INK, "lw": 0.5}
        rank = f"{ranks[a, b]:,}"
        ax.text(x, y, rank, ha="center", va="center", size=6.5, zorder=3, bbox=frame)
        parts[at : at + 2] = [(a + b, x, y)]
    for token, x, y in parts:
        ax.plot([x, x], [y, y + 0.6], color=style.INK, lw=0.8, zorder=1)
        ax.text(x, y + 0.7, _visible(token), ha="center", va="bottom", size=8, family=MONO)


@style.figure
def merge_tree(merges: Sequence[Pair], *words: str) -> Figure:
    """How the ranks put words together, one tree (or forest) a word, side by side."""
    ranks = {pair: rank for rank, pair in enumerate(merges)}
    ratios = [len(word) for word in words]
    fig, _ = style.canvas(height=2.5, columns=len(words), sharey=True, width_ratios=ratios)
    for ax, word in zip(fig.axes, words, strict=True):
        _tree(ax, word, ranks)
        ax.set_xlim(-0.7, len(word.encode()) - 0.3)
        ax.axis("off")
    return fig


@style.figure
def wasted_visits(everything: Sequence[int], needed: Sequence[int]) -> Figure:
    """Pairs visited at each merge by the readable trainer, and those that mattered."""
    fig, ax = style.canvas(height=2.5)
    x = np.arange(1, len(everything) + 1)
    window = max(1, len(x) // 12)
    padded = np.pad(np.asarray(needed, dtype=float), window // 2, mode="reflect")
    mean = np.convolve(padded, np.ones(window) / window, mode="same")[window // 2 :][: len(x)]
    ax.fill_between(x, mean, everything, color=style.PALE, lw=0)
    ax.plot(x, everything, color=style.COLORS["peer"])
    ax.plot(x, needed, ".", color=style.COLORS["ours"], ms=2)
    ax.plot(x, mean, color=style.COLORS["ours"])
    ax.set_yscale("log")
    ax.set_xlim(1, len(everything))
    ax.set_ylim(0.25, max(everything) * 3)
    ax.set_xlabel("merge")
    ax.set_ylabel("pairs visited")
    ax.text(len(x) * 0.6, (everything[-1] * mean[-1]) ** 0.5, "wasted", size=9, ha="center")
    ax.text(
        len(x) * 0.98, everything[-1] * 1.2, "every pair of every word", ha="right", va="bottom"
    )
    ax.text(len(x) * 0.98, 0.35, "pairs in words that hold the winner", ha="right", va="bottom")
    return fig


def _middle_merge(word: Word, merges: Iterable[Pair]) -> tuple[Word, Word, Pair]:
    """The word before and after the last merge that has a neighbor on both sides."""
    found: tuple[Word, Word, Pair] | None = None
    for pair in merges:
        merged = _merge(word, pair)
        if merged != word and pair != word[:2] and pair != word[-2:]:
            found = word, merged, pair
        word = merged
    if found is None:
        raise ValueError("no merge of this word has two neighbors; choose a longer word")
    return found


@style.figure
def one_merge(piece: str = " interpolation") -> Figure:
    """What one merge changes in one word: three pairs lose its count, two gain it."""
    text = "\n\n".join(corpora.documents("docs", sources=("matplotlib",)))
    count = Counter(regex.findall(PATTERNS["gpt2"], text))[piece]
    before, after, pair = _middle_merge(_bytes(piece), train_bpe(text, 2048).merges)
    fig, ax = style.canvas(height=1.8)
    _bare(ax, 46, 7)
    start = next(i for i in range(len(before)) if before[i : i + 2] == pair)
    rows = (
        (before, 1.5, -1, 1.25, range(start - 1, start + 2), "before"),
        (after, 4.3, 1, 5.9, range(start - 1, start + 1), "after"),
    )
    scale = 38 / len(piece)
    for word, y, sign, label_y, changed, name in rows:
        ax.text(0, y + 0.5, name, va="center", size=8)
        x, centers = 6.0, []
        for token in word:
            width = scale * len(token)
            _box(ax, x, y, width, _visible(token), dark=token == b"".join(pair), size=8)
            centers.append(x + width / 2)
            x += width
        for i in changed:
            at = (centers[i] + centers[i + 1]) / 2
            near, far = (y + 0.05, y - 0.35) if sign < 0 else (y + 0.95, y + 1.35)
            left, right = centers[i] + 0.15, centers[i + 1] - 0.15
            ax.plot([left, left, right, right], [near, far, far, near], color=style.INK, lw=0.7)
            label, va = f"{sign * count:+d}".replace("-", "−"), "bottom" if sign < 0 else "top"
            ax.text(at, label_y - 0.3 * (sign < 0), label, ha="center", va=va, size=7.5)
    return fig


@style.figure
def length_by_size(
    sizes: Sequence[int], curves: Mapping[tuple[str, str], Sequence[float]]
) -> Figure:
    """Bytes a token on held-out text; ``curves[trained on, tested on]`` along ``sizes``."""
    fig, ax = style.canvas(height=2.8)
    roles = {"docs": "query", "code": "key", "stories": "value"}
    marker = {"docs": "o", "code": "s", "stories": "^"}
    for (trained, tested), curve in curves.items():
        ink, mark = style.COLORS[roles[tested]], marker[tested]
        line, face = ("-", ink) if trained == tested else ("--", style.PAPER)
        label = f"{tested}, trained on {trained}"
        ax.plot(sizes, curve, line, label=label, color=ink, marker=mark, mfc=face)
    _size_axis(ax, sizes)
    ax.set_ylim(bottom=0)
    ax.set_ylabel("bytes per token")
    ax.legend(loc="lower right")
    return fig


@style.figure
def cost_per_byte(sizes: Sequence[int], costs: Mapping[str, Sequence[float]]) -> Figure:
    """Operations for a byte of text, relative to the cheapest vocabulary of each model."""
    fig, ax = style.canvas(height=2.6)
    for k, (name, cost) in enumerate(costs.items()):
        relative = np.asarray(cost) / min(cost)
        best = int(np.argmin(relative))
        color = style.SEQUENCE[k]
        ax.plot(sizes, relative, color=color, ls=style.LINES[k], label=name)
        ax.plot(sizes[best], 1, "o", color=color, ms=6, mec=style.INK, zorder=3, clip_on=False)
    _size_axis(ax, sizes)
    ax.set_ylim(0.95, 2.6)
    ax.set_ylabel("cost of a byte of text\n(cheapest = 1)")
    ax.legend(loc="upper center")
    return fig


@style.figure
def zipf(token_counts: Mapping[int, Sequence[int]], word_counts: Sequence[int]) -> Figure:
    """Rank against frequency of words and of tokens by vocabulary size; a line of slope -1."""
    fig, ax = style.canvas(height=2.7)
    curves = [("words", word_counts), *((f"V = {v:,}", c) for v, c in token_counts.items())]
    for k, (name, counts) in enumerate(curves):
        ordered = np.sort(np.asarray(counts))[::-1]
        ordered = ordered[ordered > 0]
        at = np.unique(np.geomspace(1, len(ordered), 400).astype(int))
        color = style.SEQUENCE[k - 1] if k else style.COLORS["peer"]
        ax.plot(at, ordered[at - 1], color=color, ls=style.LINES[k], label=name)
    span = np.array([1, len(word_counts)])
    top = 30 * max(word_counts)
    ax.plot(span, top / span, color=style.INK, lw=0.6)
    ax.text(100, 1.4 * top / 100, "ten times the rank, a tenth as often", size=7.5, va="bottom")
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_ylim(bottom=0.7)
    ax.set_xlabel("rank")
    ax.set_ylabel("occurrences")
    ax.legend(loc="lower left")
    return fig


@style.figure
def tax(lengths: Mapping[str, tuple[int, int]]) -> Figure:
    """Bytes and tokens of the same text relative to English; ``lengths[language]`` has both."""
    fig, ax = style.canvas(height=2.9)
    english_bytes, english_tokens = lengths["English"]
    ordered = sorted(lengths, key=lambda name: lengths[name][1], reverse=True)
    for y, name in enumerate(ordered):
        n_bytes, n_tokens = lengths[name]
        premium = n_tokens / english_tokens
        ax.barh(y, premium, height=0.72, color=style.COLORS["token"])
        ax.barh(y, n_bytes / english_bytes, height=0.3, color=style.PAPER, ec=style.INK, lw=0.9)
        ax.text(premium + 0.06, y, f"{premium:.1f}", va="center", size=7.5)
    ax.axvline(1, color=style.INK, lw=0.8, ls=":")
    ax.set_yticks(range(len(ordered)), ordered)
    ax.tick_params(axis="y", length=0)
    ax.set_xlabel("relative to English: tokens (filled), bytes (open)")
    return fig


@style.figure
def speed(rows: Sequence[tuple[str, float, int, float]]) -> Figure:
    """Seconds of training against size; ``rows`` hold name, megabytes, vocabulary, seconds."""
    names, sizes = sorted({r[0] for r in rows}), sorted({r[2] for r in rows})
    megabytes = sorted({r[1] for r in rows})
    fig, _ = style.canvas(height=2.7, columns=len(sizes), sharey=True, squeeze=False)
    for ax, size in zip(fig.axes, sizes, strict=True):
        for k, name in enumerate(names):
            points = sorted((mb, s) for n, mb, v, s in rows if (n, v) == (name, size))
            color = style.COLORS["ours"] if name == "llm_core" else style.COLORS["peer"]
            x, y = [mb for mb, _ in points], [s for _, s in points]
            ax.plot(x, y, color=color, ls=style.LINES[k], marker="osDv^<>"[k], label=name)
        ax.set_xscale("log")
        ax.set_yscale("log")
        ax.set_xticks(megabytes, [f"{mb:g}" for mb in megabytes])
        ax.set_xticks([], minor=True)
        ax.set_xlim(megabytes[0] / 2, megabytes[-1] * 2)
        ax.yaxis.set_major_formatter("{x:g}")
        ax.set_title(f"{size:,} ids")
        ax.set_xlabel("megabytes of text")
        ax.grid(axis="y")
    fig.axes[0].set_ylabel("seconds")
    fig.axes[-1].legend(loc="upper left")
    return fig


@style.figure
def encoding_speed(rows: Sequence[tuple[str, float]]) -> Figure:
    """Megabytes encoded in a second; ``rows`` hold name and speed."""
    fig, ax = style.canvas(height=0.5 + 0.24 * len(rows))
    for y, (name, value) in enumerate(sorted(rows, key=lambda row: row[1])):
        ours = name.startswith("llm_core")
        ax.barh(y, value, 0.7, color=style.COLORS["ours" if ours else "peer"], ec=style.INK, lw=0.5)
        ax.text(value, y, f" {value:.0f}", va="center", size=7.5)
    ax.set_yticks(range(len(rows)), [name for name, _ in sorted(rows, key=lambda row: row[1])])
    ax.tick_params(axis="y", length=0)
    ax.set_xlabel("megabytes a second")
    return fig
