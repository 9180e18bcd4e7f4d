"""`python -m train plan`: memory, communication and time of every strategy, before anything is launched.

Every number stands beside its formula. Sizes in elements: F frozen, T trained, U the largest unit; b bytes of the
compute dtype; n ranks, g of them in a group (hsdp), G micro-batches per step.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from lora import apply_tuning
from minimllama import PRESETS, MiniMllama, ModelConfig
from minimllama.nano import resolve_model
from minimllama.padding import drop_unused_tiles
from train.activation_bytes import block_bytes
from train.flops import Work, step_flops
from train.shard import shard_units

if TYPE_CHECKING:  # a recipe's type alone, so that the arithmetic needs no command line library
    from train.config import RunConfig

GIB = 2**30
EFFICIENCY = 0.5  # of a card's peak, for the estimate of time
LOGIT_BYTES = 12  # per answer token and word: logits in bfloat16 and float32, and their gradients


@dataclass(frozen=True, kw_only=True)
class Card:
    """Memory in GiB, dense bfloat16 peak in FLOP/s, and what a rank receives per second from its node's others."""

    memory: float
    peak: float
    bytes_per_s: float


CARDS = {
    "A100-80": Card(memory=79.1, peak=312e12, bytes_per_s=200e9),
    "H100-80": Card(memory=79.1, peak=989e12, bytes_per_s=300e9),
    "H200-141": Card(memory=139.8, peak=989e12, bytes_per_s=300e9),
    "24 GB": Card(memory=23.5, peak=165e12, bytes_per_s=20e9),
}


@dataclass(frozen=True, kw_only=True)
class PlanConfig:
    """What to plan for.

    Attributes:
        ranks: of the job.
        group: ranks of a node, for hsdp.
        preset: of PRESETS, instead of reading the recipe's checkpoint.
        length: tokens of a dialog, as padded.
        answers: of them carrying loss.
        tiles: of a page, where the recipe drops unused tile slots; 0: as many as there are slots.
    """

    ranks: int = 4
    group: int = 4
    preset: str = ""
    length: int = 512
    answers: int = 64
    tiles: int = 0


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Elements of a tuned model: frozen, trained, of its largest unit, and of what belongs to no unit."""

    frozen: int
    trained: int
    unit: int
    rest: int
    bytes: int
    trained_in_float32: bool


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes of one rank."""

    weights: float
    masters: float
    gradients: float
    moments: float
    activations: float
    logits: float

    @property
    def total(self) -> float:
        """All of it."""
        return sum(vars(self).values())


FORMULAS = {  # weights, float32 masters, gradients, moments; then what a rank receives per step
    "none": ("b F + w T", "4 T unless w = 4", "4 T", "8 T", "0"),
    "ddp": ("b F + b T gathered", "4 T", "4 T", "8 T", "2 (n-1)/n 4 T"),
    "zero1": ("b F + b T gathered", "4 T/n", "4 T if G > 1, else 4 T/n", "8 T/n", "(n-1)/n (b T + 4 T)"),
    "zero2": ("b F + b T gathered", "4 T/n", "4 T/n", "8 T/n", "(n-1)/n (b T + 4 G T)"),
    "zero3": ("b F/n + b (2 U + rest)", "4 T/n", "4 T/n", "8 T/n", "(n-1)/n G (2 b (F + T) + 4 T)"),
    "hsdp": ("b F/g + b (2 U + rest)", "4 T/g", "4 T/g", "8 T/g", "as zero3 with g, and 2 (m-1)/m 4 T/g, m = n/g"),
}


def measure(model: MiniMllama, dtype: torch.dtype) -> Sizes:
    """Count a tuned model (the meta device will do)."""
    trained = [p for p in model.parameters() if p.requires_grad]
    counts = [sum(p.numel() for p in unit.parameters()) for unit in shard_units(model)]
    total = model.n_parameters()
    return Sizes(
        frozen=total - sum(p.numel() for p in trained),
        trained=sum(p.numel() for p in trained),
        unit=max(counts),
        rest=total - sum(counts),
        bytes=dtype.itemsize,
        trained_in_float32=all(p.dtype == torch.float32 for p in trained),
    )


def state_bytes(strategy: str, s: Sizes, ranks: int, group: int, accumulate: int) -> tuple[float, float, float, float]:
    """Weights, masters, gradients and moments of one rank, by FORMULAS."""
    b, f, t = s.bytes, s.frozen, s.trained
    if strategy == "none":
        return b * f + (4 if s.trained_in_float32 else b) * t, 0 if s.trained_in_float32 else 4 * t, 4 * t, 8 * t
    parts = {"ddp": 1, "hsdp": group}.get(strategy, ranks)
    gradients = 4 * t if strategy == "zero1" and accumulate > 1 else 4 * t / parts
    is_spread = strategy in ("zero3", "hsdp")
    weights = b * f / parts + b * (2 * s.unit + s.rest) if is_spread else b * f + b * t
    return weights, 4 * t / parts, gradients, 8 * t / parts


def received_bytes(strategy: str, s: Sizes, ranks: int, group: int, accumulate: int) -> float:
    """By one rank in one step, by FORMULAS; rings: (n-1)/n of what is gathered or scattered."""
    b, f, t, around = s.bytes, s.frozen, s.trained, (ranks - 1) / ranks
    if strategy in ("zero3", "hsdp"):
        n = group if strategy == "hsdp" else ranks
        inside = (n - 1) / n * accumulate * (2 * b * (f + t) + 4 * t)
        nodes = ranks // n
        return inside + 2 * (nodes - 1) / nodes * 4 * t / n
    return {
        "none": 0.0,
        "ddp": 2 * around * 4 * t,
        "zero1": around * (b * t + 4 * t),
        "zero2": around * (b * t + 4 * accumulate * t),
    }[strategy]


def activation_bytes(
    config: ModelConfig, recipe: "RunConfig", plan: PlanConfig, *, on_cpu: bool = False
) -> tuple[float, float]:
    """Of one micro-batch: kept between its two passes, and the logits of its answers."""
    dtype, pages = getattr(torch, recipe.compute.dtype), recipe.batch.images_per_forward
    rows, vision, text = pages * recipe.data.questions_per_image, config.vision, config.text
    each = block_bytes(config, recipe.tuning, dtype, pages, rows, plan.length, on_cpu=on_cpu)
    n_cross = len(text.cross_layers)
    counts = {"local": vision.n_local_layers, "global": vision.n_global_layers}
    counts |= {"cross": n_cross, "self": text.n_layers - n_cross}
    b, keys = dtype.itemsize, pages * vision.max_tiles * vision.tokens_per_tile
    between = keys * b * (2 * vision.n_features + text.width)  # features and taps side by side, and projected
    if recipe.compute.checkpoint_activations:
        blocks = sum(n * each[kind].entering for kind, n in counts.items())
        blocks += max(part.kept for part in each.values())
    else:
        blocks = sum(n * each[kind].kept for kind, n in counts.items())
    positions = min(rows * plan.answers, 1024)
    wide = LOGIT_BYTES if b == 2 else 8  # float32 logits are not copied
    return blocks + between, positions * text.vocab_size * wide


def plan_memory(
    strategy: str, sizes: Sizes, kept: tuple[float, float], recipe: "RunConfig", plan: PlanConfig
) -> Memory:
    """Peak bytes of one rank."""
    group, accumulate = min(plan.group, plan.ranks), recipe.batch.accumulate
    weights, masters, gradients, moments = state_bytes(strategy, sizes, plan.ranks, group, accumulate)
    return Memory(
        weights=weights,
        masters=masters,
        gradients=gradients,
        moments=moments,
        activations=kept[0],
        logits=kept[1],
    )


def model_config(recipe: "RunConfig", preset: str) -> ModelConfig:
    """Of a preset, or of the recipe's checkpoint.

    Raises:
        ValueError: if there is no such preset.
        FileNotFoundError: if the checkpoint is not there.
    """
    name = preset or recipe.sizes
    if name:
        if name not in PRESETS:
            raise ValueError(f"preset={name!r} is not one of {', '.join(PRESETS)}")
        return PRESETS[name]
    return ModelConfig.from_folder(resolve_model(recipe.model))


def _tuned(config: ModelConfig, recipe: "RunConfig") -> MiniMllama:
    with torch.device("meta"):
        model = MiniMllama(config, recipe.semantics).to(getattr(torch, recipe.compute.dtype))
        if recipe.compute.drop_unused_tiles:
            drop_unused_tiles(model)
        apply_tuning(model, recipe.tuning)
    return model


def _row(cells: Sequence[str]) -> str:
    return cells[0].ljust(8) + "".join(cell.rjust(12) for cell in cells[1:])


def _computed(config: ModelConfig, recipe: "RunConfig", tiles: int) -> ModelConfig:
    """A model of as many tile slots as a page has tiles: what is computed if unused ones are dropped."""
    if not tiles:
        return config
    if not recipe.compute.drop_unused_tiles or not 0 < tiles <= config.vision.max_tiles:
        raise ValueError(
            f"tiles={tiles} needs compute.drop_unused_tiles = true and must be at most {config.vision.max_tiles}"
        )
    return replace(config, vision=replace(config.vision, max_tiles=tiles))


def make_plan(recipe: "RunConfig", plan: PlanConfig) -> str:
    """The tables, as text.

    Raises:
        ValueError: if there is no such preset, or `tiles` makes no sense.
    """
    config = model_config(recipe, plan.preset)
    model = _tuned(config, recipe)
    sizes = measure(model, getattr(torch, recipe.compute.dtype))
    kept = activation_bytes(_computed(config, recipe, plan.tiles), recipe, plan)
    pages, accumulate = recipe.batch.images_per_forward, recipe.batch.accumulate
    rows = pages * recipe.data.questions_per_image
    work = Work(pages=pages, rows=rows, length=plan.length, answers=rows * plan.answers, tiles=plan.tiles)
    forward, both = (accumulate * flops for flops in step_flops(model, work))
    executed = both + forward * recipe.compute.checkpoint_activations
    group = min(plan.group, plan.ranks)
    lines = [
        f"F = {sizes.frozen:,} frozen, T = {sizes.trained:,} trained, U = {sizes.unit:,}, b = {sizes.bytes}, "
        f"n = {plan.ranks}, g = {group}, G = {accumulate}",
        f"per micro-batch: {pages} pages, {rows} questions of {plan.length} tokens, {plan.answers} of them answers",
        f"per step and rank: {both / 1e12:.1f} TFLOP useful, {executed / 1e12:.1f} executed",
        "",
        "GiB per rank",
        _row(["", "weights", "masters", "gradients", "moments", "activations", "logits", "total", "fits"]),
    ]
    for strategy in FORMULAS:
        memory = plan_memory(strategy, sizes, kept, recipe, plan)
        cells = [f"{value / GIB:.1f}" for value in (*vars(memory).values(), memory.total)]
        fits = [name for name, card in CARDS.items() if memory.total / GIB < 0.95 * card.memory]
        lines.append(_row([strategy, *cells]) + "  " + (", ".join(fits) or "none of these cards"))
    lines += ["", f"GB received per rank and step, and s per step at {EFFICIENCY:.0%} of the peak + communication"]
    lines.append(_row(["", "GB", *CARDS]))
    for strategy in FORMULAS:
        received = received_bytes(strategy, sizes, plan.ranks, group, accumulate)
        times = [
            f"{executed / card.peak / EFFICIENCY:.2f}+{received / card.bytes_per_s:.2f}" for card in CARDS.values()
        ]
        lines.append(_row([strategy, f"{received / 1e9:.1f}", *times]))
    lines += ["", "formulas: weights | masters | gradients | moments | received"]
    lines += [f"{strategy:8}{' | '.join(formulas)}" for strategy, formulas in FORMULAS.items()]
    lines.append(
        "activations: what autograd saves in one block of each kind (counted) x blocks; recomputing keeps inputs only"
    )
    lines.append(f"logits: answers (at most 1024 at once) x vocabulary x {LOGIT_BYTES} bytes")
    return "\n".join(lines)
