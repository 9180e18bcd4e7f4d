"""Checkpoints that are whole or absent: written beside their place, then renamed; verified when they are read.

checkpoint-<step>/ holds

    adapter/            PEFT format, under "lora"
    state/              all that is trained in float32, AdamW's moments: torch.distributed.checkpoint, so that any
                        number of ranks can go on from it
    random-<rank>.pt    random state of every rank
    progress.json       step, position in the data, recipe
    checksums.json      SHA-256 of all of these

and with it a run goes on bit for bit.
"""

import json
from pathlib import Path

import torch
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.state_dict_loader import load as load_state

from train.checkpoint.files import (
    ALONE,
    BEST,
    LATEST,
    PROGRESS,
    Progress,
    checkpoints,
    latest_checkpoint,
    verify,
)
from train.checkpoint.random import quietly, set_random_state
from train.checkpoint.save import Saving, begin_checkpoint, save_checkpoint
from train.distributed import World
from train.optim import MasterAdamW
from train.recipe_changes import kept_best, refuse_changes

__all__ = [
    "BEST",
    "LATEST",
    "Progress",
    "Saving",
    "begin_checkpoint",
    "checkpoints",
    "latest_checkpoint",
    "load_checkpoint",
    "save_checkpoint",
    "verify",
]


def load_checkpoint(
    path: Path, optimizer: MasterAdamW, recipe: str, *, world: World = ALONE, pages_per_step: int = 0
) -> Progress:
    """Restore weights, moments and, on as many ranks as before, random state.

    Raises:
        ValueError: if the checkpoint is damaged, or belongs to another recipe; the message says what differs.
    """
    verify(path, world)
    note = json.loads((path / PROGRESS).read_text())
    refuse_changes(path, note, recipe, world.size, pages_per_step)
    state = optimizer.tensors()
    saved = FileSystemReader(path / "state").read_metadata().state_dict_metadata
    if odd := sorted(name.partition(".")[2] for name in saved.keys() ^ state.keys()):
        raise ValueError(f"the checkpoint trains other parameters: {', '.join(dict.fromkeys(odd))}")
    with quietly():
        load_state(state, checkpoint_id=path / "state", no_dist=world.size == 1)
    optimizer.adopt()
    if note["n_ranks"] == world.size:
        set_random_state(torch.load(path / f"random-{world.rank}.pt", weights_only=True), world.device)
    else:  # nothing to restore; only dropout is random here
        torch.manual_seed(torch.initial_seed() + note["step"])
    best, best_step = kept_best(note, recipe)
    return Progress(step=note["step"], position=note["position"], best=best, best_step=best_step)
