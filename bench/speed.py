"""All benches of speed in one go, each on a machine that has come to rest.

    python bench/speed.py                            # hours; writes results/*.json
    python bench/speed.py --into results/my-laptop   # beside the records that the chapters quote
    python bench/speed.py --rounds 3 --only generate train_step

The page *How fast* shows the records of ``results/`` and of every folder in it. A bench starts when
others ask little of the machine, so that no record has to be excused by the load it began at.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

from record import ROOT

# In the order of the chapters; True: it takes --rounds
BENCHES = {
    "tokenizer": True,
    "stories": False,
    "embedding": False,
    "attention": False,
    "generate": True,
    "train_step": True,
    "story_step": True,
}
AT_REST, MOST_SECONDS = 0.5, 600  # the load of the last minute; how long to wait for it


def wait_for_rest(name: str) -> None:
    """Return when the load is below AT_REST. Ends the program where it stays above."""
    end = time.monotonic() + MOST_SECONDS
    while (load := os.getloadavg()[0]) >= AT_REST:
        if time.monotonic() > end:
            raise SystemExit(
                f"the load is {load:.1f} after {MOST_SECONDS} s, and {name} is to start below "
                f"{AT_REST}: stop what else runs here, then call again with --only {name} ..."
            )
        time.sleep(5)


def main() -> None:
    """Read the command line, then one bench after the other; those that fail are named last."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--into", type=Path, default=ROOT / "results", help="folder for records")
    parser.add_argument("--rounds", type=int, help="of the benches that have rounds")
    parser.add_argument("--only", nargs="+", choices=BENCHES, default=list(BENCHES))
    arguments = parser.parse_args()
    arguments.into.mkdir(parents=True, exist_ok=True)
    failed = []
    for name in arguments.only:
        wait_for_rest(name)
        print(f"--- {name}, {time.strftime('%H:%M')}", flush=True)
        script = str(Path(__file__).with_name(f"{name}.py"))
        command = [sys.executable, script, "--out", str(arguments.into / f"{name}.json")]
        if arguments.rounds and BENCHES[name]:
            command += ["--rounds", str(arguments.rounds)]
        if subprocess.run(command).returncode:
            failed.append(name)
    if failed:
        raise SystemExit(f"failed: {' '.join(failed)}; the reasons stand above")


if __name__ == "__main__":
    main()
