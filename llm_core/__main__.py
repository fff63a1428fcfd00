"""``python -m llm_core``: from a text to a model that speaks, without a line of code.

``python -m llm_core --help`` lists the commands; ``cli`` has them all.
"""

import sys

from llm_core.cli import main

if __name__ == "__main__":
    sys.exit(main())
