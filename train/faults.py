"""What goes wrong in long runs: signals, numbers that are not finite, too little memory, two runs in one folder."""

import fcntl
import json
import math
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor

from minimllama import MiniMllama
from train.activation import blocks
from train.dataset import Batch

LOCK = ".lock"
SIGNALS = (signal.SIGTERM, signal.SIGUSR1)  # what schedulers send before they take the machine away


class NotFiniteError(FloatingPointError):
    """A loss or a gradient that is not a number; the step was not applied.

    Attributes:
        report: what is known about it, ready for JSON.
    """

    def __init__(self, message: str, report: dict[str, Any]) -> None:
        super().__init__(message)
        self.report = report


class OutOfMemoryError(MemoryError):
    """A step that did not fit; the message names its records and what to change."""


class StopSignal:
    """Remembers that a signal asked the run to stop; `with` sets and restores the handlers."""

    def __init__(self) -> None:
        self.name = ""
        self._before: dict[int, Any] = {}

    def _remember(self, number: int, frame: FrameType | None) -> None:
        self.name = signal.Signals(number).name

    def __enter__(self) -> "StopSignal":
        for number in SIGNALS:
            try:
                self._before[number] = signal.signal(number, self._remember)
            except ValueError:  # not the main thread: whoever runs us there has to stop us
                break
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


@contextmanager
def only_run(folder: Path) -> Iterator[None]:
    """Hold the folder; the system lets go of it when the process ends, however it ends.

    Raises:
        FileExistsError: if another process trains in it.
        OSError: if its file system has no locks (Lustre without `flock`, some NFS).
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            message = f"another process is training in {folder}; wait for it, or choose another name"
            raise FileExistsError(message) from None
        except OSError as error:
            message = f"{folder} cannot be locked ({error}): mount its file system with locks, or choose another out"
            raise OSError(message) from error
        yield


def _maximum(tensor: Tensor) -> float:
    return float(tensor.detach().abs().max()) if tensor.numel() else 0.0


def gradient_maxima(parameters: dict[str, Tensor]) -> dict[str, float]:
    """Largest absolute gradient of every parameter, of this rank's part."""
    from train.optim import local

    return {name: _maximum(local(p.grad)) for name, p in parameters.items() if p.grad is not None}


@torch.no_grad()
def activation_maxima(model: MiniMllama, batches: Sequence[Batch], run: Any) -> dict[str, float]:
    """Largest absolute output of every block over the batches, without dropout.

    Args:
        model: of the run.
        batches: of the step.
        run: computes a batch.
    """
    names = {module: name for name, module in model.named_modules()}
    found: dict[str, float] = {}

    def note(module: torch.nn.Module, inputs: Any, output: Tensor) -> None:
        now, before = _maximum(output), found.get(names[module], 0.0)
        found[names[module]] = now if math.isnan(now) or math.isnan(before) else max(now, before)

    hooks = [block.register_forward_hook(note) for block in blocks(model)]
    is_training = model.training
    model.eval()
    for batch in batches:
        run(batch)
    model.train(is_training)
    for hook in hooks:
        hook.remove()
    return found


def write_report(path: Path, report: dict[str, Any]) -> None:
    """As JSON, with numbers that are not finite as words."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(part) for key, part in value.items()}
        if isinstance(value, list):
            return [plain(part) for part in value]
        return str(value) if isinstance(value, float) and not math.isfinite(value) else value

    path.write_text(json.dumps(plain(report), indent=2) + "\n")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocator, an accelerator's or the host's, refused; or a library that asks the driver itself."""
    said = ("can't allocate memory", "out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
    return isinstance(error, torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and any(words in str(error) for words in said)
    )
