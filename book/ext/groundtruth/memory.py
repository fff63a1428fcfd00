"""Look up once what Sphinx and pybtex look up again for every reference.

A reference to a figure's number unpickles the whole chapter that holds the figure, and a citation
searches all installed packages for its style: two fifths of a build went there (EXPERIMENTS.md).
"""

from __future__ import annotations

from functools import cache
from typing import Any

import pybtex.plugin
from sphinx.application import Sphinx
from sphinx.domains.std import StandardDomain
from sphinx.environment import BuildEnvironment


class Remembered:
    """An environment that reads each document once; for those who look and change nothing."""

    def __init__(self, env: BuildEnvironment) -> None:
        self.env = env
        self.get_doctree = cache(env.get_doctree)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.env, name)


class NumberedReferences(StandardDomain):
    """Sphinx's own domain; resolving starts when every document is read, so none changes."""

    remembered: Remembered | None = None

    def _resolve_numref_xref(self, env: BuildEnvironment, *details: Any) -> Any:
        if self.remembered is None:
            self.remembered = Remembered(env)
        return super()._resolve_numref_xref(self.remembered, *details)


def setup(app: Sphinx) -> None:
    app.add_domain(NumberedReferences, override=True)
    pybtex.plugin.entry_points = cache(pybtex.plugin.entry_points)
