"""python -m tests.tools.refresh_pages docs/tour.md ...: write into pages what their Python blocks print now.

Only blocks marked `text output` whose text has no "..." are rewritten; read the difference before committing it.
"""

import sys
import tempfile
from pathlib import Path

from tests.tools.pages import Block, Session, run_page


def refresh(page: Path) -> int:
    """Rewrite the outputs of a page; returns how many changed."""
    new: dict[int, list[str]] = {}

    def note(block: Block, session: Session) -> None:
        if "output" in block.options and "..." not in block.text:
            new[block.line] = [line.rstrip() for line in session.printed.strip("\n").splitlines()]

    with tempfile.TemporaryDirectory() as folder:
        run_page(page.resolve(), Path(folder), text=note)
    lines, changed = page.read_text().splitlines(), 0
    for start in sorted(new, reverse=True):
        end = next(i for i in range(start - 1, len(lines)) if lines[i].startswith("```"))
        changed += lines[start - 1 : end] != new[start]
        lines[start - 1 : end] = new[start]
    page.write_text("\n".join(lines) + "\n")
    return changed


if __name__ == "__main__":
    for name in sys.argv[1:]:
        sys.stdout.write(f"{name}: {refresh(Path(name))} outputs changed\n")
