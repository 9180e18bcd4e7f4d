"""Checkpoints that are whole or absent: written beside their place, then renamed; verified when they are read.

checkpoint-<step>/ holds

    adapter/            PEFT format, under "lora"
    state/              all that is trained in float32, AdamW's moments: torch.distributed.checkpoint, so that any
                        number of ranks can go on from it
    random-<rank>.pt    random state of every rank
    progress.json       step, position in the data, recipe
    checksums.json      SHA-256 of all of these

and with it a run goes on bit for bit. Older checkpoints hold state.pt instead, and are still read.
"""

import hashlib
import json
import os
import re
import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.state_dict_loader import load as load_state
from torch.distributed.checkpoint.state_dict_saver import save as save_state

from lora import save_adapter
from minimllama import MiniMllama
from train.distributed import World
from train.optim import MasterAdamW
from train.recipe_changes import refuse_changes

LATEST, BEST = "latest", "best"
OLD, CHECKSUMS, PROGRESS = "state.pt", "checksums.json", "progress.json"
ALONE = World(device=torch.device("cpu"))


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where a run stands.

    Attributes:
        step: optimizer steps done.
        position: items of the mixture consumed.
        best: the best value of the watched metric so far.
        best_step: when.
    """

    step: int = 0
    position: int = 0
    best: float | None = None
    best_step: int = 0


def _random_state() -> dict[str, Any]:
    state: dict[str, Any] = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def _set_random_state(state: dict[str, Any]) -> None:
    torch.set_rng_state(state["cpu"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])


@contextmanager
def _quietly() -> Iterator[None]:
    """Without the warning that a single process is a single process."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled", UserWarning)
        yield


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _files(folder: Path) -> list[str]:
    """All files of a checkpoint, by their paths inside, but the checksums."""
    found = [str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file() and p.name != CHECKSUMS]
    return sorted(found)


def _write(
    partial: Path, model: MiniMllama | None, optimizer: MasterAdamW, note: dict[str, Any], method: str, world: World
) -> None:
    """Everything of a checkpoint but its checksums; each rank its part."""

    def main_part() -> None:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        if method == "lora":
            assert model is not None
            save_adapter(model, partial / "adapter")
        (partial / PROGRESS).write_text(json.dumps(note, indent=2) + "\n")

    _try(world, main_part if world.is_main else None)
    _try(world, lambda: torch.save(_random_state(), partial / f"random-{world.rank}.pt"))
    error: Exception | None = None
    try:
        with _quietly():
            save_state(optimizer.tensors(), checkpoint_id=partial / "state", no_dist=world.size == 1)
    except CheckpointException as failed:  # on every rank, if on any
        error = OSError("; ".join(str(cause[0]) for cause in failed.failures.values()))
    world.together(error)


def _try(world: World, action: Callable[[], Any] | None) -> None:
    """Do this rank's part; if any rank fails, all raise."""
    error: Exception | None = None
    if action is not None:
        try:
            action()
        except Exception as caught:
            error = caught
    world.together(error)


def _seal(partial: Path, world: World) -> None:
    """Each rank reads back its share of the files; the main rank writes the checksums."""
    mine = {name: _digest(partial / name) for name in _files(partial)[world.rank :: world.size]}
    sums = {name: digest for part in world.gather(mine) for name, digest in part.items()}
    _try(world, lambda: (partial / CHECKSUMS).write_text(json.dumps(sums, indent=2) + "\n") if world.is_main else None)


def _point(folder: Path, pointer: str, name: str) -> None:
    partial = folder / f".{pointer}.partial"
    partial.write_text(name + "\n")
    os.replace(partial, folder / pointer)


def save_checkpoint(
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
) -> Path:
    """Write checkpoint-<step>, point `latest` at it, and remove all but the newest `keep` and the best.

    Args:
        folder: of the run.
        model: to take the adapter from, whole; None on other ranks than the main one.
        optimizer: to be saved.
        progress: where the run stands; if its best step is this one, `best` points here too.
        recipe: the resolved configuration, as text.
        method: of tuning.
        keep: newest checkpoints to keep.
        world: all ranks call this together.
        pages_per_step: over all ranks; a run with another number of ranks must have the same.

    Raises:
        OSError: if it could not be written; nothing of it is left, and the one before is untouched.
    """
    name = f"checkpoint-{progress.step}"
    partial, target = folder / f".{name}.partial", folder / name
    note = {**asdict(progress), "n_ranks": world.size, "pages_per_step": pages_per_step, "recipe": recipe}
    try:
        _write(partial, model, optimizer, note, method, world)
        _seal(partial, world)
    except Exception as error:  # of the disk, of safetensors, of another rank: the run must end, its folder stay good
        if world.is_main:
            shutil.rmtree(partial, ignore_errors=True)
        kept = _pointed(folder, LATEST)
        before = f"{kept.name} is untouched" if kept else "there is none before it"
        raise OSError(f"{target} could not be saved ({error}); {before}") from error
    if world.is_main:
        if target.exists():  # the same step of an earlier attempt, which ended before `latest` named it
            shutil.rmtree(target)
        os.replace(partial, target)
        if progress.best_step == progress.step and progress.best is not None:
            _point(folder, BEST, name)
        _point(folder, LATEST, name)
        spared = {target, _pointed(folder, BEST)}
        for old in checkpoints(folder)[:-keep]:
            if old not in spared:  # later ones may be left from an earlier attempt
                shutil.rmtree(old)
    world.wait()
    return target


def checkpoints(folder: Path) -> list[Path]:
    """Complete checkpoints of a run, oldest first."""
    found = [path for path in folder.glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", path.name)]
    return sorted(found, key=lambda path: int(path.name.split("-")[1]))


def _pointed(folder: Path, pointer: str) -> Path | None:
    file = folder / pointer
    return folder / file.read_text().strip() if file.is_file() else None


def latest_checkpoint(folder: Path) -> Path | None:
    """The one that `latest` names; None if there is none.

    Raises:
        FileNotFoundError: if it names one that is gone.
    """
    path = _pointed(folder, LATEST)
    if path is not None and not ((path / CHECKSUMS).is_file() or (path / OLD).is_file()):
        raise FileNotFoundError(f"{folder / LATEST} names {path.name}, which is not there")
    return path


def verify(path: Path, world: World = ALONE) -> None:
    """Compare every file with its checksum; the ranks share the work.

    Raises:
        ValueError: if one is missing, or has other bytes.
    """
    sums: dict[str, str] = json.loads((path / CHECKSUMS).read_text())
    names = sorted(sums)[world.rank :: world.size]
    bad = [name for name in names if not (path / name).is_file() or _digest(path / name) != sums[name]]
    if damaged := sorted(name for part in world.gather(bad) for name in part):
        raise ValueError(f"{path} is damaged: {', '.join(damaged)}; point `latest` at an older checkpoint")


def load_checkpoint(
    path: Path, optimizer: MasterAdamW, recipe: str, *, world: World = ALONE, pages_per_step: int = 0
) -> Progress:
    """Restore weights, moments and, on as many ranks as before, random state.

    Raises:
        ValueError: if the checkpoint is damaged, or belongs to another recipe; the message says what differs.
    """
    if (path / OLD).is_file():
        if world.size > 1:
            raise ValueError(f"{path} is of one process and from before runs had several ranks: go on with one")
        return _load_old(path, optimizer, recipe)
    verify(path, world)
    note = json.loads((path / PROGRESS).read_text())
    refuse_changes(path, note, recipe, world.size, pages_per_step)
    state = optimizer.tensors()
    saved = FileSystemReader(path / "state").read_metadata().state_dict_metadata
    if odd := sorted(name.partition(".")[2] for name in saved.keys() ^ state.keys()):
        raise ValueError(f"the checkpoint trains other parameters: {', '.join(dict.fromkeys(odd))}")
    with _quietly():
        load_state(state, checkpoint_id=path / "state", no_dist=world.size == 1)
    optimizer.adopt()
    if note["n_ranks"] == world.size:
        _set_random_state(torch.load(path / f"random-{world.rank}.pt", weights_only=True))
    else:  # nothing to restore; only dropout is random here
        torch.manual_seed(torch.initial_seed() + note["step"])
    return Progress(**{name: note[name] for name in ("step", "position", "best", "best_step")})


def _load_old(path: Path, optimizer: MasterAdamW, recipe: str) -> Progress:
    """A checkpoint of one process in one file, as they were before runs had several ranks."""
    state = torch.load(path / OLD, map_location="cpu", weights_only=True)
    refuse_changes(path, state, recipe, 1, 0)
    optimizer.load_state_dict(state["optimizer"])
    _set_random_state(state["random"])
    return Progress(step=state["step"], position=state["position"])
