"""Every page of docs/ runs, what it quotes stands in the source, and what it names exists."""

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tools.pages import ROOT, PageError, check_links, read_blocks, run_page

PAGES = sorted((ROOT / "docs").glob("*.md"))
TEXTS = [*sorted((ROOT / "docs").rglob("*.md")), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
PRODUCT = ("minimllama", "lora", "train", "eval")


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", [*PAGES, *TEXTS[-2:]], ids=name_of)
def test_a_page_does_what_it_says(page: Path, tmp_path: Path) -> None:
    run_page(page, tmp_path)


@pytest.mark.parametrize("page", TEXTS, ids=name_of)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    check_links(page)


@pytest.mark.parametrize("page", TEXTS, ids=name_of)
def test_tests_that_a_page_names_exist(page: Path) -> None:
    for file, test in re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", page.read_text()):
        assert (ROOT / file).is_file(), f"{page} names {file}"
        assert f"def {test}(" in (ROOT / file).read_text(), f"{page}: {file} has no {test}"


def test_every_quirk_that_the_code_cites_is_an_entry() -> None:
    headings = re.findall(r"^## (.+)$", (ROOT / "docs/quirks.md").read_text(), re.M)
    cited = set()
    for path in product_files():
        text = re.sub(r"\n\s*(?:# )?", " ", path.read_text())
        cited |= set(re.findall(r'docs/quirks\.md, "([^"]+)"', text))
    assert {"taps", "rows that see nothing", "new tokens", "peak memory while loading"} <= cited
    assert cited <= set(headings)


# equations.md ---------------------------------------------------------------------------------------------------


def product_files() -> list[Path]:
    return [path for package in PRODUCT for path in sorted((ROOT / package).rglob("*.py"))]


def docstrings() -> Iterator[tuple[str, str]]:
    """Every docstring of the product, by the dotted name of what it describes."""
    for path in product_files():
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        yield from _docstrings(ast.parse(path.read_text()), module)


def _docstrings(node: ast.AST, name: str) -> Iterator[tuple[str, str]]:
    if text := ast.get_docstring(node):  # type: ignore[arg-type]
        yield name, text
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef | ast.FunctionDef):
            yield from _docstrings(child, f"{name}.{child.name}")


def rows() -> list[list[str]]:
    """The cells of all rows of equations.md that name one of our symbols."""
    lines = (ROOT / "docs/equations.md").read_text().splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")]
    return [row for row in cells if any(cell.startswith(tuple(f"`{p}" for p in PRODUCT)) for cell in row)]


def symbols(row: list[str]) -> list[str]:
    return re.findall(rf"`((?:{'|'.join(PRODUCT)})[\w.]*)`", " ".join(row))


def exists(symbol: str) -> bool:
    parts = symbol.split(".")
    for n in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:n]))
        except ModuleNotFoundError:
            continue
        for part in parts[n:]:
            if not hasattr(found, part):
                return False
            found = getattr(found, part)
        return True
    return False


def test_every_symbol_of_the_equations_page_exists() -> None:
    named = [symbol for row in rows() for symbol in symbols(row)]
    assert len(named) > 20
    assert [symbol for symbol in named if not exists(symbol)] == []


def test_every_row_of_the_equations_page_names_a_test() -> None:
    assert [row for row in rows() if "::test_" not in " ".join(row)] == []


CITATION = r"arXiv:\d{4}\.\d{5}|doi:[\w./-]*\w|Eq\. \d+"


@pytest.mark.parametrize(
    ("name", "text"), [(n, t) for n, t in docstrings() if re.search(CITATION, t)], ids=lambda value: value[:60]
)
def test_every_citation_in_a_docstring_has_a_row(name: str, text: str) -> None:
    """The row names the symbol, or for the docstring of a file one of the file's symbols."""
    mine = [" ".join(row) for row in rows() if any(s == name or s.startswith(f"{name}.") for s in symbols(row))]
    missing = [cited for cited in re.findall(CITATION, text) if not any(cited in row for row in mine)]
    assert missing == [], f"docs/equations.md has no row of {name} with {missing}"


def test_every_file_that_follows_metas_code_has_a_row() -> None:
    named = [symbol for row in rows() for symbol in symbols(row)]
    for path in product_files():
        if "llama-models" in path.read_text():
            module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            assert any(symbol.startswith(f"{module}.") for symbol in named), f"docs/equations.md has no row of {module}"


# The tool -------------------------------------------------------------------------------------------------------

GOOD = """# A page

```python
x = 2
print(x, "tiles")
```
```text output
2 ...
```

```python source=minimllama/rope.py:apply_rope
{quotation}
```

```toml file=small.toml
a = 1
```

```console
$ cat small.toml
a = 1
$ python -m eval judge --reference "Sinus rhythm." \\
    --candidate "Sinus rhythm."
{{"score": 100.0, ...
```

```console needs=weights
$ python -m minimllama chat --model checkpoints/x --question "Why?"
```
"""


@pytest.fixture
def good_page(tmp_path: Path) -> Path:
    source = (ROOT / "minimllama/rope.py").read_text()
    page = tmp_path / "page.md"
    page.write_text(GOOD.format(quotation=source[source.index("def apply_rope") :].rstrip()))
    return page


def run(page: Path) -> None:
    folder = page.parent / "run"
    folder.mkdir()
    run_page(page, folder)


def test_a_page_without_mistakes_passes(good_page: Path) -> None:
    run(good_page)


@pytest.mark.parametrize(
    ("right", "wrong", "line", "message"),
    [
        ("x = 2", "x = 2 / 0", 4, "ZeroDivisionError"),
        ("2 ...", "3 ...", 8, "what comes out is"),
        ("x.float().chunk", "x.half().chunk", 22, "but minimllama/rope.py has"),
        ("rope.py:apply_rope", "rope.py:turn", 12, "has no turn"),
        ("$ cat small", "$ cat large", 32, "ended with 1"),
        ("a = 1\n$ python", "a = 2\n$ python", 32, "the page says"),
        ("--candidate", "--candidates", 34, "ended with 2"),
        ("minimllama chat", "minimllama talk", 40, "has the commands trace, chat, convert"),
        ("--question", "--ask", 40, "has no option --ask"),
        ("needs=weights", "skip", 39, "no rule for a block"),
        ("```console needs=weights", "```bash", 39, "no rule for a block"),
    ],
)
def test_a_mistake_is_reported_with_its_line(good_page: Path, right: str, wrong: str, line: int, message: str) -> None:
    text = good_page.read_text()
    assert right in text
    good_page.write_text(text.replace(right, wrong, 1))
    with pytest.raises(PageError, match=re.escape(message)) as error:
        run(good_page)
    assert str(error.value).startswith(f"{good_page}:{line}:")


def test_a_block_that_is_not_closed_is_reported(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```python\nx = 1\n")
    with pytest.raises(PageError, match=r"page\.md:1: the block is not closed"):
        read_blocks(page)


def test_a_link_to_nowhere_is_reported(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# One heading\n[good](page.md#one-heading)\n[bad](page.md#another)\n")
    with pytest.raises(PageError, match=r"page\.md:3: page\.md has no heading for #another"):
        check_links(page)
    page.write_text("[gone](gone.md)\n")
    with pytest.raises(PageError, match=r"page\.md:1: no file gone\.md"):
        check_links(page)
