"""The files of checkpoints: which there are, which is the newest and the best, whether they are whole."""

import hashlib
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

import torch

from train.distributed import World

LATEST, BEST = "latest", "best"
CHECKSUMS, PROGRESS = "checksums.json", "progress.json"
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


def digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def files_of(folder: Path) -> list[str]:
    """All files of a checkpoint, by their paths inside, but the checksums."""
    found = [str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file() and p.name != CHECKSUMS]
    return sorted(found)


def point(folder: Path, pointer: str, name: str) -> None:
    """Make `latest` or `best` name a checkpoint."""
    partial = folder / f".{pointer}.partial"
    partial.write_text(name + "\n")
    os.replace(partial, folder / pointer)


def checkpoints(folder: Path) -> list[Path]:
    """Complete checkpoints of a run, oldest first."""
    found = [path for path in folder.glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", path.name)]
    return sorted(found, key=lambda path: int(path.name.split("-")[1]))


def pointed(folder: Path, pointer: str) -> Path | None:
    """What `latest` or `best` names; None if there is no such file."""
    file = folder / pointer
    return folder / file.read_text().strip() if file.is_file() else None


def latest_checkpoint(folder: Path) -> Path | None:
    """The one that `latest` names; None if there is none.

    Raises:
        FileNotFoundError: if it names one that is gone.
    """
    path = pointed(folder, LATEST)
    if path is not None and not (path / CHECKSUMS).is_file():
        raise FileNotFoundError(f"{folder / LATEST} names {path.name}, which is not there")
    return path


def verify(path: Path, world: World = ALONE) -> None:
    """Compare every file with its checksum; the ranks share the work.

    Raises:
        ValueError: if one is missing, or has other bytes.
    """
    sums: dict[str, str] = json.loads((path / CHECKSUMS).read_text())
    names = sorted(sums)[world.rank :: world.size]
    bad = [name for name in names if not (path / name).is_file() or digest(path / name) != sums[name]]
    if damaged := sorted(name for part in world.gather(bad) for name in part):
        raise ValueError(f"{path} is damaged: {', '.join(damaged)}; point `latest` at an older checkpoint")
