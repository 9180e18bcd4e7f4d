"""Checkpoints that are whole or absent: written beside their place, then renamed.

checkpoint-<step>/ holds `adapter/` (PEFT format, under "lora") and `state.pt` (all that is trained in
float32, AdamW's moments, step, position in the data, random state): enough to go on bit for bit.
"""

import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lora import save_adapter
from minimllama import MiniMllama
from train.optim import MasterAdamW

LATEST = "latest"


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where a run stands.

    Attributes:
        step: optimizer steps done.
        position: items of the mixture consumed.
    """

    step: int = 0
    position: int = 0


def _random_state() -> dict[str, Any]:
    state: dict[str, Any] = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def _set_random_state(state: dict[str, Any]) -> None:
    torch.set_rng_state(state["cpu"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])


def save_checkpoint(
    folder: Path,
    model: MiniMllama,
    optimizer: MasterAdamW,
    progress: Progress,
    recipe: str,
    method: str,
    keep: int,
) -> Path:
    """Write checkpoint-<step>, point `latest` at it, and remove all but the newest `keep`.

    Args:
        folder: of the run.
        model, optimizer: to be saved.
        progress: where the run stands.
        recipe: the resolved configuration, as text.
        method: of tuning.
        keep: newest checkpoints to keep.
    """
    name = f"checkpoint-{progress.step}"
    partial = folder / f".{name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    if method == "lora":
        save_adapter(model, partial / "adapter")
    state = {
        "step": progress.step,
        "position": progress.position,
        "optimizer": optimizer.state_dict(),
        "random": _random_state(),
        "recipe": recipe,
    }
    torch.save(state, partial / "state.pt")
    target = folder / name
    if target.exists():  # the same step of an earlier attempt, which ended before `latest` named it
        shutil.rmtree(target)
    os.replace(partial, target)
    pointer = folder / f".{LATEST}.partial"
    pointer.write_text(name + "\n")
    os.replace(pointer, folder / LATEST)
    for old in checkpoints(folder)[:-keep]:
        if old != target:  # later ones may be left from an earlier attempt
            shutil.rmtree(old)
    return target


def checkpoints(folder: Path) -> list[Path]:
    """Complete checkpoints of a run, oldest first."""
    found = [path for path in folder.glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", path.name)]
    return sorted(found, key=lambda path: int(path.name.split("-")[1]))


def latest_checkpoint(folder: Path) -> Path | None:
    """The one that `latest` names; None if there is none.

    Raises:
        FileNotFoundError: if it names one that is gone.
    """
    pointer = folder / LATEST
    if not pointer.is_file():
        return None
    path = folder / pointer.read_text().strip()
    if not (path / "state.pt").is_file():
        raise FileNotFoundError(f"{pointer} names {path.name}, which is not there")
    return path


# What may differ between a run and its continuation: where and how it computes, not what.
_FREE = ("resume", "out", "compute.threads", "compute.device", "data.workers", "save.")


def load_checkpoint(path: Path, optimizer: MasterAdamW, recipe: str) -> Progress:
    """Restore weights, moments and random state.

    Raises:
        ValueError: if the checkpoint belongs to another recipe; the message says what differs.
    """
    state = torch.load(path / "state.pt", map_location="cpu", weights_only=True)
    if changed := _changes(state["recipe"], recipe):
        raise ValueError(f"{path} was made by another recipe; it differs in: {', '.join(changed)}. Use another name")
    optimizer.load_state_dict(state["optimizer"])
    _set_random_state(state["random"])
    return Progress(step=state["step"], position=state["position"])


def _changes(old: str, new: str) -> list[str]:
    import tomllib

    def flat(value: Any, path: str = "") -> dict[str, Any]:
        if isinstance(value, dict):
            return {k: v for name, part in value.items() for k, v in flat(part, f"{path}{name}.").items()}
        if isinstance(value, list):
            return {k: v for i, part in enumerate(value) for k, v in flat(part, f"{path}{i}.").items()}
        return {path.rstrip("."): value}

    before, after = flat(tomllib.loads(old)), flat(tomllib.loads(new))
    names = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    return [f"{n} ({before.get(n)} then, {after.get(n)} now)" for n in names if not n.startswith(_FREE)]
