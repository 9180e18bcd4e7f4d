"""Shape comments and documented shapes, as they stand in the source of a file."""

import ast
import re
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

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
        loops: lines of the loops around it, outermost first.
    """

    path: Path
    line: int
    dims: tuple[str, ...]
    names: tuple[str, ...]
    first: int
    last: int
    loops: tuple[int, ...] = ()

    def __str__(self) -> str:
        return f"{self.path.name}:{self.line} [{', '.join(self.dims)}]"


@dataclass
class Source:
    """What a file says about shapes, by line; functions by the line of their `def`."""

    comments: dict[int, Comment] = field(default_factory=dict)  # by every line of the statement
    docs: dict[int, list[tuple[str, tuple[str, ...]]]] = field(default_factory=dict)  # argument or "return", shape
    sums: dict[str, str] = field(default_factory=dict)
    loops: set[int] = field(default_factory=set)  # lines where loops begin
    problems: list[str] = field(default_factory=list)


def dims_of(text: str) -> tuple[str, ...]:
    """ "B, K*P" -> ("B", "K*P")."""
    return tuple(part.strip() for part in text.split(","))


@cache
def letters(text: str) -> frozenset[str]:
    """The letters in an expression or a shape."""
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
        source.docs[_first_line(function)] = _documented(function, letters(inner))
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
        if unknown := letters(match.group(1)) - letters(max(inside, key=len, default=legend)):
            source.problems.append(f"{path.name}:{line} {', '.join(sorted(unknown))} is in no legend")
        loops = tuple(node.lineno for node in around if isinstance(node, ast.For | ast.While))
        source.loops |= set(loops)
        comment = Comment(path, line, dims, names, statement.lineno, statement.end_lineno or line, tuple(sorted(loops)))
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
        if letters(shape) <= legend:
            found += [(name, dims_of(shape)) for name in names.split(", ") if name in arguments]
    if (match := FIRST_ARGUMENT.search(docstring)) and letters(match.group(1)) <= legend:
        first = next(a.arg for a in function.args.args if a.arg != "self")
        found.append((first, dims_of(match.group(1))))
    found += [("return", dims_of(shape)) for shape in RETURNED.findall(docstring)[:1] if letters(shape) <= legend]
    return found
