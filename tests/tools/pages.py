"""Pages of documentation as programs: what a page shows is run, and what it says that comes out is compared.

The first line of a fence says what is done with the block:

    python                     run, in order, in one namespace per page, in a folder of its own
    python source=FILE:NAME    a quotation; equals that function or class in the file
    text output                what the block before it printed; "..." stands for anything
    console                    a line that begins with "$ " is a command, which is run; its output stands below it
    console needs=WHAT         commands that need WHAT (weights, records, time, ...); their options are checked instead
    console exit=N             commands that end with code N
    toml file=NAME             written to the page's folder
    text                       a drawing or a tree; nothing is done
"""

import ast
import contextlib
import doctest
import importlib
import io
import os
import re
import shlex
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.tools.commands import PACKAGES, call, main_of, under_torchrun

ROOT = Path(__file__).resolve().parents[2]
KINDS = {"python": {"source"}, "text": {"output"}, "console": {"needs", "exit"}, "toml": {"file"}}


class PageError(AssertionError):
    """A page is wrong; the message begins with its file and line."""


@dataclass(frozen=True, kw_only=True)
class Block:
    """A fenced block: its kind, the words behind it, its text, and the line of the page on which the text begins."""

    kind: str
    options: dict[str, str]
    text: str
    line: int


@dataclass
class Session:
    """What the blocks of a page share."""

    page: Path
    folder: Path
    namespace: dict[str, Any] = field(default_factory=lambda: {"__name__": "page"})
    printed: str = ""

    def wrong(self, line: int, message: str) -> PageError:
        """An error at a line of the page."""
        return PageError(f"{self.page}:{line}: {message}")


def read_blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page, in order.

    Raises:
        PageError: for a fence that is not closed, or a first line that says something else than the list above.
    """
    blocks, lines, start = [], page.read_text().splitlines(), None
    for number, line in enumerate(lines, start=1):
        if not line.startswith("```"):
            continue
        if start is None:
            start = number
            continue
        kind, *words = lines[start - 1][3:].split()
        options = {key: value for key, _, value in (word.partition("=") for word in words)}
        if kind not in KINDS or not set(options) <= KINDS[kind]:
            raise PageError(f"{page}:{start}: no rule for a block that begins with {lines[start - 1]!r}")
        blocks.append(Block(kind=kind, options=options, text="\n".join(lines[start : number - 1]), line=start + 1))
        start = None
    if start is not None:
        raise PageError(f"{page}:{start}: the block is not closed")
    return blocks


Rule = Callable[[Block, Session], None]


def run_page(page: Path, folder: Path, **rules: Rule) -> None:
    """Run a page in an empty folder, in which the repository's own folders can be named as from its root.

    Args:
        page: of documentation.
        folder: empty.
        rules: what to do with a kind of block instead of RUN's rule.

    Raises:
        PageError: at the first thing that does not hold.
    """
    for name in (*(package for package in PACKAGES if "." not in package), "docs", "tests"):
        (folder / name).symlink_to(ROOT / name)
    session = Session(page, folder)
    here = Path.cwd()
    os.chdir(folder)
    try:
        for block in read_blocks(page):
            {**RUN, **rules}[block.kind](block, session)
    finally:
        os.chdir(here)


def _run_python(block: Block, session: Session) -> None:
    if "source" in block.options:
        _compare_quotation(block, session)
        return
    code = compile("\n" * (block.line - 1) + block.text, str(session.page), "exec")  # so that a traceback fits
    with contextlib.redirect_stdout(io.StringIO()) as out:
        try:
            exec(code, session.namespace)
        except Exception as error:
            at = _line_of(error, str(session.page)) or block.line
            raise session.wrong(at, f"{type(error).__name__}: {error}") from error
    session.printed = out.getvalue()


def _line_of(error: BaseException, file: str) -> int | None:
    trace, line = error.__traceback__, None
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == file:
            line = trace.tb_lineno
        trace = trace.tb_next
    return line


def quoted_source(file: Path, name: str) -> str:
    """Text of a function, class or method (`Class.method`) in a file, without its indentation.

    Raises:
        LookupError: if the file has none of that name.
    """
    text = file.read_text()
    body: list[ast.stmt] = ast.parse(text).body
    node: ast.stmt | None = None
    for part in name.split("."):
        found = [item for item in body if getattr(item, "name", None) == part]
        if not found:
            raise LookupError(f"{file} has no {name}")
        node, body = found[0], getattr(found[0], "body", [])
    assert node is not None
    first = min([node.lineno, *(item.lineno for item in getattr(node, "decorator_list", []))])
    return textwrap.dedent("\n".join(text.splitlines()[first - 1 : node.end_lineno]))


def _compare_quotation(block: Block, session: Session) -> None:
    file, _, name = block.options["source"].partition(":")
    try:
        wanted = quoted_source(ROOT / file, name)
    except (LookupError, FileNotFoundError) as error:
        raise session.wrong(block.line, str(error)) from error
    ours, theirs = block.text.splitlines(), wanted.splitlines()
    for offset, (mine, source) in enumerate(zip(ours, theirs, strict=False)):
        if mine != source:
            raise session.wrong(block.line + offset, f"quotes {mine!r}, but {file} has {source!r}")
    if len(ours) != len(theirs):
        raise session.wrong(block.line, f"quotes {len(ours)} lines of {name}, but {file} has {len(theirs)}")


def _compare_output(wanted: str, printed: str, session: Session, line: int) -> None:
    def flat(text: str) -> str:
        return "\n".join(part.rstrip() for part in text.strip().splitlines()) + "\n"

    if not doctest.OutputChecker().check_output(flat(wanted), flat(printed), doctest.ELLIPSIS):
        raise session.wrong(line, f"the page says\n{flat(wanted)}but what comes out is\n{flat(printed)}")


def _check_text(block: Block, session: Session) -> None:
    if "output" in block.options:
        _compare_output(block.text, session.printed, session, block.line)


def _write_toml(block: Block, session: Session) -> None:
    if "file" not in block.options:
        raise session.wrong(block.line - 1, "a toml block needs file=NAME")
    (session.folder / block.options["file"]).write_text(block.text + "\n")


def commands(block: Block) -> Iterator[tuple[int, str, str]]:
    """Line, command and expected output of each command in a console block; a backslash continues a command."""
    lines = block.text.splitlines()
    starts = [i for i, line in enumerate(lines) if line.startswith("$ ")]
    for start, end in zip(starts, [*starts[1:], len(lines)], strict=True):
        rest, command = start, lines[start][2:]
        while command.endswith("\\"):
            rest += 1
            command = f"{command[:-1].rstrip()} {lines[rest].strip()}"
        yield block.line + start, command, "\n".join(lines[rest + 1 : end])


def _run_console(block: Block, session: Session) -> None:
    if not list(commands(block)):
        raise session.wrong(block.line, 'a console block needs a line that begins with "$ "')
    for line, command, wanted in commands(block):
        if "needs" in block.options:
            check_command(command, session, line)
            continue
        code, printed, errors = call(command)
        if code != int(block.options.get("exit", 0)):
            raise session.wrong(line, f"{command} ended with {code}:\n{printed}{errors}")
        printed = printed if code == 0 else printed + errors
        if wanted:
            _compare_output(wanted, printed, session, line)
        session.printed = printed


def check_command(command: str, session: Session, line: int) -> None:
    """What can be said about a command without running it: the program, the subcommand and every option exist.

    Raises:
        PageError: if one does not.
    """
    words = under_torchrun(shlex.split(command, comments=True))[1]
    if words[0] == "make":
        targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.M)
        if unknown := [word for word in words[1:] if "=" not in word and word not in targets]:
            raise session.wrong(line, f"the Makefile has no target {', '.join(unknown)}")
        return
    main = main_of(words)
    if main is None:
        return
    table = importlib.import_module(f"{words[2]}.__main__").COMMANDS
    if len(words) < 4 or words[3] not in table:
        raise session.wrong(line, f"python -m {words[2]} has the commands {', '.join(table)}")
    recipe = words[words.index("--recipe") : words.index("--recipe") + 2] if "--recipe" in words else []
    with contextlib.redirect_stdout(io.StringIO()) as out:
        for name in {words[3], "run"} if recipe else {words[3]}:  # whatever takes a recipe takes its fields
            with contextlib.suppress(SystemExit):
                main([name, *recipe, "--help"])
    known = set(re.findall(r"--[a-z0-9.-]+", out.getvalue()))
    for option in (word.partition("=")[0] for word in words[4:] if word.startswith("--")):
        if option.replace("_", "-") not in known | {"--recipe"}:
            raise session.wrong(line, f"python -m {words[2]} {words[3]} has no option {option}")


RUN: dict[str, Rule] = {
    "python": _run_python,
    "text": _check_text,
    "console": _run_console,
    "toml": _write_toml,
}


def anchor(heading: str) -> str:
    """A heading's name in links, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def check_links(page: Path) -> None:
    """Relative links lead to files, and to headings in them.

    Raises:
        PageError: for the first that does not.
    """
    for number, line in enumerate(page.read_text().splitlines(), start=1):
        for target in re.findall(r"\]\(([^)\s]+)\)", line):
            if re.match(r"[a-z]+:", target):
                continue
            name, _, place = target.partition("#")
            file = page.parent / name if name else page
            if not file.exists():
                raise PageError(f"{page}:{number}: no file {target}")
            headings = re.findall(r"^#+ (.+)$", file.read_text(), re.M) if place else []
            if place and place not in map(anchor, headings):
                raise PageError(f"{page}:{number}: {file.name} has no heading for #{place}")
