"""``python -m book COMMAND``: the Makefile calls this; ``--help`` lists the commands."""

from __future__ import annotations

import argparse
import os
import sys

PROFILES = ("ci", "book", "gpu")


def parse_arguments(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m book", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in (
        ("execute", "run chapters in fresh kernels, stamp and save them"),
        ("prepare", "make what chapters share: the pretrained model"),
        ("verify", "run chapters again and compare what they print"),
        ("check", "hold notebooks, figures and references against the book's rules"),
        ("html", "build the web pages from the committed outputs"),
        ("pdf", "build the printed book from the committed outputs"),
        ("epub", "build the book for e-readers from the committed outputs"),
        ("minillm", "write minillm.py from the cells of the chapters that are tagged so"),
        ("cut", "write the pages of one chapter, from the printed book, to a PDF of their own"),
        ("doctor", "say what is missing on this machine and how to get it"),
    ):
        command = commands.add_parser(name, help=text)
        if name in ("execute", "prepare", "verify"):
            command.add_argument("chapter", nargs="?", help="05, or a1; all without it")
        if name == "cut":
            command.add_argument("chapter", help="05, or a1 for an appendix")
        if name in ("execute", "prepare"):
            default = os.environ.get("BOOK_PROFILE") or "book"
            command.add_argument("--profile", choices=PROFILES, default=default)
        if name == "verify":
            command.add_argument("--tolerance", type=float, default=0.01, help="relative")
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> None:
    """Import only what the command needs: pressing needs no kernel, executing no TeX."""
    chosen = parse_arguments(arguments)
    if chosen.command == "execute":
        from book import execute

        execute.main(chosen.chapter or None, chosen.profile)
    elif chosen.command == "prepare":
        from book import execute, notebooks

        execute.prepare(notebooks.chapter_paths(chosen.chapter or None), chosen.profile)
    elif chosen.command == "verify":
        from book import verify

        verify.main(chosen.chapter or None, chosen.tolerance)
    elif chosen.command == "check":
        from book import check

        check.main()
    elif chosen.command == "doctor":
        from book import doctor

        doctor.main()
    elif chosen.command == "minillm":
        from book import minillm

        minillm.main()
    else:
        from book import press

        if chosen.command == "html":
            press.html()
        elif chosen.command == "pdf":
            press.pdf()
        elif chosen.command == "epub":
            press.epub()
        else:
            press.cut(chosen.chapter)


if __name__ == "__main__":
    main(sys.argv[1:])
