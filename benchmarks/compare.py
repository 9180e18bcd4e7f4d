"""python -m benchmarks [step] [generate] [score] [load] [page] [--full]: minimllama beside transformers + PEFT."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from benchmarks import generate, load, page, results, score, step
from benchmarks.cases import Case, run_cases
from benchmarks.mid import write_checkpoint
from minimllama.console import say

GROUPS = {"step": step, "generate": generate, "score": score, "load": load, "page": page}


@dataclass(frozen=True, kw_only=True)
class Options:
    """Run both implementations in turn and report ratios.

    Attributes:
        groups: of step, generate, score, load, page; all of them if none is named.
        only: cases whose name contains one of these texts.
        full: the whole matrix of steps too: every method, 1, 2 and 4 tiles, batch 1 and 4, with and without
            activation checkpointing, and variants; hours on a CPU.
        rounds: timings of each side per case, after one that is not counted; five if not said, three of long cases.
        threads: of each side.
        out: Markdown file; a file named after hardware and date in benchmarks/results if empty.
        folder: where the random checkpoint is made and kept.
        note: a sentence for the page, such as what else the machine was doing.
    """

    groups: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    only: tuple[str, ...] = ()
    full: bool = False
    rounds: int | None = None
    threads: int = 1
    out: Path | None = None
    folder: Path = Path("runs/bench/mid")
    note: str = ""

    def __post_init__(self) -> None:
        if odd := [name for name in self.groups if name not in GROUPS]:
            raise ValueError(f"no such group: {', '.join(odd)}; there are {', '.join(GROUPS)}")
        if self.rounds is not None and self.rounds < 1:
            raise ValueError(f"--rounds {self.rounds}: at least 1")


def choose(options: Options) -> list[Case]:
    """The cases that are asked for.

    Raises:
        ValueError: if none is.
    """
    groups = [GROUPS[name] for name in options.groups or GROUPS]
    cases = [case for group in groups for case in [*group.CASES, *(getattr(group, "MORE", []) if options.full else [])]]
    chosen = [case for case in cases if not options.only or any(text in case.name for text in options.only)]
    if not chosen:
        raise ValueError(f"no case has {' or '.join(options.only)} in its name; --full adds more cases")
    return chosen


def main(arguments: Sequence[str]) -> int:
    """Check, time, print, and write the page after every case."""
    options = tyro.cli(Options, args=list(arguments), prog="python -m benchmarks")
    cases = choose(options)
    write_checkpoint(options.folder)
    out = options.out or Path("benchmarks/results") / results.file_name()
    say(results.HEAD)
    outcomes = []
    for outcome in run_cases(cases, str(options.folder), options.rounds, options.threads):
        outcomes.append(outcome)
        for timing in outcome.timings:
            say(results.row(outcome, timing))
        results.write(outcomes, out, arguments, options.threads, options.note)
    say(f"wrote {out}")
    return 0
