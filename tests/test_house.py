"""The rules of the house (docs/style.md) that a machine can check."""

import ast
import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tools.exercise import exercise
from tests.tools.imports import PACKAGES, Import, all_imports, find_cycle, imports_of, product_files, third_party
from tests.tools.shapes import watch

ROOT = Path(__file__).resolve().parents[1]
FILES = product_files(ROOT)
IMPORTS = all_imports(ROOT)
MODEL = {"torch", "safetensors", "tiktoken", "sentencepiece", "numpy", "PIL", "tyro"}
ROOM = {"numpy", "scipy", "PIL", "wfdb", "h5py", "pyarrow", "tyro"}
ALLOWED = {  # third-party packages, by the part of the product that may use them
    "minimllama": MODEL,
    "lora": {"torch", "safetensors", "tyro"},
    "train.ecg": ROOM,
    "train": MODEL | ROOM,
    "eval": MODEL | {"sklearn", "openai"},
}
DISTRIBUTIONS = {"PIL": "pillow", "sklearn": "scikit-learn"}  # where the name of the import is another one


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


# imports


def test_packages_import_only_those_before_them() -> None:
    rank = {package: i for i, package in enumerate(PACKAGES)}
    upward = [
        str(found)
        for found in IMPORTS
        if rank.get(found.imported.split(".")[0], 0) > rank[found.importer.split(".")[0]]
    ]
    assert not upward


def test_no_modules_import_each_other() -> None:
    assert find_cycle(IMPORTS) == []


def test_the_ecg_room_knows_neither_torch_nor_the_model() -> None:
    room = [found for found in IMPORTS if found.importer.startswith("train.ecg")]
    assert len(room) > 20
    outside = [f for f in room if f.imported.split(".")[0] in ("torch", *PACKAGES) and "train.ecg" not in f.imported]
    assert [str(found) for found in outside] == []


def test_scoring_starts_training_as_another_process_only() -> None:
    assert not [str(found) for found in IMPORTS if found.importer.startswith("eval") and found.imported == "train.loop"]


@pytest.mark.parametrize("part", ALLOWED)
def test_third_party_packages_are_the_ones_that_were_agreed_on(part: str) -> None:
    assert third_party(IMPORTS, part) <= ALLOWED[part]


def test_every_third_party_package_is_declared() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [one for group in project["optional-dependencies"].values() for one in group]
    declared = {re.split(r"[^\w-]", text)[0] for text in [*project["dependencies"], *extras]}
    used = {name for package in PACKAGES for name in third_party(IMPORTS, package)}
    assert {DISTRIBUTIONS.get(name, name) for name in used} <= declared


def test_a_circle_and_an_import_inside_a_function_would_be_found(tmp_path: Path) -> None:
    circle = [Import("a", "b", 1), Import("b", "c", 2), Import("c", "a", 3)]
    assert set(find_cycle(circle)) == {"a", "b", "c"}
    source = "def f():\n    from eval.metrics import g\n"
    (tmp_path / "lora.py").write_text(source)
    assert [str(f) for f in imports_of(tmp_path / "lora.py", tmp_path, set())] == ["lora imports eval.metrics (line 2)"]


# sizes


@pytest.mark.parametrize("path", FILES, ids=named)
def test_files_stay_under_300_lines(path: Path) -> None:
    assert path.read_text().count("\n") <= 300


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    yield from (node for node in ast.walk(parsed(path)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def test_functions_stay_under_45_lines_beside_their_docstring() -> None:
    long = []
    for path in FILES:
        for function in functions(path):
            lines = (function.end_lineno or 0) - function.lineno + 1
            if ast.get_docstring(function) is not None:
                lines -= (function.body[0].end_lineno or 0) - function.body[0].lineno + 1
            if lines > 45:
                long.append(f"{named(path)}:{function.lineno} {function.name} has {lines} lines")
    assert not long


# docstrings, output, environment


def undocumented(node: ast.AST, inside: str) -> Iterator[str]:
    """Public modules, classes, functions and methods without a docstring; what is inside a function is private."""
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is None:
        yield inside
    for child in getattr(node, "body", []) if not isinstance(node, ast.FunctionDef) else []:
        if isinstance(child, ast.ClassDef | ast.FunctionDef) and not child.name.startswith("_"):
            yield from undocumented(child, f"{inside}:{child.name}")


def test_every_public_name_has_a_docstring() -> None:
    assert [name for path in FILES for name in undocumented(parsed(path), named(path))] == []
    assert list(undocumented(ast.parse('"""Module."""\ndef f(): ...\ndef _g(): ...'), "m")) == ["m:f"]


def test_nothing_prints() -> None:
    calls = [
        f"{named(path)}:{node.lineno}"
        for path in FILES
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert not calls


def test_the_environment_is_read_in_one_place() -> None:
    readers = [
        f"{named(path)}:{node.lineno}"
        for path in FILES
        for node in ast.walk(parsed(path))
        if (isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv", "putenv"))
        or (isinstance(node, ast.ImportFrom) and {a.name for a in node.names} & {"environ", "getenv"})
    ]
    allowed = ("train/distributed.py", "train/ecg/__main__.py")  # the ECG room has no torch, and asks torchrun itself
    assert [reader for reader in readers if not reader.startswith(allowed)] == []


# the tree in README.md


def tree_of(text: str) -> dict[str, str]:
    """Path -> comment of every line in the fenced block after the heading "## The tree"; folders end in a slash."""
    block = re.search(r"^## The tree\n.*?^```\w*\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    assert block, 'README.md has no fenced block after "## The tree"'
    paths: dict[str, str] = {}
    folders: list[tuple[int, str]] = []
    for line in block.group(1).splitlines():
        indent = len(line) - len(line.lstrip())
        name, _, comment = line.strip().partition("  ")
        folders = [(depth, folder) for depth, folder in folders if depth < indent]
        path = "".join(folder for _, folder in folders[-1:]) + name
        paths[path] = comment.strip()
        if name.endswith("/"):
            folders.append((indent, path))
    return paths


def tracked() -> list[str]:
    """Files of the repository; without git, those of the packages."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    return listed.stdout.splitlines() if listed.returncode == 0 else [named(path) for path in FILES]


@pytest.fixture(scope="module")
def tree() -> dict[str, str]:
    return tree_of((ROOT / "README.md").read_text())


def test_everything_in_the_tree_exists_and_is_explained(tree: dict[str, str]) -> None:
    assert [path for path in tree if not (ROOT / path).exists()] == []
    assert [path for path in tree if path.endswith("/") != (ROOT / path).is_dir()] == []
    assert [path for path, comment in tree.items() if not comment] == []


def test_everything_that_exists_is_in_the_tree(tree: dict[str, str]) -> None:
    closed = [f for f in tree if f.endswith("/") and not any(p != f and p.startswith(f) for p in tree)]
    assert not set(closed) & {f"{package}/" for package in PACKAGES}, "a package is listed without its files"
    source = [path for path in tracked() if path.split("/")[0] in PACKAGES and path.endswith(".py")]
    top = {path.split("/")[0] + ("/" if "/" in path else "") for path in tracked()}
    hidden = {path for path in top if path.startswith(".")} | {"README.md"}
    wanted = {*source, *(path for path in top - hidden)}
    missing = [path for path in wanted if path not in tree and not path.startswith(tuple(closed))]
    assert sorted(missing) == []


def test_a_tree_is_read_by_its_indentation() -> None:
    text = "# x\n## The tree\n\n```text\na/   one\n  b.py  two\n  c/    three\n    d.py  four\ne  five\n```\n"
    assert tree_of(text) == {"a/": "one", "a/b.py": "two", "a/c/": "three", "a/c/d.py": "four", "e": "five"}


# executed shape comments


@pytest.fixture(scope="module")
def shapes(tokenizer, tmp_path_factory: pytest.TempPathFactory):
    files = [path for path in FILES if path.relative_to(ROOT).parts[0] in ("minimllama", "lora")]
    with watch(files) as report:
        exercise(tokenizer, tmp_path_factory.mktemp("native"))
    return report


def test_every_shape_comment_holds(shapes) -> None:
    assert shapes.violations == []


def test_every_shape_comment_is_exercised(shapes) -> None:
    assert shapes.n_comments > 100
    assert shapes.unseen == []
