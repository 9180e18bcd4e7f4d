"""What a benchmark is: one job on both sides, how closely they must agree, and what is to be reached."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from benchmarks.pairs import Spec, Timing, largest_difference, time_pair

EXACT = 2e-5  # float32, relative to the largest value: other orders of summation, nothing else


@dataclass(frozen=True, kw_only=True)
class Case:
    """One comparison.

    Attributes:
        name: as printed.
        job: class name in ours.py and theirs.py.
        arguments: of both sides.
        ours: further arguments of our side.
        their_job: class name in theirs.py if it is another.
        check: arguments of both sides when they are compared, in float32 and in semantics "hf"; None when the
            job has no arguments that matter.
        needs_folder: whether the job reads the checkpoint.
        goals: ratio to reach by quantity; issue-level promises, not limits.
        memory_goal: our peak over theirs to stay below.
        rounds: timings, if not said otherwise.
        units: how many of what one timing does, by quantity: {"decode": (48, "tok")}.
    """

    name: str
    job: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    ours: Mapping[str, Any] = field(default_factory=dict)
    their_job: str = ""
    check: Mapping[str, Any] | None = None
    needs_folder: bool = True
    goals: Mapping[str, float] = field(default_factory=dict)
    memory_goal: float | None = None
    rounds: int = 5
    units: Mapping[str, tuple[int, str]] = field(default_factory=dict)

    def specs(self, folder: str, arguments: Mapping[str, Any], ours: Mapping[str, Any]) -> tuple[Spec, Spec]:
        """Our job and theirs."""
        given = {"folder": folder, **arguments} if self.needs_folder else arguments
        theirs = self.their_job or self.job
        return (
            Spec(job=f"benchmarks.ours:{self.job}", arguments={**given, **ours}),
            Spec(job=f"benchmarks.theirs:{theirs}", arguments=given),
        )


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """A case, how far its sides differ, and what was timed."""

    case: Case
    difference: float | None
    n_compared: int
    timings: list[Timing]


def run_cases(cases: Iterable[Case], folder: str, rounds: int | None, threads: int) -> Iterator[Outcome]:
    """Check, then time, one case after the other, `rounds` times or as often as the case says.

    A check that an earlier case has passed is not repeated.

    Raises:
        AssertionError: if both sides do not compute the same.
    """
    passed: dict[str, dict[str, float]] = {}
    for case in cases:
        found = None
        if case.check is not None:
            key = f"{case.job} {sorted(case.check.items())}"
            if key not in passed:
                extra = {"semantics": "hf"} if "dtype" in case.check else {}
                passed[key] = largest_difference(*case.specs(folder, case.check, extra), EXACT, threads)
            found = passed[key]
        specs = case.specs(folder, case.arguments, case.ours)
        timings = time_pair(*specs, rounds=rounds or case.rounds, threads=threads)
        yield Outcome(
            case=case,
            difference=max(found.values()) if found else None,
            n_compared=len(found or ()),
            timings=timings,
        )
