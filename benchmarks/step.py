"""One optimizer step of fine-tuning: forward, backward, clipping, AdamW."""

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
