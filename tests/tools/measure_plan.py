"""Peak memory and traffic of training steps at small sizes, planned and measured, under every strategy.

`python -m tests.tools.measure_plan 2 4` prints the table of benchmarks/results/*-plan-*.md for 2 and 4 ranks.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from lora import TuneConfig, apply_tuning
from minimllama import ImageBatch, MiniMllama, ModelConfig
from minimllama.config import RopeConfig, TextConfig, VisionConfig
from minimllama.console import say
from minimllama.init import initialise
from minimllama.visibility import Sight, see
from tests.tools.gloo import run_ranks
from tests.tools.traffic import LiveAndReceivedBytes
from train.activation import prepare_blocks
from train.config import BatchConfig, ComputeConfig, DataConfig, RunConfig
from train.distributed import World
from train.flops import first_trained
from train.loss import answer_loss
from train.mixture import ComponentConfig
from train.optim import MasterAdamW, OptimConfig
from train.plan import PlanConfig, activation_bytes, measure, plan_memory, received_bytes
from train.shard import STRATEGIES, ShardConfig, before_backward, shard

SMALL = ModelConfig(
    vision=VisionConfig(
        width=64, n_heads=4, mlp_width=256, n_local_layers=5, n_global_layers=2, taps=(0, 2, 4), tile_size=140
    ),
    text=TextConfig(
        width=128, mlp_width=448, n_layers=7, n_heads=8, n_kv_heads=2, cross_layers=(1, 4), vocab_size=2000,
        rope=RopeConfig(theta=10000.0), bos_id=1, eos_ids=(2,), pad_id=3,
    ),
    image_token_id=2000,
)  # fmt: skip
WIDE = replace(
    SMALL,
    vision=replace(
        SMALL.vision, width=192, mlp_width=768, n_local_layers=3, n_global_layers=1, taps=(0, 2), tile_size=28
    ),
    text=replace(SMALL.text, width=192, mlp_width=672, n_layers=6),
)


@dataclass(frozen=True)
class Case:
    """A model, and what a micro-batch of it has."""

    model: ModelConfig
    pages: int
    questions: int
    length: int
    answers: int


MANY_TOKENS = Case(SMALL, 2, 4, 128, 16)  # activations are most of the memory
FEW_TOKENS = Case(WIDE, 1, 2, 32, 4)  # weights, and what belongs to them, are


def recipe(tuning: TuneConfig, *, recompute: bool, case: Case = MANY_TOKENS, **changes: Any) -> RunConfig:
    """A recipe of these settings; what it says of data and model is not used."""
    data = DataConfig(components=(ComponentConfig(source="simulated", n=3),), questions_per_image=case.questions)
    config = RunConfig(
        name="x",
        data=data,
        tuning=tuning,
        batch=BatchConfig(images_per_forward=case.pages),
        compute=ComputeConfig(dtype="float32", checkpoint_activations=recompute),
    )
    return replace(config, **changes)


def tuned(case: Case, config: RunConfig) -> MiniMllama:
    """A random model, ready to train."""
    model = initialise(MiniMllama(case.model), torch.Generator().manual_seed(0))
    apply_tuning(model.to(getattr(torch, config.compute.dtype)), config.tuning)
    prepare_blocks(model, config.compute)
    return model.train()


def batch_of(case: Case, dtype: torch.dtype) -> tuple[Tensor, ImageBatch, Sight, Tensor]:
    """Tokens, images, what sees what, labels."""
    tokens = torch.randint(5, 1999, (case.pages * case.questions, case.length))
    tokens[:, 0] = case.model.image_token_id
    labels = torch.full_like(tokens, -100)
    labels[:, -case.answers :] = 7
    slots, side = case.model.vision.max_tiles, case.model.vision.tile_size
    of_rows = [page for page in range(case.pages) for _ in range(case.questions)]
    images = ImageBatch(
        pixels=torch.rand(case.pages, 1, slots, 3, side, side).to(dtype),
        aspect_ratio_ids=torch.full((case.pages, 1), 6),
        tile_mask=torch.ones(case.pages, 1, slots, dtype=torch.bool),
        n_tiles=[[slots]] * case.pages,
    )
    return tokens, images, see(tokens, images.n_tiles, case.model, sample_of_row=of_rows), labels


def measured(world: World, case: Case, config: RunConfig) -> tuple[int, float]:
    """Bytes of all tensors of this rank at the worst moment of two steps, and bytes that it received in a step."""
    model = tuned(case, config)
    shard(model, world, config.shard)
    optimizer = MasterAdamW(model, OptimConfig())
    tokens, images, sight, labels = batch_of(case, getattr(torch, config.compute.dtype))
    with LiveAndReceivedBytes(list(model.parameters())) as live:
        for _ in range(2):
            for number in range(config.batch.accumulate):
                before_backward(model, config.shard, is_last=number == config.batch.accumulate - 1)
                hidden = model(tokens, images, sight, hidden=True)
                answer_loss(model.text.lm_head, hidden, labels, 99).backward()
                del hidden
            optimizer.step(optimizer.gradient_norm(), 1e-3)
    return live.peak, live.received / 2


def planned(strategy: str, case: Case, config: RunConfig, ranks: int) -> tuple[float, float]:
    """The same, planned."""
    plan = PlanConfig(ranks=ranks, group=ranks, length=case.length, answers=case.answers)
    dtype = getattr(torch, config.compute.dtype)
    with torch.device("meta"):
        model = MiniMllama(case.model).to(dtype)
        apply_tuning(model, config.tuning)
    sizes = measure(model, dtype)
    kept = activation_bytes(case.model, config, plan, first=first_trained(model), on_cpu=True)
    received = received_bytes(strategy, sizes, ranks, ranks, config.batch.accumulate)
    return plan_memory(strategy, sizes, kept, config, plan).total, received


def measured_cases(world: World, configs: list[RunConfig]) -> list[tuple[int, float]]:
    """`measured` for each of them."""
    return [measured(world, FEW_TOKENS, config) for config in configs]


def several(
    strategy: str, method: str, *, recompute: bool = False, accumulate: int = 1, dtype: str = "float32"
) -> RunConfig:
    """A recipe for several ranks."""
    config = recipe(
        TuneConfig(method=method, r=16, alpha=16, dropout=0.0),
        recompute=recompute,
        case=FEW_TOKENS,
        shard=ShardConfig(strategy=strategy),
        batch=BatchConfig(images_per_forward=FEW_TOKENS.pages, accumulate=accumulate),
    )
    return replace(config, compute=replace(config.compute, dtype=dtype))


def main(arguments: Sequence[str]) -> None:
    """Print a table for each number of ranks: MiB planned and measured, MB received by a rank in a step."""
    torch.set_num_threads(1)
    configs = [
        several(strategy, method, recompute=recompute, accumulate=accumulate)
        for method in ("lora", "partial", "full")
        for strategy in STRATEGIES
        for recompute, accumulate in ((False, 1), (True, 1), (False, 2))
        if strategy != "none"
    ]
    for ranks in map(int, arguments):
        say("| ranks | method | strategy | recomputed | G | MiB planned | measured | ratio | MB planned | received |")
        say("|---|---|---|---|---|---|---|---|---|---|")
        results = run_ranks(ranks, measured_cases, configs, seconds=1800)
        for config, *found in zip(configs, *results, strict=True):
            peak, received = (max(values) for values in zip(*found, strict=True))
            strategy, wanted = config.shard.strategy, planned(config.shard.strategy, FEW_TOKENS, config, ranks)
            recomputed = "yes" if config.compute.checkpoint_activations else "no"
            say(
                f"| {ranks} | {config.tuning.method} | {strategy} | {recomputed} | {config.batch.accumulate} "
                f"| {wanted[0] / 2**20:.1f} | {peak / 2**20:.1f} | {wanted[0] / peak:.2f} "
                f"| {wanted[1] / 1e6:.1f} | {received / 1e6:.1f} |"
            )


if __name__ == "__main__":
    main(sys.argv[1:])
