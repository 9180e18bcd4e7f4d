"""Executed shape comments: while code runs, every line that ends in "# [B, T, D]" is held against its tensors.

A letter is a size. It gets its value where it first stands alone, in a comment or in the function's docstring
("x: [B, T, D] -> [B, T, D]"), and keeps it until the call returns; one that only appears inside a loop may
change from round to round. "K*P" or "D*(1+J)" are computed from the letters. Every letter must be in the
legend ("Shapes: B rows, ...") of the file, class or function. Sizes that a call leaves open are looked up in
the legend ("F = E / 2").

    with watch(files) as report:
        ...                 # run the code
    report.violations       # what did not hold
    report.unseen           # comments that no run has reached, or whose sizes stayed open
"""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from torch import Tensor

from tests.tools.shape_comments import Comment, Source, letters, read_source

Round = tuple[tuple[int, int], ...]  # for each loop around, outermost first: its line, and how often it began


@dataclass
class Report:
    """The outcome of a run."""

    violations: list[str] = field(default_factory=list)
    decided: set[Comment] = field(default_factory=set)
    unseen: list[str] = field(default_factory=list)
    n_comments: int = 0


@dataclass(frozen=True)
class _Equation:
    """One dimension of one tensor: an expression of letters, and the size that was found."""

    dim: str
    size: int
    where: Comment | str


class _Call:
    """The equations between letters and sizes of one function call."""

    def __init__(self) -> None:
        self.equations: dict[Round, list[_Equation]] = {(): []}
        self.problems: list[str] = []
        self.rounds: dict[int, int] = {}
        self.pending: Comment | None = None
        self.failed = False

    def state(self, dims: tuple[str, ...], value: Any, where: Comment | str) -> None:
        """Note that `value` should have these sizes."""
        loops = where.loops if isinstance(where, Comment) else ()
        now = tuple((line, self.rounds.get(line, 0)) for line in loops)
        for tensor in value if isinstance(value, tuple | list) else [value]:
            if not isinstance(tensor, Tensor):
                continue
            shape, wanted = tuple(tensor.shape), dims
            if dims[0] == "...":
                wanted, shape = dims[1:], shape[max(len(shape) - len(dims) + 1, 0) :]
            elif dims[-1] == "...":
                wanted, shape = dims[:-1], shape[: len(dims) - 1]
            if len(shape) != len(wanted):
                self.problems.append(f"{where}: the tensor is {list(tensor.shape)}")
                continue
            found = [_Equation(dim, size, where) for dim, size in zip(wanted, shape, strict=True)]
            self.equations.setdefault(now, []).extend(found)

    def solve(self, sums: dict[str, str]) -> tuple[list[str], set[Comment]]:
        """What does not hold, and the comments all of whose sizes are known."""
        known: dict[Round, dict[str, int]] = {}
        problems, stated, undecided = list(self.problems), set(), set()
        for now in sorted(self.equations, key=len):
            outer = next(known[now[:n]] for n in range(len(now), -1, -1) if now[:n] in known) if now else {}
            equations = self.equations[now]
            sizes = known[now] = _find_sizes(equations, outer, sums)
            for equation in equations:
                if isinstance(equation.where, Comment):
                    stated.add(equation.where)
                if letters(equation.dim) - sizes.keys():
                    undecided.add(equation.where)
                elif (value := _value(equation.dim, sizes)) != equation.size:
                    problems.append(
                        f"{equation.where}: {equation.dim} is {value}, the tensor has {equation.size}; {sizes}"
                    )
        return problems, stated - undecided


def _find_sizes(equations: list[_Equation], outer: dict[str, int], sums: dict[str, str]) -> dict[str, int]:
    """Values of as many letters as the equations, and then the legend, give; in the order in which they were met."""
    sizes = dict(outer)
    while True:
        before = len(sizes)
        for equation in equations:
            unknown = letters(equation.dim) - sizes.keys()
            if len(unknown) == 1:
                sizes |= _solved(equation.dim, min(unknown), equation.size, sizes)
        for letter, text in sums.items():
            if letter not in sizes and len(sizes) == before and letters(text) <= sizes.keys():
                value = _value(text, sizes)
                sizes |= {} if value is None else {letter: value}
        if len(sizes) == before:
            return sizes


def _solved(dim: str, letter: str, size: int, sizes: dict[str, int]) -> dict[str, int]:
    """The one value of a letter that gives an expression its size; nothing if there is none, or more than one."""
    if dim == letter:
        return {letter: size}
    exactly = dim.replace("//", "/")
    fitting = [n for n in range(16 * size + 16) if _value(exactly, {**sizes, letter: n}) == size]
    return {letter: fitting[0]} if len(fitting) == 1 else {}


@cache
def _compiled(text: str) -> CodeType:
    return compile(text.strip(), "shape", "eval")


def _value(text: str, sizes: dict[str, int]) -> int | None:
    """An expression of letters, numbers and + - * / ( ); None if it is no whole number."""
    result = eval(_compiled(text), {"__builtins__": {}}, sizes)
    return int(result) if result == int(result) else None


class _Watcher:
    """A trace function for sys.settrace that follows the frames of some files."""

    def __init__(self, sources: dict[str, Source], report: Report) -> None:
        self.sources, self.report = sources, report
        self.calls: dict[FrameType, _Call] = {}

    def __call__(self, frame: FrameType, event: str, argument: Any) -> Any:
        source = self.sources.get(frame.f_code.co_filename)
        if source is None or frame.f_code.co_name.startswith("<"):  # comprehensions share the line of their statement
            return None
        call = self.calls[frame] = _Call()
        for name, dims in source.docs.get(frame.f_code.co_firstlineno, []):
            if name != "return" and frame.f_locals.get(name) is not None:
                call.state(dims, frame.f_locals[name], f"{frame.f_code.co_qualname}, argument {name}")
        return self.follow

    def follow(self, frame: FrameType, event: str, argument: Any) -> Any:
        """A line, an exception or the end of a call."""
        call, source = self.calls[frame], self.sources[frame.f_code.co_filename]
        comment = source.comments.get(frame.f_lineno)
        if event == "exception":
            call.failed, call.pending = True, None
        elif event == "line":
            call.failed = False
            at = frame.f_lineno
            if call.pending and (comment is not call.pending or at == call.pending.first):
                self._look(frame, call)
            if at in source.loops:
                call.rounds[at] = call.rounds.get(at, 0) + 1
            call.pending = comment if comment and comment.names else None
        elif event == "return":
            if call.pending:
                self._look(frame, call)
            if not call.failed:
                if comment and not comment.names:
                    call.state(comment.dims, argument, comment)
                for name, dims in source.docs.get(frame.f_code.co_firstlineno, []):
                    if name == "return":
                        call.state(dims, argument, f"{frame.f_code.co_qualname}, result")
            problems, decided = call.solve(source.sums)
            self.report.violations += problems
            self.report.decided |= decided
            del self.calls[frame]
        return self.follow

    @staticmethod
    def _look(frame: FrameType, call: _Call) -> None:
        assert call.pending is not None
        for name in call.pending.names:
            call.state(call.pending.dims, frame.f_locals.get(name), call.pending)
        call.pending = None


@contextmanager
def watch(paths: Sequence[Path]) -> Iterator[Report]:
    """Check the shape comments of these files while the block runs; the report is complete afterwards."""
    report = Report()
    sources = {str(path): read_source(path) for path in paths}
    comments = {comment for source in sources.values() for comment in source.comments.values()}
    report.violations += [problem for source in sources.values() for problem in source.problems]
    report.n_comments = len(comments)
    before = sys.gettrace()
    sys.settrace(_Watcher(sources, report))
    try:
        yield report
    finally:
        sys.settrace(before)
        report.unseen = sorted(map(str, comments - report.decided))
        report.violations = sorted(set(report.violations))
