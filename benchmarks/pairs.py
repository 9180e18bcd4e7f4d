"""Two implementations in turn: each in a process of its own, one call at a time, alternating.

A job is a class with `check()` (numbers that both sides must agree about) and `run()` (seconds by name). Both
processes live through the whole comparison, but only one works at any moment, so a disturbance of the machine
meets both; peak memory is each process's own.
"""

import ctypes
import gc
import importlib
import multiprocessing
import statistics
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, Protocol

import torch
from torch import Tensor

MIB = 2**20


class Job(Protocol):
    """What a process does when asked."""

    def check(self) -> dict[str, Tensor]:
        """Numbers that do not depend on who computed them."""
        ...

    def run(self) -> dict[str, float]:
        """Do the work once; seconds of each part by name."""
        ...


@dataclass(frozen=True, kw_only=True)
class Spec:
    """How a process builds its job: a class of a module, and its arguments."""

    job: str  # "benchmarks.ours:Training"
    arguments: Mapping[str, Any]

    def build(self) -> Job:
        """Import and construct."""
        module, _, name = self.job.partition(":")
        return getattr(importlib.import_module(module), name)(**self.arguments)


def status_bytes(field: str) -> int:
    """A size in /proc/self/status (Linux)."""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(field))


def _serve(pipe: Connection, spec: Spec, threads: int) -> None:
    """The process: build, then answer until told to stop."""
    torch.set_num_threads(threads)
    job = spec.build()
    loaded = status_bytes("VmRSS")
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # VmHWM starts again from here
    pipe.send("ready")
    while (command := pipe.recv()) != "stop":
        if command == "check":
            pipe.send({name: value.detach().float().clone() for name, value in job.check().items()})
        elif command == "run":
            pipe.send(job.run())
        else:
            pipe.send(status_bytes("VmHWM") - loaded)


class Worker:
    """A process with a job. Use as a context; it ends with it."""

    def __init__(self, spec: Spec, threads: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, spec, threads), daemon=True)
        self._process.start()
        theirs.close()
        self._pipe.recv()

    def ask(self, command: str) -> Any:
        """Send "check", "run" or "memory"; wait for the answer.

        Raises:
            EOFError: if the process has died; its traceback stands above.
        """
        self._pipe.send(command)
        return self._pipe.recv()

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *error: object) -> None:
        self._pipe.send("stop")
        self._process.join(10)
        self._process.kill()


@dataclass(frozen=True, kw_only=True)
class Timing:
    """One quantity of one comparison.

    Attributes:
        ours, theirs: seconds of each round.
        our_memory, their_memory: bytes of the peak over the loaded model.
    """

    name: str
    ours: Sequence[float]
    theirs: Sequence[float]
    our_memory: int
    their_memory: int

    @property
    def ratio(self) -> float:
        """Their median over our median: above 1, ours is faster."""
        return statistics.median(self.theirs) / statistics.median(self.ours)

    @property
    def ratio_range(self) -> tuple[float, float]:
        """Least and greatest ratio of a single round."""
        each = [theirs / ours for ours, theirs in zip(self.ours, self.theirs, strict=True)]
        return min(each), max(each)

    @property
    def memory_ratio(self) -> float:
        """Our peak over theirs: below 1, ours is smaller."""
        return self.our_memory / max(self.their_memory, 1)


def largest_difference(ours: Spec, theirs: Spec, tolerance: float, threads: int = 1) -> dict[str, float]:
    """Compare what both jobs compute, one after the other.

    Returns:
        By name, max |a - b| / max |b|.

    Raises:
        AssertionError: if one exceeds the tolerance, or the two do not report the same things.
    """
    results = []
    for spec in (ours, theirs):
        with Worker(spec, threads) as worker:
            results.append(worker.ask("check"))
    mine, other = results
    assert mine.keys() == other.keys(), f"not comparable: {sorted(mine.keys() ^ other.keys())[:6]}"
    found = {name: float((mine[name] - other[name]).abs().max() / other[name].abs().max()) for name in mine}
    wrong = {name: f"{value:.1e}" for name, value in found.items() if not value <= tolerance}
    assert not wrong, f"ours and theirs differ by more than {tolerance}: {wrong}"
    return found


def time_pair(ours: Spec, theirs: Spec, rounds: int, threads: int = 1, warm_up: int = 1) -> list[Timing]:
    """Run both jobs in turn; who goes first changes from round to round. The warm-up is not counted."""
    with Worker(ours, threads) as mine, Worker(theirs, threads) as other:
        taken: dict[Worker, list[dict[str, float]]] = {mine: [], other: []}
        for i in range(warm_up + rounds):
            for worker in (mine, other) if i % 2 else (other, mine):
                seconds = worker.ask("run")
                if i >= warm_up:
                    taken[worker].append(seconds)
        memory = {worker: worker.ask("memory") for worker in taken}
    return [
        Timing(
            name=name,
            ours=[one[name] for one in taken[mine]],
            theirs=[one[name] for one in taken[other]],
            our_memory=memory[mine],
            their_memory=memory[other],
        )
        for name in taken[mine][0]
    ]


class Stopwatch:
    """`with Stopwatch() as watch: ...`, then `watch.seconds`.

    With one thread these are seconds of the processor: on an idle machine the same as of the wall clock, and on a
    shared one without the time that others had it. With more threads it is the wall clock.
    """

    seconds = 0.0

    def __enter__(self) -> "Stopwatch":
        self._clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
        self._start = self._clock()
        return self

    def __exit__(self, *error: object) -> None:
        self.seconds = self._clock() - self._start


def fresh_memory() -> None:
    """Give all free memory back, so that every round asks the system for its pages, as the first load does."""
    gc.collect()
    if sys.platform == "linux":
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def touch(weights: Iterable[torch.Tensor]) -> None:
    """Read one element of every 4 KiB: weights that were only mapped are fetched from the file now."""
    for p in weights:
        p.detach().flatten()[:: 4096 // p.element_size()].sum()
