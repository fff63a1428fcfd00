"""The world from the command line: tell stories, read a text, write a corpus.

    python -m llm_core.stories tell -n 3 --seed 7      # each with its probability
    python -m llm_core.stories parse story.txt         # or - for what is typed or piped in
    python -m llm_core.stories write train.jsonl -n 100000

The status is 0; 1 for a text that is no story and for a value or a file that is refused; 2 for a
command or an option that does not exist.
"""

from __future__ import annotations

import argparse
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

from llm_core.stories.corpus import SPLITS, stories, write_corpus
from llm_core.stories.readings import parse, retell
from llm_core.stories.wording import TENSES
from llm_core.stories.world import PAIRS

WIDTH = 76


def _tell(chosen: argparse.Namespace) -> int:
    for story in stories(chosen.n, chosen.seed, chosen.split):
        text = story.text if chosen.tense == "past" else retell(story, chosen.tense).text
        for line in text.split("\n"):
            print(textwrap.fill(line, WIDTH))
        print(f"[{-story.log_prob:.1f} nats, {len(story.trace)} choices]\n")
    return 0


def _parse(chosen: argparse.Namespace) -> int:
    data = sys.stdin.buffer.read() if chosen.file == "-" else Path(chosen.file).read_bytes()
    data = data.strip()
    found = parse(data, chosen.pairs, chosen.tense)
    if found.facts is None:
        print(found.explain(data.decode("utf-8", errors="replace")))
        return 1
    print(f"a story: {-found.log_prob:.1f} nats, {found.derivations} derivation(s)")
    for event in found.facts.events:
        print(f"{event.position:6} {event.kind:9} {', '.join(map(str, event.what))}")
    return 0


def _write(chosen: argparse.Namespace) -> int:
    write_corpus(chosen.file, chosen.n, chosen.seed, chosen.split)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m llm_core.stories", description="The world.")
    commands = parser.add_subparsers(dest="command", required=True)
    tell = commands.add_parser("tell", help="print stories with their -log p")
    tell.set_defaults(run=_tell)
    read = commands.add_parser("parse", help="print a text's -log p and facts, or where it fails")
    read.set_defaults(run=_parse)
    read.add_argument("file", help="a text file, or - for the standard input")
    read.add_argument("--pairs", choices=PAIRS, default="any", help="the program (any)")
    write = commands.add_parser("write", help="write a corpus as JSON lines, on all cores")
    write.set_defaults(run=_write)
    write.add_argument("file", help="the path, ending in .jsonl")
    for command, n in ((tell, 1), (write, 20_000)):
        command.add_argument("-n", type=int, default=n, help=f"how many stories ({n})")
        command.add_argument("--seed", type=int, default=0)
        command.add_argument("--split", choices=SPLITS, default="train")
    for command in (tell, read):
        command.add_argument("--tense", choices=TENSES, default="past")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """``python -m llm_core.stories tell | parse FILE | write FILE``; returns the status."""
    chosen = _parser().parse_args(arguments)
    try:
        status: int = chosen.run(chosen)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return status


if __name__ == "__main__":
    sys.exit(main())
