"""The commands of pages, run in this process where they are ours, which saves a start of torch each."""

import contextlib
import importlib
import io
import shlex
import subprocess
from collections.abc import Callable

from tests.tools.gloo import run_ranks

PACKAGES = ("minimllama", "lora", "train", "train.ecg", "eval")


def under_torchrun(words: list[str]) -> tuple[int, list[str]]:
    """Number of ranks (0 without torchrun), and the command that each of them runs."""
    if words[:1] != ["torchrun"]:
        return 0, words
    n_ranks = int(words[words.index("--nproc-per-node") + 1]) if "--nproc-per-node" in words else 1
    return n_ranks, ["python", *words[words.index("-m") :]]


def main_of(words: list[str]) -> Callable[[list[str]], int] | None:
    """The `main` of `python -m PACKAGE`, for our own packages."""
    if words[:2] == ["python", "-m"] and len(words) > 2 and words[2] in PACKAGES:
        return importlib.import_module(f"{words[2]}.__main__").main
    return None


def call(command: str) -> tuple[int, str, str]:
    """Exit code, output and errors; our own programs run in this process, which saves a start of torch each.

    Under torchrun the ranks are forks of this process, and the first one's output counts.
    """
    n_ranks, words = under_torchrun(shlex.split(command, comments=True))
    main = main_of(words)
    if main is not None and n_ranks > 1:
        return run_ranks(n_ranks, lambda _world: _run_here(main, words))[0]
    if main is None:
        done = subprocess.run(command, shell=True, capture_output=True, text=True, executable="/bin/bash")
        return done.returncode, done.stdout, done.stderr
    return _run_here(main, words)


def _run_here(main: Callable[[list[str]], int], words: list[str]) -> tuple[int, str, str]:
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as errors:
        try:
            code = main(words[3:])
        except SystemExit as stop:  # of tyro
            code = stop.code if isinstance(stop.code, int) else 1
    return code, out.getvalue(), errors.getvalue()
