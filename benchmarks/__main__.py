"""python -m benchmarks [step] [generate] [score] [load] [page]: minimllama beside transformers + PEFT."""

import datetime
import platform
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from benchmarks import generate, load, page, results, score, step
from benchmarks.cases import run_cases
from benchmarks.mid import write_checkpoint
from minimllama.console import say

GROUPS = {"step": step, "generate": generate, "score": score, "load": load, "page": page}


@dataclass(frozen=True, kw_only=True)
class Options:
    """Run both implementations in turn and report ratios.

    Attributes:
        groups: of step, generate, score, load, page; all of them if none is named.
        only: cases whose name contains one of these texts.
        rounds: timings of each side per case, after one that is not counted.
        threads: of each side.
        out: Markdown file; a file named after machine and date in benchmarks/results if empty.
        folder: where the random checkpoint is made and kept.
        note: a sentence for the page, such as what else the machine was doing.
    """

    groups: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    only: tuple[str, ...] = ()
    rounds: int = 5
    threads: int = 1
    out: Path | None = None
    folder: Path = Path("runs/bench/mid")
    note: str = ""

    def __post_init__(self) -> None:
        if odd := [name for name in self.groups if name not in GROUPS]:
            raise ValueError(f"no such group: {', '.join(odd)}; there are {', '.join(GROUPS)}")


def main(options: Options) -> None:
    """Check, time, print, and write the page after every case."""
    write_checkpoint(options.folder)
    groups = options.groups or tuple(GROUPS)
    cases = [case for name in groups for case in GROUPS[name].CASES]
    if options.only:
        cases = [case for case in cases if any(text in case.name for text in options.only)]
    date = datetime.date.today().isoformat()
    out = options.out or Path(f"benchmarks/results/{platform.machine()}-{platform.node() or 'cpu'}-{date}.md")
    command = shlex.join(["python", "-m", "benchmarks", *sys.argv[1:]])
    say(results.HEAD)
    outcomes = []
    for outcome in run_cases(cases, str(options.folder), options.rounds, options.threads):
        outcomes.append(outcome)
        for timing in outcome.timings:
            say(results.row(outcome, timing))
        results.write(outcomes, out, command, options.threads, options.note)
    say(f"wrote {out}")


if __name__ == "__main__":
    main(tyro.cli(Options))
