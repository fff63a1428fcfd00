"""The page of speeds says what the records say, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from book.ext.groundtruth import speed

ROOT = Path(__file__).parents[1]


Record = dict[str, Any]


def records(name: str) -> dict[str, Record]:
    """What results/ and the folders in it hold of one bench, by the end of its title."""
    found = {}
    for path in (ROOT / "results" / f"{name}.json", *ROOT.glob(f"results/*/{name}.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        folder = path.parent.relative_to(ROOT / "results").name
        found[record["machine"]["cpu"] + (f" ({folder})" if folder else "")] = record
    return found


@pytest.fixture(scope="module")
def tables() -> dict[str, speed.Measured]:
    return {one.title: one for one in speed.tables(ROOT)}


def pairs(
    tables: dict[str, speed.Measured], title: str, name: str
) -> list[tuple[list[str], list[Record]]]:
    """The column of speeds and the rows of the record, of every machine."""
    return [
        (
            [row[3] for row in tables[f"{title}, on {machine}"].rows],
            record["rows"],
        )
        for machine, record in records(name).items()
    ]


def test_every_table_is_whole_and_says_how_it_was_made(tables: dict[str, speed.Measured]) -> None:
    assert len(tables) == sum(len(records(name)) for _, name, _, _ in speed.TABLES)
    for one in tables.values():
        assert one.rows and all(len(row) == len(one.header) for row in one.rows)
        assert len(one.widths.split()) == len(one.header)
        assert "`python bench/" in one.made and "cores" in one.made and "commit" in one.made


def test_tokenizers(tables: dict[str, speed.Measured]) -> None:
    for shown, rows in pairs(tables, "Tokenizers", "tokenizer"):
        ours = [row["times_best_peer"] for row in rows if row["contender"] == "llm_core"]
        assert shown == [f"{gain:.2f}\u00a0×" for gain in ours]


def test_training(tables: dict[str, speed.Measured]) -> None:
    for shown, rows in pairs(tables, "Training steps", "train_step"):
        steps = [row for row in rows if row["task"] == "step" and row["shape"] != "124M, long"]
        in_16 = any(row["contender"] == "llm_core" for row in steps)
        wanted = []
        for row in steps:
            if row["contender"] == ("llm_core" if in_16 else "llm_core, float32"):
                gains = (row[f"times_{peer}_as_shipped"] for peer in ("transformers", "litgpt"))
                wanted += [row["times_best_peer_in_bf16"]] if in_16 else []
                wanted += [min(gains)]
        assert shown == [f"{gain:.2f}\u00a0×" for gain in wanted]


def test_the_story_model(tables: dict[str, speed.Measured]) -> None:
    for shown, rows in pairs(tables, "Training the stories' model", "story_step"):
        by = {row["contender"]: row for row in rows}
        assert shown == [
            f"{by['train']['times_plain']:.2f}\u00a0×",
            f"{by['train, compiled']['times_plain_compiled']:.2f}\u00a0×",
        ]


def test_generation(tables: dict[str, speed.Measured]) -> None:
    for shown, rows in pairs(tables, "Generating with GPT-2 124M", "generate"):
        wanted = []
        for ours in (row for row in rows if row["contender"] == "llm_core"):
            here = {
                row["contender"]: row["median_seconds"]
                for row in rows
                if (row["dtype"], row["batch"]) == (ours["dtype"], ours["batch"])
            }
            best = min(here["llm_core"], here["llm_core in PyTorch"])
            gain = here["llm_core"] / best
            wanted.append(ours["times_best_pytorch_peer"] * gain)
            if "times_llama_cpp" in ours:
                wanted.append(ours["times_llama_cpp"] * gain)
        assert shown == [f"{gain:.2f}\u00a0×" for gain in wanted]


def test_attention(tables: dict[str, speed.Measured]) -> None:
    for shown, rows in pairs(tables, "Attention, forward and backward", "attention"):
        seconds = {(row["kind"], row["length"]): row["seconds"] for row in rows if row["backward"]}
        longest = max(length for _, length in seconds)
        gain = seconds["table", longest] / seconds["fused", longest]
        assert shown[-1] == f"{gain:.2f}\u00a0×"


def test_a_record_names_the_instructions_for_16_bits() -> None:
    record = json.loads((ROOT / "results" / "attention.json").read_text(encoding="utf-8"))
    record["machine"]["instructions"] = ["avx512f"]
    assert "instructions for 16 bits: none" in speed.made_by(record)
    record["machine"]["instructions"] = ["avx512f", "avx512_bf16", "amx_bf16"]
    assert "instructions for 16 bits: `avx512_bf16`, `amx_bf16`" in speed.made_by(record)


def test_a_record_says_how_often_and_how_steadily_it_was_measured() -> None:
    found = [{"seconds": [1.0, 1.1, 1.2]}, {"seconds": [2.0, 2.0, 2.0]}, {"seconds": 4.0}]
    assert speed.rounds(found) == (
        "; medians of 3 rounds, which for half of the rows differ by 9% or more"
    )
    assert speed.rounds([{"seconds": 4.0}]) == ""
