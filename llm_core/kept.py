"""What was made once and is kept: folders named after the settings that made their content.

A folder's name is a hash of its settings and of the world's first stories, so another setting or
another world is another folder. The code that makes the content is not in the name: who changes
it deletes the folder ``recipes`` of the cache. Two processes that want the same wait for one
another, and a run that was interrupted goes on. ``recipes``, which chapters 5 to 7 use, keeps
its tokenizer, its stories and its models by it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any

from llm_core import checkpoint, runtime, stories
from llm_core.checkpoint import Checkpoint, CheckpointError
from llm_core.trainconfig import History

RESULT = "result.json"  # written last: a folder without it is not finished


@lru_cache(maxsize=1)
def world() -> str:
    """A fingerprint of the program that tells the stories: their first ones, with their odds."""
    digest = hashlib.sha256()
    for story in stories.stories(50, seed=0):
        digest.update(f"{story.text}\n{story.log_prob:.9f}\n".encode())
    return digest.hexdigest()


def folder(kind: str, made_from: dict[str, Any]) -> Path:
    """The folder of the cache for a kind of thing made from these settings; it is there."""
    content = json.dumps({**made_from, "world": world()}, sort_keys=True, default=str)
    name = f"{kind}-{hashlib.sha256(content.encode()).hexdigest()[:16]}"
    return runtime.cache_folder("recipes", name)


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """One process at a time makes what belongs into a folder; the others wait and find it made."""
    from filelock import FileLock

    with FileLock(folder.with_name(f".{folder.name}.lock")):
        yield


def finished(folder: Path, run: Callable[[], History]) -> History:
    """What happened in a run, which begins or goes on unless the folder says that it is over.

    Raises KeyboardInterrupt where it was interrupted; asked again, it goes on from there. Raises
    CheckpointError where what it left is damaged.
    """
    path = folder / RESULT
    with alone(folder):
        if not path.exists():
            history = run()
            if history.stopped is not None:
                raise KeyboardInterrupt(f"training ended at step {history.n_steps}")
            with runtime.atomic_write(path, "w") as file:
                json.dump(asdict(history), file)
    try:
        return History.from_dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is damaged ({error}); delete it and ask again") from error


def last(folder: Path, n_steps: int, part: str = "") -> Checkpoint:
    """The checkpoint of a run's end, in ``part`` of its folder. Raises CheckpointError for none."""
    found = checkpoint.steps(folder / part)
    if n_steps not in found:
        raise CheckpointError(f"{folder} has lost step {n_steps}; delete it and ask again")
    return checkpoint.load(found[n_steps])
