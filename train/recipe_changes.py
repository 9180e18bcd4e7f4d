"""What may differ between a run and its continuation."""

import tomllib
from pathlib import Path
from typing import Any

# Where and how it computes, not what. Batches: their product with the ranks must stay, see below.
_FREE = ("resume", "out", "data.workers", "save.", "shard.", "batch.", "validate.", "optim.nonfinite")
_FREE += tuple(
    f"compute.{name}" for name in ("threads", "device", "recompute", "offload_activations", "compile", "worst_first")
)
_FREE += ("compute.checkpoint_activations",)  # recompute, as it was called once
# settings of data that came later, and what runs did before them
_LATER = {"distort": "clean", "wording": "fixed", "report": "any", "distort_pictures": False}


def _flat(value: Any, path: str = "") -> dict[str, Any]:
    if isinstance(value, dict):
        return {k: v for name, part in value.items() for k, v in _flat(part, f"{path}{name}.").items()}
    if isinstance(value, list):
        return {k: v for i, part in enumerate(value) for k, v in _flat(part, f"{path}{i}.").items()}
    return {path.rstrip("."): value}


def _changes(old: str, new: str) -> list[str]:
    before, after = _flat(tomllib.loads(old)), _flat(tomllib.loads(new))
    for name in after:
        if name.startswith("data.") and (last := name.rpartition(".")[2]) in _LATER:
            before.setdefault(name, _LATER[last])
    if "compute.drop_unused_tiles" in after:
        before.setdefault("compute.drop_unused_tiles", False)  # it came later, too
    names = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    return [f"{n} ({before.get(n)} then, {after.get(n)} now)" for n in names if not n.startswith(_FREE)]


def _pages(recipe: str, n_ranks: int) -> int:
    batch = tomllib.loads(recipe).get("batch", {})
    return batch.get("images_per_forward", 4) * batch.get("accumulate", 1) * n_ranks


def refuse_changes(path: Path, note: dict[str, Any], recipe: str, n_ranks: int, pages_per_step: int) -> None:
    """Compare a checkpoint's recipe, and the pages of its steps, with those of the run that goes on.

    Args:
        path: of the checkpoint, for the message.
        note: with its `recipe`, and maybe `pages_per_step`.
        recipe: of the run now.
        n_ranks: now.
        pages_per_step: now; 0 to work it out from the recipe.

    Raises:
        ValueError: if what is trained differs; the message says in what.
    """
    if changed := _changes(note["recipe"], recipe):
        raise ValueError(f"{path} was made by another recipe; it differs in: {', '.join(changed)}. Use another name")
    before = note.get("pages_per_step") or _pages(note["recipe"], note.get("n_ranks", 1))
    now = pages_per_step or _pages(recipe, n_ranks)
    if before != now:
        raise ValueError(
            f"{path} was made with {before} pages per step, now there are {now} on {n_ranks} ranks: "
            f"batch.images_per_forward * batch.accumulate * ranks must stay {before}"
        )


def kept_best(note: dict[str, Any], recipe: str) -> tuple[float | None, int]:
    """What still counts of a checkpoint's best value, and the step from which a run that goes on counts its patience.

    Values of another metric, of other labels or of another number of records do not compare; steps between other
    validations are not counted.
    """
    old, new = (tomllib.loads(text).get("validate", {}) for text in (note["recipe"], recipe))
    if not new.get("every"):
        return note["best"], note["best_step"]
    if not old.get("every") or any(old.get(name) != new.get(name) for name in ("metric", "labels", "n")):
        return None, note["step"]
    return note["best"], note["best_step"] if old["every"] == new["every"] else note["step"]
