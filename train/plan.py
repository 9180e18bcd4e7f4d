"""`python -m train plan`: memory, communication and time of every strategy, before anything is launched.

Every number stands beside its formula; the letters are those of train/plan_sizes.py.
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
from train.flops import Work, attention_flops, first_trained, step_flops
from train.plan_sizes import FORMULAS, Sizes, measure, received_bytes, state_bytes

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
        group: ranks of a node, for hsdp; 0: four where that divides the ranks, otherwise all of them.
        preset: of PRESETS, instead of reading the recipe's checkpoint.
        length: tokens of a dialog, as padded.
        answers: of them carrying loss.
        tiles: of a page, where the recipe drops unused tile slots; 0: as many as there are slots.
    """

    ranks: int = 4
    group: int = 0
    preset: str = ""
    length: int = 512
    answers: int = 64
    tiles: int = 0

    def __post_init__(self) -> None:
        if self.ranks < 1 or self.group < 0 or self.ranks % self.node:
            raise ValueError(f"group={self.group} does not divide ranks={self.ranks}; neither may be negative")

    @property
    def node(self) -> int:
        """Ranks of a node."""
        return min(self.group, self.ranks) or (4 if self.ranks % 4 == 0 else self.ranks)


@dataclass(frozen=True, kw_only=True)
class Kept:
    """Bytes that a micro-batch keeps between its two passes.

    Attributes:
        activations: of all blocks, and between the towers.
        logits: of its answers.
        in_vision: of the activations, those that are there until the backward pass reaches the vision tower.
        in_block: of these, what the backward pass of the last block needs.
    """

    activations: float
    logits: float
    in_vision: float
    in_block: float


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes of one rank.

    Attributes:
        weights, masters, gradients, moments: by FORMULAS.
        activations, logits: of a micro-batch.
        overlap: of these, never there at the same time: in a step's last backward pass gradients take the place of
            activations, logits and weights that are not needed any more.
    """

    weights: float
    masters: float
    gradients: float
    moments: float
    activations: float
    logits: float
    overlap: float

    @property
    def total(self) -> float:
        """The peak."""
        return sum(vars(self).values()) - 2 * self.overlap


NOTES = (
    "S: the most of b (2 u + u before), b (u + u before + t) + 4 t after, b (u before + t) + 4 t over all units: u, t "
    "elements, trained ones",
    "activations: what autograd saves in one block of each kind (counted) x blocks; recomputing keeps inputs only, "
    "selective those and what attention returns; offloading, one block",
    f"logits: answers (at most 1024 at once) x vocabulary x {LOGIT_BYTES} bytes",
    "overlap: with G = 1 gradients take the place of what the backward pass frees; total: all but the overlap",
)


def activation_bytes(
    config: ModelConfig, recipe: "RunConfig", plan: PlanConfig, *, first: int = -1, on_cpu: bool = False
) -> Kept:
    """Of one micro-batch; text layers before `first` have no backward pass."""
    dtype, pages = getattr(torch, recipe.compute.dtype), recipe.batch.images_per_forward
    rows, vision, text = pages * recipe.data.questions_per_image, config.vision, config.text
    each = block_bytes(config, recipe.tuning, dtype, pages, rows, plan.length, on_cpu=on_cpu)
    n_cross = sum(layer >= first for layer in text.cross_layers)
    counts = {"local": vision.n_local_layers, "global": vision.n_global_layers}
    counts |= {"cross": n_cross, "self": text.n_layers - max(first, 0) - n_cross}
    b, keys = dtype.itemsize, pages * vision.max_tiles * vision.tokens_per_tile
    copies = 2 if each["local"].kept else 1
    between = keys * b * (copies * vision.n_features + text.width)  # features and taps side by side, and projected
    compute = recipe.compute
    recompute, is_selective = compute.checkpoint_activations, compute.recompute == "selective"
    of = {
        kind: n * (each[kind].entering + is_selective * each[kind].attention if recompute else each[kind].kept)
        for kind, n in counts.items()
    }
    if compute.offload_activations:  # what a block keeps waits on the host
        of = dict.fromkeys(of, 0.0)
    again = max(part.kept for part in each.values()) if recompute or compute.offload_activations else 0.0
    in_block = max(each["local"].kept, each["global"].kept)
    positions = min(rows * plan.answers, 1024)
    wide = LOGIT_BYTES if b == 2 else 8  # float32 logits are not copied
    return Kept(
        activations=sum(of.values()) + again + between,
        logits=positions * text.vocab_size * wide,
        in_vision=of["local"] + of["global"] + between + again,
        in_block=in_block,
    )


def plan_memory(strategy: str, sizes: Sizes, kept: Kept, recipe: "RunConfig", plan: PlanConfig) -> Memory:
    """Peak bytes of one rank: when a step's last backward pass begins, when it reaches vision, or when it ends."""
    group, accumulate = plan.node, recipe.batch.accumulate
    weights, masters, gradients, moments = state_bytes(strategy, sizes, plan.ranks, group, accumulate)
    whole = sizes.bytes * sizes.trained * (strategy in ("ddp", "zero1", "zero2"))  # freed on the way
    in_text = sizes.trained_text / sizes.trained
    begins = whole + kept.activations + kept.logits
    reaches = (1 - in_text) * whole + in_text * gradients + kept.in_vision
    overlap = begins + gradients - max(begins, reaches, gradients + kept.in_block)
    return Memory(
        weights=weights,
        masters=masters,
        gradients=gradients,
        moments=moments,
        activations=kept.activations,
        logits=kept.logits,
        overlap=overlap if accumulate == 1 else 0.0,
    )


def model_config(recipe: "RunConfig", preset: str = "") -> ModelConfig:
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
    kept = activation_bytes(_computed(config, recipe, plan.tiles), recipe, plan, first=first_trained(model))
    pages, accumulate = recipe.batch.images_per_forward, recipe.batch.accumulate
    rows = pages * recipe.data.questions_per_image
    work = Work(pages=pages, rows=rows, length=plan.length, answers=rows * plan.answers, tiles=plan.tiles)
    forward, both = (accumulate * flops for flops in step_flops(model, work))
    kept_flops = accumulate * sum(attention_flops(model, work)) * (recipe.compute.recompute == "selective")
    executed = both + (forward - kept_flops) * recipe.compute.checkpoint_activations
    group = plan.node
    lines = [
        f"F = {sizes.frozen:,} frozen, T = {sizes.trained:,} trained, U = {sizes.unit:,}, "
        f"rest = {sizes.rest:,}, E = {sizes.once:,}, S = {sizes.on_the_way:,}, "
        f"b = {sizes.bytes}, n = {plan.ranks}, g = {group}, G = {accumulate}",
        f"per micro-batch: {pages} pages, {rows} questions of {plan.length} tokens, {plan.answers} of them answers",
        f"per step and rank: {both / 1e12:.1f} TFLOP useful, {executed / 1e12:.1f} executed",
        "",
        "GiB per rank",
        _row(["", "weights", "masters", "gradients", "moments", "activations", "logits", "overlap", "total", "fits"]),
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
    return "\n".join([*lines, *NOTES])
