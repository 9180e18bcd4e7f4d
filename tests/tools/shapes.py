"""Executed shape comments: while code runs, every line that ends in "# [B, T, D]" is held against its tensors.

A letter is a size. It gets its value where it first stands alone, in a comment or in the function's docstring
("x: [B, T, D] -> [B, T, D]"), and keeps it until the call returns; "K*P" or "D*(1+J)" are computed from the
letters. Every letter must be in the legend ("Shapes: B rows, ...") of the file, class or function. Sizes that
a call leaves open are looked up in the legend ("F = E / 2").

    with watch(files) as report:
        ...                 # run the code
    report.violations       # what did not hold
    report.unseen           # comments that no run has reached, or whose sizes stayed open
"""

import ast
import re
import sys
import tokenize
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from torch import Tensor

COMMENT = re.compile(r"#\s*\[([^\[\]]+)\]\s*$")
SHAPE = r"\[([A-Z0-9 ,.*+()/-]+)\]"
ARGUMENT = re.compile(rf"((?:\w+, )*\w+): (?:\w+ )?{SHAPE}")
FIRST_ARGUMENT = re.compile(rf"^(?:\w+ )?{SHAPE} ->")
RETURNED = re.compile(rf"-> (?:\w+ )?{SHAPE}")
LEGEND_SUM = re.compile(r"\b([A-Z]) = ([A-Z0-9 *+()/-]*[A-Z0-9)])")


@dataclass(frozen=True)
class Comment:
    """One shape comment.

    Attributes:
        names: local variables that hold the tensors; none for a value that is returned.
        first, last: lines of the statement.
    """

    path: Path
    line: int
    dims: tuple[str, ...]
    names: tuple[str, ...]
    first: int
    last: int

    def __str__(self) -> str:
        return f"{self.path.name}:{self.line} [{', '.join(self.dims)}]"


@dataclass
class Source:
    """What a file says about shapes, by line; functions by the line of their `def`."""

    comments: dict[int, Comment] = field(default_factory=dict)  # by every line of the statement
    docs: dict[int, list[tuple[str, tuple[str, ...]]]] = field(default_factory=dict)  # argument or "return", shape
    sums: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


@dataclass
class Report:
    """The outcome of a run."""

    violations: list[str] = field(default_factory=list)
    decided: set[Comment] = field(default_factory=set)
    unseen: list[str] = field(default_factory=list)
    n_comments: int = 0


def dims_of(text: str) -> tuple[str, ...]:
    """ "B, K*P" -> ("B", "K*P")."""
    return tuple(part.strip() for part in text.split(","))


@cache
def _letters(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"\b[A-Z]\b", text))


def _legend(docstring: str | None) -> str:
    """The paragraph that begins with "Shapes:"."""
    match = re.search(r"Shapes:.*?(?:\n\s*\n|$)", docstring or "", re.DOTALL)
    return match.group(0) if match else ""


def _targets(statement: ast.stmt) -> tuple[str, ...] | None:
    """Names that a statement assigns; empty for a return; None if there is nothing to look at."""
    if isinstance(statement, ast.Return):
        return ()
    if isinstance(statement, ast.Assign):
        nodes = [node for target in statement.targets for node in ast.walk(target)]
    elif isinstance(statement, ast.AnnAssign | ast.AugAssign):
        nodes = list(ast.walk(statement.target))
    else:
        return None
    names = tuple(node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store))
    return names or None


def _functions(tree: ast.AST, legend: str = "") -> Iterator[tuple[ast.FunctionDef, str]]:
    """Every function with the legends that hold in it."""
    for node in ast.iter_child_nodes(tree):
        inner = legend
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            inner += _legend(ast.get_docstring(node))
        if isinstance(node, ast.FunctionDef):
            yield node, inner
        yield from _functions(node, inner)


def read_source(path: Path) -> Source:
    """Find the shape comments and documented shapes of a file, and what is wrong with them before anything runs."""
    source, text = Source(), path.read_text()
    tree = ast.parse(text)
    legend = _legend(ast.get_docstring(tree))
    source.sums = dict(LEGEND_SUM.findall(legend))
    statements = [node for node in ast.walk(tree) if isinstance(node, ast.stmt)]
    for function, inner in _functions(tree, legend):
        source.docs[_first_line(function)] = _documented(function, _letters(inner))
    functions = list(_functions(tree, legend))
    with path.open("rb") as file:
        tokens = [token for token in tokenize.tokenize(file.readline) if token.type == tokenize.COMMENT]
    for token in tokens:
        match = COMMENT.search(token.string)
        if not match or not token.string.startswith("# ["):
            continue
        line, dims = token.start[0], dims_of(match.group(1))
        around = [node for node in statements if node.lineno <= line <= (node.end_lineno or 0)]
        statement = max(around, key=lambda node: (node.lineno, -(node.end_lineno or 0)), default=None)
        names = _targets(statement) if statement else None
        if statement is None or names is None:
            source.problems.append(f"{path.name}:{line} the shape is on a line that makes no tensor with a name")
            continue
        inside = [inner for node, inner in functions if node.lineno <= line <= (node.end_lineno or 0)]
        if unknown := _letters(match.group(1)) - _letters(max(inside, key=len, default=legend)):
            source.problems.append(f"{path.name}:{line} {', '.join(sorted(unknown))} is in no legend")
        comment = Comment(path, line, dims, names, statement.lineno, statement.end_lineno or line)
        for at in range(comment.first, comment.last + 1):
            source.comments[at] = comment
    return source


def _first_line(function: ast.FunctionDef) -> int:
    """Where Python says that the code of a function begins."""
    return min([function.lineno, *(decorator.lineno for decorator in function.decorator_list)])


def _documented(function: ast.FunctionDef, legend: set[str]) -> list[tuple[str, tuple[str, ...]]]:
    """Shapes of arguments, and of the result under the name "return", as the docstring states them."""
    docstring = re.sub(r"\s+", " ", ast.get_docstring(function) or "")
    arguments = {a.arg for a in [*function.args.args, *function.args.kwonlyargs]}
    found = []
    for names, shape in ARGUMENT.findall(docstring):
        if _letters(shape) <= legend:
            found += [(name, dims_of(shape)) for name in names.split(", ") if name in arguments]
    if (match := FIRST_ARGUMENT.search(docstring)) and _letters(match.group(1)) <= legend:
        first = next(a.arg for a in function.args.args if a.arg != "self")
        found.append((first, dims_of(match.group(1))))
    found += [("return", dims_of(shape)) for shape in RETURNED.findall(docstring)[:1] if _letters(shape) <= legend]
    return found


class _Call:
    """The equations between letters and sizes of one function call."""

    def __init__(self) -> None:
        self.equations: list[tuple[str, int, Comment | str]] = []
        self.problems: list[str] = []
        self.pending: Comment | None = None
        self.failed = False

    def state(self, dims: tuple[str, ...], value: Any, where: Comment | str) -> None:
        """Note that `value` should have these sizes."""
        values = value if isinstance(value, tuple | list) else [value]
        for tensor in values:
            if not isinstance(tensor, Tensor):
                continue
            shape: tuple[int, ...] = tuple(tensor.shape)
            wanted = dims
            if dims[0] == "...":
                wanted, shape = dims[1:], shape[max(len(shape) - len(dims) + 1, 0) :]
            elif dims[-1] == "...":
                wanted, shape = dims[:-1], shape[: len(dims) - 1]
            if len(shape) != len(wanted):
                self.problems.append(f"{where}: the tensor is {list(tensor.shape)}")
                continue
            self.equations += [(dim, size, where) for dim, size in zip(wanted, shape, strict=True)]

    def solve(self, sums: dict[str, str]) -> tuple[list[str], set[Comment]]:
        """What does not hold, and the comments all of whose sizes are known."""
        sizes: dict[str, int] = {}
        open_ones = list(self.equations)
        while True:
            before = len(sizes)
            for dim, size, _ in open_ones:
                unknown = _letters(dim) - sizes.keys()
                if len(unknown) == 1:
                    sizes |= _solved(dim, min(unknown), size, sizes)
            for letter, text in sums.items():
                if letter not in sizes and len(sizes) == before and _letters(text) <= sizes.keys():
                    value = _value(text, sizes)
                    if value is not None:
                        sizes[letter] = value
            if len(sizes) == before:
                break
        stated = {where for _, _, where in self.equations if isinstance(where, Comment)}
        undecided = set()
        problems = list(self.problems)
        for dim, size, where in open_ones:
            if _letters(dim) - sizes.keys():
                undecided.add(where)
            elif _value(dim, sizes) != size:
                problems.append(f"{where}: {dim} is {_value(dim, sizes)}, the tensor has {size}; {sizes}")
        return problems, stated - undecided


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
            if call.pending and (comment is not call.pending or frame.f_lineno == call.pending.first):
                self._look(frame, call)
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
