"""The plots, one to a file, one function to a beat; importing this package registers all of them.

To add one, write a file with its beats under ``@plot("name", odds=..., words=...)``: every reading
(telling, parsing, retelling, branching, questions) follows from that, and nothing else names it.
"""

from importlib import import_module
from pkgutil import iter_modules

# In alphabetical order everywhere: which pairs are kept out of training follows from it.
NAMES = tuple(sorted(module.name for module in iter_modules(__path__)))
MODULES = tuple(import_module(f"{__name__}.{name}") for name in NAMES)
