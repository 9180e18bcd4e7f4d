"""One optimizer step of fine-tuning: forward, backward, clipping, AdamW. `CASES` always, `MORE` with --full."""

from itertools import product
from typing import Any

from benchmarks.cases import Case


def _check(tiles: int, **others: Any) -> dict[str, Any]:
    return {"dtype": "float32", "n_tokens": 48, "tiles": tiles, "adapter": True, "dropout": 0.0, **others}


def _plain(tiles: int, method: str) -> dict[str, Any]:
    return {"dtype": "float32", "n_tokens": 48, "tiles": tiles, "method": method}


CASES = [
    Case(
        name="LoRA step, 4 tiles",
        job="Training",
        arguments={"tiles": 4},
        check=_check(4),
        goals={"step": 1.8},
        memory_goal=0.5,
    ),
    Case(name="LoRA step, 2 tiles", job="Training", arguments={"tiles": 2}, check=_check(2)),
    Case(
        name="LoRA step, 1 tile",
        job="Training",
        arguments={"tiles": 1},
        check=_check(1),
        goals={"step": 3.0},
        memory_goal=0.5,
    ),
    Case(
        name='LoRA step, 4 tiles, transformers\' semantics ("hf")',
        job="Training",
        arguments={"tiles": 4},
        ours={"semantics": "hf"},
        check=_check(4),
    ),
    Case(name="LoRA step, 4 tiles, no dropout", job="Training", arguments={"tiles": 4, "dropout": 0.0}),
    Case(
        name="LoRA step, 4 tiles, float32",
        job="Training",
        arguments={"tiles": 4, "dtype": "float32"},
        check=_check(4),
    ),
    Case(
        name="LoRA step, 4 tiles, activation checkpointing",
        job="Training",
        arguments={"tiles": 4, "checkpointing": True},
        check=_check(4, checkpointing=True),
    ),
    Case(
        name="LoRA step, batch 4, 4 tiles",
        job="Training",
        arguments={"tiles": 4, "batch": 4},
        check=_check(4, batch=4),
        rounds=3,
    ),
    Case(
        name="partial tuning step, 4 tiles",
        job="Training",
        arguments={"tiles": 4, "method": "partial"},
        check=_plain(4, "partial"),
    ),
    Case(
        name="full tuning step, 4 tiles",
        job="Training",
        arguments={"tiles": 4, "method": "full"},
        check=_plain(4, "full"),
    ),
]


def _matrix() -> list[Case]:
    """Every method with 1, 2 and 4 tiles, batch 1 and 4, with and without checkpointing, but for what CASES has."""
    cases = []
    for method, batch, tiles, checkpointing in product(("LoRA", "partial", "full"), (1, 4), (4, 2, 1), (False, True)):
        name = f"{method}{'' if method == 'LoRA' else ' tuning'} step{', batch 4' if batch > 1 else ''}, {tiles} tile"
        name += "s" * (tiles > 1) + ", activation checkpointing" * checkpointing
        arguments = {"tiles": tiles, "batch": batch, "checkpointing": checkpointing, "method": method.lower()}
        check = _check(tiles) if method == "LoRA" else _plain(tiles, method)
        check |= {"batch": batch} if batch > 1 else {}
        check |= {"checkpointing": True} if checkpointing else {}
        cases.append(Case(name=name, job="Training", arguments=arguments, check=check, rounds=3))
    known = {case.name for case in CASES}
    return [case for case in cases if case.name not in known]


MORE = _matrix()
