"""What all tests share: hypothesis without deadlines, as a busy machine is no fault of the code."""

from __future__ import annotations

import os
import signal

import pytest
from hypothesis import settings

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in a shell's background jobs
    signal.signal(signal.SIGINT, signal.default_int_handler)
os.environ.pop("TQDM_DISABLE", None)  # read when tqdm is imported; some tests look at the bars

settings.register_profile("here", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "here")


LONGEST = "html_axe", "train_killed", "html_browser"  # files that take minutes


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest, so that no worker is left with one at the end."""
    rank = {f"test_{name}.py": place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.path.name, len(rank)))


@pytest.fixture(scope="module")
def own_cache(tmp_path_factory):
    """A cache folder for a file of tests, which leaves nothing in anybody's; and no bars."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLM_CORE_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("TQDM_DISABLE", "1")
        yield
