"""Saving checkpoints: whole or absent, while the run waits or in the background."""

import json
import os
import shutil
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict_saver import async_save
from torch.distributed.checkpoint.state_dict_saver import save as save_state

from lora import save_adapter
from minimllama import MiniMllama
from train.checkpoint.files import (
    ALONE,
    BEST,
    CHECKSUMS,
    LATEST,
    PROGRESS,
    Progress,
    checkpoints,
    digest,
    files_of,
    point,
    pointed,
)
from train.checkpoint.random import quietly, random_state
from train.distributed import World
from train.optim import MasterAdamW


def _try(world: World, action: Callable[[], Any] | None) -> None:
    """Do this rank's part; if any rank fails, all raise."""
    error: Exception | None = None
    if action is not None:
        try:
            action()
        except CheckpointException as failed:  # on every rank, if on any
            error = OSError("; ".join(str(cause[0]) for cause in failed.failures.values()))
        except Exception as caught:
            error = caught
    world.together(error)


@dataclass(kw_only=True)
class Saving:
    """A checkpoint that is being written.

    Attributes:
        folder: of the run.
        progress: where the run stood.
        keep: newest checkpoints to keep.
        world: of this rank.
        written: of the background; None if everything is written already.
    """

    folder: Path
    progress: Progress
    keep: int
    world: World
    written: Future[Any] | None = None

    @property
    def target(self) -> Path:
        """Its place."""
        return self.folder / f"checkpoint-{self.progress.step}"

    @property
    def partial(self) -> Path:
        """Where it is until it is whole."""
        return self.folder / f".{self.target.name}.partial"

    def write(self, model: MiniMllama | None, note: dict[str, Any], method: str) -> None:
        """Adapter, progress and random state; each rank its part."""

        def main_part() -> None:
            shutil.rmtree(self.partial, ignore_errors=True)
            self.partial.mkdir(parents=True)
            if method == "lora":
                assert model is not None
                save_adapter(model, self.partial / "adapter")
            (self.partial / PROGRESS).write_text(json.dumps(note, indent=2) + "\n")

        _try(self.world, main_part if self.world.is_main else None)
        mine = self.partial / f"random-{self.world.rank}.pt"
        _try(self.world, lambda: torch.save(random_state(self.world.device), mine))

    def write_state(self, optimizer: MasterAdamW, background: dist.ProcessGroup | bool) -> None:
        """What is trained, and its moments.

        Args:
            optimizer: which has them.
            background: copy them, and write the copy while the run goes on; a group of its own on several ranks.
        """
        where: dict[str, Any] = {"checkpoint_id": self.partial / "state", "no_dist": self.world.size == 1}
        with quietly():
            if background is False:
                _try(self.world, lambda: save_state(optimizer.tensors(), **where))
                return
            group = None if background is True else background
            started = async_save(optimizer.tensors(), process_group=group, **where)
        assert isinstance(started, Future)
        self.written = started

    def is_ready(self) -> bool:
        """Whether every rank has written its part; all ranks ask together."""
        return self.world.total(float(self.written is None or self.written.done())) == self.world.size

    def finish(self) -> Path:
        """Wait, add the checksums, put it in its place, and remove old ones.

        Raises:
            OSError: if it could not be written; nothing of it is left, and the one before is untouched.
        """
        with self.or_nothing():
            if self.written is not None:
                _try(self.world, self.written.result)
            self._seal()
        if self.world.is_main:
            self._move()
        self.world.wait()
        return self.target

    def or_nothing(self) -> "_OrNothing":
        """Whatever fails inside: remove what there is of the checkpoint, and say so."""
        return _OrNothing(self)

    def _seal(self) -> None:
        """Each rank reads back its share of the files; the main rank writes the checksums."""
        world, partial = self.world, self.partial
        mine = {name: digest(partial / name) for name in files_of(partial)[world.rank :: world.size]}
        sums = {name: value for part in world.gather(mine) for name, value in part.items()}
        text = json.dumps(sums, indent=2) + "\n"
        _try(world, lambda: (partial / CHECKSUMS).write_text(text) if world.is_main else None)

    def _move(self) -> None:
        if self.target.exists():  # the same step of an earlier attempt, which ended before `latest` named it
            shutil.rmtree(self.target)
        os.replace(self.partial, self.target)
        if self.progress.best_step == self.progress.step and self.progress.best is not None:
            point(self.folder, BEST, self.target.name)
        point(self.folder, LATEST, self.target.name)
        spared = {self.target, pointed(self.folder, BEST)}
        for old in checkpoints(self.folder)[: -self.keep]:
            if old not in spared:  # later ones may be left from an earlier attempt
                shutil.rmtree(old)


class _OrNothing:
    def __init__(self, saving: Saving) -> None:
        self.saving = saving

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if not isinstance(error, Exception):
            return
        saving = self.saving
        if saving.world.is_main:
            shutil.rmtree(saving.partial, ignore_errors=True)
        kept = pointed(saving.folder, LATEST)
        before = f"{kept.name} is untouched" if kept else "there is none before it"
        raise OSError(f"{saving.target} could not be saved ({error}); {before}") from error


def begin_checkpoint(
    folder: Path,
    model: MiniMllama | None,
    optimizer: MasterAdamW,
    progress: Progress,
    recipe: str,
    method: str,
    keep: int,
    *,
    world: World = ALONE,
    pages_per_step: int = 0,
    background: dist.ProcessGroup | bool = False,
) -> Saving:
    """Start writing checkpoint-<step>; `finish` of the result ends it.

    Args:
        folder: of the run.
        model: to take the adapter from, whole; None on other ranks than the main one.
        optimizer: to be saved.
        progress: where the run stands; if its best step is this one, `best` will point here too.
        recipe: the resolved configuration, as text.
        method: of tuning.
        keep: newest checkpoints to keep, beside the best.
        world: all ranks call this together.
        pages_per_step: over all ranks; a run with another number of ranks must have the same.
        background: see `Saving.write_state`.

    Raises:
        OSError: see `Saving.finish`.
    """
    saving = Saving(folder=folder, progress=progress, keep=keep, world=world)
    note = {**asdict(progress), "n_ranks": world.size, "pages_per_step": pages_per_step, "recipe": recipe}
    with saving.or_nothing():
        saving.write(model, note, method)
        saving.write_state(optimizer, background)
    return saving


def save_checkpoint(*arguments: Any, **options: Any) -> Path:
    """Write checkpoint-<step>, point `latest` at it, and remove old ones: `begin_checkpoint` and `Saving.finish`."""
    return begin_checkpoint(*arguments, **options).finish()
