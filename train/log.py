"""log.jsonl: one line per step, for plots and for people; and the line of progress on the terminal."""

import itertools
import json
import os
from pathlib import Path
from typing import Any

from minimllama.console import Progress, duration

FILE, VALIDATIONS = "log.jsonl", "validation.jsonl"


class StepLog:
    """Appends to log.jsonl of a run folder.

    A run that goes on from an earlier step keeps the lines up to it; the log with the lines of steps that are
    done again is kept as log-before-<step>.jsonl, a second time as log-before-<step>-2.jsonl.

    Args:
        folder: of the run.
        step: steps already done.
        n_steps: of the whole run.
        tensorboard: write for TensorBoard, too, into tensorboard/.

    Raises:
        ModuleNotFoundError: if TensorBoard is asked for and not installed.
    """

    def __init__(self, folder: Path, step: int, n_steps: int, *, tensorboard: bool = False) -> None:
        self.path, self.first, self.n_steps = folder / FILE, step, n_steps
        cut(self.path, step)
        self._board = _open_board(folder / "tensorboard") if tensorboard else None
        self._file = self.path.open("a")
        self._progress = Progress()

    def write(self, record: dict[str, Any], seconds_per_step: float) -> None:
        """One step."""
        self._file.write(json.dumps(record) + "\n")
        self._file.flush()
        step = record["step"]
        if self._board:
            for name, value in record.items():
                if value is not None:
                    self._board.add_scalar(name, value, step)
        left = (self.n_steps - step) * seconds_per_step
        loss = "not finite" if record["loss"] is None else f"{record['loss']:.4f}"
        text = (
            f"step {step}/{self.n_steps}  loss {loss}  lr {record['lr']:.2e}  "
            f"{record['images_per_s']:.1f} images/s  {duration(left)} left"
        )
        self._progress.show(text, last=step == self.n_steps)

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        if self._board:
            self._board.close()


def _open_board(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ModuleNotFoundError as error:
        message = "save.tensorboard = true needs TensorBoard: pip install 'minimllama[tensorboard]'"
        raise ModuleNotFoundError(message) from error
    return SummaryWriter(str(folder))


def cut(path: Path, step: int) -> None:
    """Keep the lines up to a step of a file of JSON lines; if others are lost, keep the whole file beside it."""
    if not path.exists():
        return
    kept = [line for line in _whole_lines(path) if json.loads(line)["step"] <= step]
    if len(kept) < len(path.read_text().splitlines()):
        earlier = path.with_name(f"{path.stem}-before-{step}.jsonl")
        for n in itertools.count(2):
            if not earlier.exists():
                break
            earlier = path.with_name(f"{path.stem}-before-{step}-{n}.jsonl")
        os.replace(path, earlier)
        path.write_text("".join(line + "\n" for line in kept))


def _whole_lines(path: Path) -> list[str]:
    """Without the last one if a kill has cut it off."""
    return [line.rstrip("\n") for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]


def read_log(folder: Path) -> list[dict[str, Any]]:
    """All lines of a run's log."""
    return [json.loads(line) for line in _whole_lines(folder / FILE)]


def read_validations(folder: Path) -> list[dict[str, Any]]:
    """All lines of a run's validations; none if there were none."""
    path = folder / VALIDATIONS
    return [json.loads(line) for line in _whole_lines(path)] if path.exists() else []
