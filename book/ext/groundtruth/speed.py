"""``{how-fast}``: what ``results/`` records of speed, beside peers and limits; nothing is typed."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

from .colophon import Table

Row = tuple[str, ...]


@dataclass(frozen=True)
class Measured:
    """One record as a table, and the line that says how it was made."""

    title: str
    header: Row
    widths: str
    rows: list[Row]
    made: str


def made_by(record: dict[str, Any]) -> str:
    """The command, machine, versions and commit of a record, and how busy the machine was."""
    machine = record["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    state = ", with changes that were not committed" if record["uncommitted_changes"] else ""
    cores = f"{machine['cores']} cores"
    if "instructions" in machine:
        sixteen = [f"`{name}`" for name in machine["instructions"] if "bf16" in name]
        cores += f", instructions for 16 bits: {', '.join(sixteen) or 'none'}"
    return (
        f"`{record['command']}` on {machine['started'][:10]}; {machine['cpu']}, "
        f"{cores}, load {machine['load_at_start']:.1f} at the start"
        f"{rounds(record['rows'])}; {versions}; commit `{record['commit'][:12]}`{state}"
    )


def rounds(rows: Iterable[dict[str, Any]]) -> str:
    """How often each thing was measured, and how far the slowest lies above the fastest."""
    runs = [row["seconds"] for row in rows if isinstance(row.get("seconds"), list)]
    runs = [run for run in runs if len(run) > 1]
    if not runs:
        return ""
    usual = statistics.median((max(run) - min(run)) / statistics.median(run) for run in runs)
    n = sorted({len(run) for run in runs})
    often = f"{n[0]}" if len(n) == 1 else f"{n[0]} to {n[-1]}"
    return f"; medians of {often} rounds, which for half of the rows differ by {usual:.0%} or more"


def times(a: float, b: float) -> str:
    return f"{a / b:.2f}\u00a0×"


def fastest(rows: Iterable[dict[str, Any]]) -> dict[str, Any]:
    return min(rows, key=lambda row: row["median_seconds"])


def tokenizer(record: dict[str, Any]) -> list[Row]:
    found = []
    jobs = [row for row in record["rows"] if row["contender"] == "llm_core"]
    for ours in jobs:
        same = ("task", "megabytes", "vocab_size")
        peers = [
            row
            for row in record["rows"]
            if all(row.get(key) == ours.get(key) for key in same)
            and row["contender"] in ("rustbpe", "tokenizers", "tiktoken")
        ]
        if peers:
            peer = fastest(peers)
            found.append((
                f"{ours['task']}, {ours['megabytes']} MB, {ours['vocab_size']:,} ids",
                f"{ours['megabytes_per_second']:.1f} MB/s",
                f"{peer['megabytes_per_second']:.1f} MB/s ({peer['contender']})",
                times(peer["median_seconds"], ours["median_seconds"]),
                times(ours["peak_memory_megabytes"], peer["peak_memory_megabytes"]),
            ))  # fmt: skip
    return found


def training(record: dict[str, Any]) -> list[Row]:
    """A row against the peers as they ship, and one in 16 bits where the record has them."""
    found = []
    for shape, at in record["shapes"].items():
        if all((row["shape"], row["task"]) != (shape, "limit") for row in record["rows"]):
            continue  # it is there for the memory
        steps = {
            row["contender"]: row
            for row in record["rows"]
            if (row["shape"], row["task"]) == (shape, "step")
        }
        dtype = "bfloat16" if "llm_core" in steps else "float32"
        ours = steps["llm_core" if dtype == "bfloat16" else "llm_core, float32"]
        peers = [row for name, row in steps.items() if "llm_core" not in name]
        for kind, some in (
            ("in 16 bits", [row for row in peers if "bf16" in row["contender"]]),
            ("as shipped", [row for row in peers if "bf16" not in row["contender"]]),
        ):
            if not some:
                continue
            peer = fastest(some)
            found.append((
                f"{shape}, {at['batch_size']} × {at['context_length']}; peers {kind}",
                f"{ours['tokens_per_second']:,.0f} tokens/s",
                f"{peer['tokens_per_second']:,.0f} tokens/s ({peer['contender'].split(',')[0]})",
                times(peer["median_seconds"], ours["median_seconds"]),
                f"{ours[f'share_of_{dtype}_limit']:.0%}",
            ))  # fmt: skip
    return found


def story(record: dict[str, Any]) -> list[Row]:
    """``train`` beside a plain PyTorch loop, each as it is and compiled."""
    by = {row["contender"]: row for row in record["rows"]}
    return [
        (
            f"{record['batch_size']} × {record['context_length']} tokens{kind}",
            f"{by['train' + kind]['tokens_per_second']:,.0f} tokens/s",
            f"{by['plain' + kind]['tokens_per_second']:,.0f} tokens/s (plain loop)",
            times(by["train" + kind]["tokens_per_second"], by["plain" + kind]["tokens_per_second"]),
            f"{by['train' + kind]['share_of_limit']:.0%}",
        )
        for kind in ("", ", compiled")
    ]


def generation(record: dict[str, Any]) -> list[Row]:
    found = []
    for dtype, batch in dict.fromkeys((row["dtype"], row["batch"]) for row in record["rows"]):
        here = {
            row["contender"]: row
            for row in record["rows"]
            if (row["dtype"], row["batch"]) == (dtype, batch)
        }
        ours = fastest([here["llm_core"], here["llm_core in PyTorch"]])  # as generate chooses
        for peer in (fastest([here["transformers"], here["litgpt"]]), here.get("llama.cpp")):
            if peer:
                found.append((
                    f"{dtype}, {batch} at a time",
                    f"{ours['tokens_per_second']:,.0f} tokens/s",
                    f"{peer['tokens_per_second']:,.0f} tokens/s ({peer['contender']})",
                    times(peer["median_seconds"], ours["median_seconds"]),
                    f"{ours['of_floor']:.0%}",
                ))  # fmt: skip
    return found


def attention(record: dict[str, Any]) -> list[Row]:
    found = []
    kinds = {(row["kind"], row["length"]): row for row in record["rows"] if row["backward"]}
    for length in sorted({length for _, length in kinds}):
        table, fused = kinds["table", length], kinds["fused", length]
        found.append((
            f"{length:,} positions",
            f"{1e3 * fused['seconds']:,.0f} ms",
            f"{1e3 * table['seconds']:,.0f} ms",
            times(table["seconds"], fused["seconds"]),
            times(fused["bytes"], table["bytes"]),
        ))  # fmt: skip
    return found


PEERS = ("Job", "llm_core", "Fastest peer", "Speed")
BOTH = ("Job", "llm_core", "Peer", "Speed")
TABLES = (
    ("Tokenizers", "tokenizer", tokenizer, (*PEERS, "Memory")),
    ("Training steps", "train_step", training, (*PEERS, "Of the limit")),
    ("Training the stories' model", "story_step", story, (*PEERS, "Of the limit")),
    ("Generating with GPT-2 124M", "generate", generation, (*BOTH, "Of the limit")),
    (
        "Attention, forward and backward",
        "attention",
        attention,
        ("Length", "PyTorch's kernel", "With the table", "Speed", "Memory"),
    ),
)


def tables(root: Path) -> list[Measured]:
    """All records of speed, in the order of the chapters; those of ``results/`` before others'."""
    found = []
    for title, name, rows_of, header in TABLES:
        others = sorted(root.glob(f"results/*/{name}.json"))
        for path in (root / "results" / f"{name}.json", *others):
            record = json.loads(path.read_text(encoding="utf-8"))
            on = f"{title}, on {record['machine']['cpu']}"
            if path.parent.name != "results":  # two folders may hold records of one processor
                on += f" ({path.parent.name})"
            found.append(Measured(on, header, "32 20 26 11 11", rows_of(record), made_by(record)))
    return found


class HowFast(Table):
    def run(self) -> list[nodes.Node]:
        lines: list[str] = []
        for one in tables(Path(self.env.srcdir)):
            lines += ["```{raw} latex", r"\bookneed{9}", "```", "", f"**{one.title}**", ""]
            lines += self.table(list(one.header), one.widths, one.rows)
            lines += [one.made, ""]
        return self.parse_content(lines)


def setup(app: Sphinx) -> None:
    app.add_directive("how-fast", HowFast)
