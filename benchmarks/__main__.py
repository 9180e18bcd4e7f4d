"""python -m benchmarks: minimllama beside transformers + PEFT (compare.py), or one of the other programs below.

    python -m benchmarks [step] [generate] [score] [load] [page] [--full] [--only TEXT ...]
    python -m benchmarks gpu --out FOLDER
    python -m benchmarks data
    python -m benchmarks ideas
    python -m benchmarks growth
    python -m benchmarks scaling

Each is imported when it is asked for: on a GPU's machine there may be nothing beside PyTorch.
"""

import importlib
import sys
from collections.abc import Sequence

PROGRAMS = ("data", "gpu", "growth", "ideas", "scaling")


def main(arguments: Sequence[str]) -> int:
    """Run the program that the first argument names, or the comparison."""
    if arguments and arguments[0] in PROGRAMS:
        return importlib.import_module(f"benchmarks.{arguments[0]}").main(arguments[1:])
    return importlib.import_module("benchmarks.compare").main(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
