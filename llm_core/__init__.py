"""llm_core: the library that the chapters of *Ground Truth* arrive at.

Read the modules in ``READING_ORDER``. It is the table of contents and the import law at once: a
module imports only modules that stand before it (``tests/test_architecture.py`` enforces that,
lazy imports included). Nothing is re-exported here and importing the package loads no torch:
``from llm_core import tokenizer`` says where a name comes from.
"""

__version__ = "0.1.0"

READING_ORDER = (
    # ground
    "runtime",
    # text
    "compilation",
    "characters",
    "scanner",
    "pieces",
    "pretokenize",
    "bpe",
    "encoder",
    "vocabulary",
    "tokenizer",
    "stories",
    "docstrings",
    "download",
    "catalog",
    "corpora",
    "shards",
    "dataset",
    "curriculum",
    # network
    "config",
    "layers",
    "causal",
    "attention",
    "model",
    "loss",
    # learning
    "optim",
    "muon",
    "checkpoint",
    "trainconfig",
    "train",
    # using
    "intrinsics",
    "plan",
    "kernels",
    "decode",
    "generate",
    "evaluate",
    "tracking",
    "records",
    "origin",
    "lora",
    "classify",
    "chat",
    "instruct",
    "exercises",
    # shipping
    "hfconfig",
    "hf",
    "kept",
    "recipes",
    # the command line
    "flags",
    "runs",
    "dialog",
    "commands",
    "tuning",
    "cli",
    "__main__",
)
