"""What a rank holds and receives under every strategy, before activations: formulas over counted sizes.

Sizes in elements: F frozen, T trained, U the most trained of a unit, E what is gathered once per micro-batch and not
twice; S bytes on their way at once; b bytes of the compute dtype; n ranks, g of them in a group (hsdp), G micro-batches
per step.

What `fully_shard` holds at its worst moment is read in its code (torch 2.13, distributed/fsdp/_fully_shard): a unit
arrives in one piece, and is cut into its weights while the piece of the unit before it is still there; in the backward
pass a unit computes gradients while the next one arrives and the gradients of the last one are summed.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from minimllama import MiniMllama
from train.flops import first_trained
from train.shard import shard_units


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Elements of a tuned model.

    Attributes:
        frozen, trained, trained_text: of all of it, the last in the text model alone.
        unit: the most that is trained in a unit.
        on_the_way: bytes, of whole units and their gradients: the most at once.
        rest: of what belongs to no unit.
        once: of that, and of units before everything that is trained: they have no backward pass.
        bytes: of an element of the compute dtype.
        trained_in_float32: whether the model itself holds what is trained in float32.
    """

    frozen: int
    trained: int
    trained_text: int
    unit: int
    on_the_way: int
    rest: int
    once: int
    bytes: int
    trained_in_float32: bool


_WHOLE, _SPREAD = "b F + b T + (b + 4) U", "b F/n + b rest + S"
FORMULAS = {  # weights, float32 masters, gradients, moments; then what a rank receives per step
    "none": ("b F + w T", "4 T unless w = 4", "4 T, and b T if G > 1 unless w = 4", "8 T", "0"),
    "ddp": (_WHOLE, "4 T", "4 T", "8 T", "2 (n-1)/n 4 T"),
    "zero1": (_WHOLE, "4 T/n", "4 T if G > 1, else 4 T/n", "8 T/n", "(n-1)/n (b T + 4 T)"),
    "zero2": (_WHOLE, "4 T/n", "4 T/n", "8 T/n", "(n-1)/n (b T + 4 G T)"),
    "zero3": (_SPREAD, "4 T/n", "4 T/n", "8 T/n", "(n-1)/n G (b (2 F + 2 T - E) + 4 T)"),
    "hsdp": (_SPREAD.replace("n", "g"), "4 T/g", "4 T/g", "8 T/g", "as zero3 with g, and 2 (m-1)/m 4 T/g, m = n/g"),
}


def _on_the_way(units: Sequence[tuple[int, int]], b: int) -> int:
    """S, of units of so many elements, so many of them trained, in the order they run."""
    before, after = [(0, 0), *units], [*units[1:], (0, 0)]
    return max(
        max(b * (2 * u + v), b * (u + v + t) + 4 * t_after, b * (v + t) + 4 * t)
        for (v, _), (u, t), (_, t_after) in zip(before, units, after, strict=False)
    )


def measure(model: MiniMllama, dtype: torch.dtype) -> Sizes:
    """Count a tuned model (the meta device will do)."""
    trained = [p for p in model.parameters() if p.requires_grad]
    counts = [
        (sum(p.numel() for p in unit.parameters()), sum(p.numel() for p in unit.parameters() if p.requires_grad))
        for unit in shard_units(model)
    ]
    total, first = model.n_parameters(), first_trained(model)
    is_frozen = not any(p.requires_grad for p in model.vision.parameters())
    early = [model.text.embed_tokens] if first >= 0 else []
    early += [*model.vision.local_layers, *model.vision.global_layers] if is_frozen else []
    early += model.text.layers[: max(first, 0)]
    rest = total - sum(count for count, _ in counts)
    return Sizes(
        frozen=total - sum(p.numel() for p in trained),
        trained=sum(p.numel() for p in trained),
        trained_text=sum(p.numel() for p in model.text.parameters() if p.requires_grad),
        unit=max(count for _, count in counts),
        on_the_way=_on_the_way(counts, dtype.itemsize),
        rest=rest,
        once=rest + sum(p.numel() for unit in early for p in unit.parameters()),
        bytes=dtype.itemsize,
        trained_in_float32=all(p.dtype == torch.float32 for p in trained),
    )


def state_bytes(strategy: str, s: Sizes, ranks: int, group: int, accumulate: int) -> tuple[float, float, float, float]:
    """Weights, masters, gradients and moments of one rank, by FORMULAS."""
    b, f, t = s.bytes, s.frozen, s.trained
    if strategy == "none":
        if s.trained_in_float32:
            return b * f + 4 * t, 0, 4 * t, 8 * t
        return b * f + b * t, 4 * t, (4 + b * (accumulate > 1)) * t, 8 * t
    parts = {"ddp": 1, "hsdp": group}.get(strategy, ranks)
    gradients = 4 * t if strategy == "zero1" and accumulate > 1 else 4 * t / parts
    is_spread = strategy in ("zero3", "hsdp")
    weights = b * f / parts + b * s.rest + s.on_the_way if is_spread else b * f + b * t + (b + 4) * s.unit
    return weights, 4 * t / parts, gradients, 8 * t / parts


def received_bytes(strategy: str, s: Sizes, ranks: int, group: int, accumulate: int) -> float:
    """By one rank in one step, by FORMULAS; rings: (n-1)/n of what is gathered or scattered."""
    b, f, t, around = s.bytes, s.frozen, s.trained, (ranks - 1) / ranks
    if strategy in ("zero3", "hsdp"):
        n = group if strategy == "hsdp" else ranks
        inside = (n - 1) / n * accumulate * (b * (2 * f + 2 * t - s.once) + 4 * t)
        nodes = ranks // n
        return inside + 2 * (nodes - 1) / nodes * 4 * t / n
    return {
        "none": 0.0,
        "ddp": 2 * around * 4 * t,
        "zero1": around * (b * t + 4 * t),
        "zero2": around * (b * t + 4 * accumulate * t),
    }[strategy]
