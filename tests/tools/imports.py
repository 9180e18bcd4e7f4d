"""The product's import graph, read from the syntax trees: imports inside functions count as well."""

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

PACKAGES = ("minimllama", "lora", "train", "eval")  # each may import those before it


@dataclass(frozen=True)
class Import:
    """One imported module: `importer` and `imported` are dotted names."""

    importer: str
    imported: str
    line: int

    def __str__(self) -> str:
        return f"{self.importer} imports {self.imported} (line {self.line})"


def product_files(root: Path) -> list[Path]:
    """Every Python file of the four packages."""
    return sorted(path for package in PACKAGES for path in (root / package).rglob("*.py"))


def module_name(path: Path, root: Path) -> str:
    """minimllama/checkpoint/__init__.py -> minimllama.checkpoint."""
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(path: Path, root: Path, modules: set[str]) -> Iterator[Import]:
    """What a file imports; `from package import name` means the module of that name if there is one."""
    importer = module_name(path, root)
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (Import(importer, alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} imports relatively"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield Import(importer, inner if inner in modules else str(node.module), node.lineno)


def all_imports(root: Path) -> list[Import]:
    """Every import of the product."""
    files = product_files(root)
    modules = {module_name(path, root) for path in files}
    return [found for path in files for found in imports_of(path, root, modules)]


def find_cycle(imports: list[Import]) -> list[str]:
    """Modules that import each other in a circle; empty if there is none."""
    graph: dict[str, set[str]] = {}
    for found in imports:
        graph.setdefault(found.importer, set()).add(found.imported)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def third_party(imports: list[Import], under: str) -> set[str]:
    """Top-level packages that are neither ours nor Python's, imported by modules at or below a dotted name."""
    inside = [f for f in imports if f.importer == under or f.importer.startswith(f"{under}.")]
    names = {found.imported.split(".")[0] for found in inside}
    return names - set(PACKAGES) - set(sys.stdlib_module_names)
