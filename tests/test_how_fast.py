"""The page of speeds says what the records say, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from book.ext.groundtruth import speed

ROOT = Path(__file__).parents[1]


def rows(name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((ROOT / "results" / f"{name}.json").read_text())[
        "rows"
    ]
    return found


@pytest.fixture(scope="module")
def tables() -> dict[str, speed.Measured]:
    return {one.title: one for one in speed.tables(ROOT)}


def speeds(table: speed.Measured) -> list[str]:
    return [row[3] for row in table.rows]


def test_every_table_is_whole_and_says_how_it_was_made(tables: dict[str, speed.Measured]) -> None:
    assert len(tables) == len(speed.TABLES)
    for one in tables.values():
        assert one.rows and all(len(row) == len(one.header) for row in one.rows)
        assert len(one.widths.split()) == len(one.header)
        assert "`python bench/" in one.made and "cores" in one.made and "commit" in one.made


def test_tokenizers(tables: dict[str, speed.Measured]) -> None:
    ours = [
        f"{row['times_best_peer']:.2f}\u00a0×"
        for row in rows("tokenizer")
        if row["contender"] == "llm_core"
    ]
    assert speeds(tables["Tokenizers"]) == ours


def test_training(tables: dict[str, speed.Measured]) -> None:
    wanted = []
    for row in rows("train_step"):
        if row.get("contender") == "llm_core":
            shipped = min(row[f"times_{peer}_as_shipped"] for peer in ("transformers", "litgpt"))
            wanted += [f"{row['times_best_peer_in_bf16']:.2f}\u00a0×", f"{shipped:.2f}\u00a0×"]
    assert speeds(tables["Training steps"]) == wanted
    by = {row["contender"]: row for row in rows("story_step")}
    assert speeds(tables["Training the stories' model"]) == [
        f"{by['train']['times_plain']:.2f}\u00a0×",
        f"{by['train, compiled']['times_plain_compiled']:.2f}\u00a0×",
    ]


def test_generation(tables: dict[str, speed.Measured]) -> None:
    found = rows("generate")
    wanted = []
    for ours in found:
        if ours["contender"] != "llm_core":
            continue
        here = {
            row["contender"]: row["median_seconds"]
            for row in found
            if (row["dtype"], row["batch"]) == (ours["dtype"], ours["batch"])
        }
        best = min(here["llm_core"], here["llm_core in PyTorch"])
        gain = here["llm_core"] / best
        wanted.append(f"{ours['times_best_pytorch_peer'] * gain:.2f}\u00a0×")
        if "times_llama_cpp" in ours:
            wanted.append(f"{ours['times_llama_cpp'] * gain:.2f}\u00a0×")
    assert speeds(tables["Generating with GPT-2 124M"]) == wanted


def test_a_record_says_how_often_and_how_steadily_it_was_measured() -> None:
    found = [{"seconds": [1.0, 1.1, 1.2]}, {"seconds": [2.0, 2.0, 2.0]}, {"seconds": 4.0}]
    assert speed.rounds(found) == (
        "; medians of 3 rounds, which for half of the rows differ by 9% or more"
    )
    assert speed.rounds([{"seconds": 4.0}]) == ""


def test_attention(tables: dict[str, speed.Measured]) -> None:
    seconds = {(r["kind"], r["length"]): r["seconds"] for r in rows("attention") if r["backward"]}
    longest = max(length for _, length in seconds)
    gain = seconds["table", longest] / seconds["fused", longest]
    assert speeds(tables["Attention, forward and backward"])[-1] == f"{gain:.2f}\u00a0×"
