"""log.jsonl: one line per step, for plots and for people; and the line of progress on the terminal."""

import json
import os
from pathlib import Path
from typing import Any

from minimllama.console import Progress, duration

FILE = "log.jsonl"


class StepLog:
    """Appends to log.jsonl of a run folder.

    A run that goes on from an earlier step keeps the lines up to it; the log with the lines of steps that are
    done again is kept as log-before-<step>.jsonl.

    Args:
        folder: of the run.
        step: steps already done.
        n_steps: of the whole run.
    """

    def __init__(self, folder: Path, step: int, n_steps: int) -> None:
        self.path, self.first, self.n_steps = folder / FILE, step, n_steps
        if self.path.exists():
            self._cut(step)
        self._file = self.path.open("a")
        self._progress = Progress()

    def _cut(self, step: int) -> None:
        lines = self.path.read_text().splitlines(keepends=True)
        whole = [line.rstrip("\n") for line in lines if line.endswith("\n")]  # a kill may have cut the last one
        kept = [line for line in whole if json.loads(line)["step"] <= step]
        if len(kept) < len(lines):
            os.replace(self.path, self.path.with_name(f"log-before-{step}.jsonl"))
            self.path.write_text("".join(line + "\n" for line in kept))

    def write(self, record: dict[str, Any], seconds_per_step: float) -> None:
        """One step."""
        self._file.write(json.dumps(record) + "\n")
        self._file.flush()
        step = record["step"]
        left = (self.n_steps - step) * seconds_per_step
        text = (
            f"step {step}/{self.n_steps}  loss {record['loss']:.4f}  lr {record['lr']:.2e}  "
            f"{record['images_per_s']:.1f} images/s  {duration(left)} left"
        )
        self._progress.show(text, last=step == self.n_steps)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read_log(folder: Path) -> list[dict[str, Any]]:
    """All lines of a run's log."""
    return [json.loads(line) for line in (folder / FILE).read_text().splitlines()]
