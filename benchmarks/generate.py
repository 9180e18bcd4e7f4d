"""Prefill of a prompt with an image, and greedy decoding."""

from typing import Any

from benchmarks.cases import Case

N_NEW = 48


def _case(batch: int, tiles: int, goals: dict[str, float]) -> Case:
    arguments: dict[str, Any] = {"batch": batch, "tiles": tiles, "n_new": N_NEW}
    return Case(
        name=f"generation, batch {batch}, {tiles} tile{'s' if tiles > 1 else ''}",
        job="Generation",
        arguments=arguments,
        check={"dtype": "float32", "batch": min(batch, 2), "tiles": tiles, "n_new": 12},
        goals=goals,
        units={"decode": (batch * N_NEW, "tok")},
    )


CASES = [
    _case(1, 4, {"prefill": 1.5, "decode": 1.25}),
    _case(1, 1, {"prefill": 1.5}),
    _case(8, 4, {}),
]
