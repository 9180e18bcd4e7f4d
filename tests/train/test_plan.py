"""The plan: against arithmetic for the published model, and against measured peaks at a small size."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lora import TuneConfig, apply_tuning
from minimllama import ImageBatch, MiniMllama, ModelConfig
from minimllama.config import RopeConfig, TextConfig, VisionConfig
from minimllama.init import initialise
from minimllama.padding import drop_unused_tiles
from minimllama.visibility import see
from tests.tools.live_bytes import LiveBytes
from train.activation import checkpoint_blocks
from train.config import BatchConfig, ComputeConfig, DataConfig, RunConfig
from train.flops import Work, step_flops
from train.loss import answer_loss
from train.mixture import ComponentConfig
from train.optim import MasterAdamW, OptimConfig
from train.plan import (
    FORMULAS,
    GIB,
    PlanConfig,
    Sizes,
    activation_bytes,
    make_plan,
    measure,
    model_config,
    plan_memory,
    received_bytes,
    state_bytes,
)
from train.shard import STRATEGIES

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
PAGES, QUESTIONS, LENGTH, ANSWERS = 2, 4, 128, 16
PUBLISHED = Sizes(
    frozen=10_642_941_475, trained=269_451_264, unit=525_369_344, rest=240_000_000, bytes=2, trained_in_float32=True
)


def recipe(tuning: TuneConfig, *, recompute: bool) -> RunConfig:
    return RunConfig(
        name="x",
        data=DataConfig(components=(ComponentConfig(source="simulated", n=3),), questions_per_image=QUESTIONS),
        tuning=tuning,
        batch=BatchConfig(images_per_forward=PAGES),
        compute=ComputeConfig(dtype="float32", checkpoint_activations=recompute),
    )


def measured_peak(config: RunConfig) -> int:
    """Bytes of all tensors at the worst moment of two steps."""
    model = initialise(MiniMllama(SMALL), torch.Generator().manual_seed(0))
    apply_tuning(model, config.tuning)
    if config.compute.checkpoint_activations:
        checkpoint_blocks(model)
    model.train()
    optimizer = MasterAdamW(model, OptimConfig())
    tokens = torch.randint(5, 1999, (PAGES * QUESTIONS, LENGTH))
    tokens[:, 0] = SMALL.image_token_id
    labels = torch.full_like(tokens, -100)
    labels[:, -ANSWERS:] = 7
    sight = see(tokens, [[4]] * PAGES, SMALL, sample_of_row=[p for p in range(PAGES) for _ in range(QUESTIONS)])
    images = ImageBatch(
        pixels=torch.rand(PAGES, 1, 4, 3, 140, 140),
        aspect_ratio_ids=torch.full((PAGES, 1), 6),
        tile_mask=torch.ones(PAGES, 1, 4, dtype=torch.bool),
        n_tiles=[[4]] * PAGES,
    )
    with LiveBytes(list(model.parameters())) as live:
        for _ in range(2):
            hidden = model(tokens, images, sight, hidden=True)
            answer_loss(model.text.lm_head, hidden, labels, PAGES * QUESTIONS * ANSWERS).backward()
            optimizer.step(optimizer.gradient_norm(), 1e-3)
    return live.peak


# equation


def test_full_tuning_of_the_published_model_as_the_zero_paper_counts_it() -> None:
    """18 bytes a parameter replicated; bfloat16 weights and a share of 16 bytes under ZeRO-2. GiB of 10.67 B."""
    full = replace(PUBLISHED, frozen=0, trained=10_670_220_835, trained_in_float32=False)
    assert sum(state_bytes("none", full, 1, 1, 1)) / GIB == pytest.approx(178.9, abs=0.1)
    assert sum(state_bytes("zero2", full, 4, 4, 1)) / GIB == pytest.approx(59.6, abs=0.1)


def test_lora_on_four_ranks() -> None:
    """The base is 19.8 GiB; all that is trained adds 1.6 under zero2, and 1.2 GB are received per step."""
    assert sum(state_bytes("zero2", PUBLISHED, 4, 4, 1)) / GIB == pytest.approx(21.3, abs=0.1)
    assert received_bytes("zero2", PUBLISHED, 4, 4, 1) / 1e9 == pytest.approx(1.2, abs=0.02)
    assert received_bytes("zero1", PUBLISHED, 4, 4, 8) == received_bytes("zero1", PUBLISHED, 4, 4, 1)
    assert received_bytes("zero2", PUBLISHED, 4, 4, 3) > 2 * received_bytes("zero2", PUBLISHED, 4, 4, 1)
    assert received_bytes("zero3", PUBLISHED, 4, 4, 1) / 1e9 == pytest.approx(33.5, abs=0.1)
    assert received_bytes("none", PUBLISHED, 1, 1, 1) == 0


def test_hsdp_on_two_nodes_is_zero3_inside_a_node_and_a_little_between_them() -> None:
    inside = received_bytes("zero3", PUBLISHED, 4, 4, 1)
    both = received_bytes("hsdp", PUBLISHED, 8, 4, 1)
    assert both - inside == 2 * 0.5 * 4 * PUBLISHED.trained / 4
    assert state_bytes("hsdp", PUBLISHED, 8, 4, 1) == state_bytes("zero3", PUBLISHED, 4, 4, 1)


# parity


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("method", ["lora", "full"])
def test_the_planned_peak_is_the_measured_one_within_10_percent(method: str, recompute: bool) -> None:
    tuning = TuneConfig(method=method, r=8, alpha=16, dropout=0.05)
    config, plan = recipe(tuning, recompute=recompute), PlanConfig(ranks=1, length=LENGTH, answers=ANSWERS)
    with torch.device("meta"):
        model = MiniMllama(SMALL)
        apply_tuning(model, tuning)
    kept = activation_bytes(SMALL, config, plan, on_cpu=True)
    planned = plan_memory("none", measure(model, torch.float32), kept, config, plan).total
    assert planned == pytest.approx(measured_peak(config), rel=0.1)


# property


def test_every_strategy_has_a_formula_and_a_row() -> None:
    assert FORMULAS.keys() == STRATEGIES.keys()
    text = make_plan(recipe(TuneConfig(r=4), recompute=True), PlanConfig(preset="nano"))
    for strategy in STRATEGIES:
        assert sum(line.startswith(f"{strategy} ") for line in text.splitlines()) == 3  # memory, time, formula


def test_the_recipes_checkpoint_gives_the_sizes(checkpoint: Path) -> None:
    config = replace(recipe(TuneConfig(), recompute=False), model=str(checkpoint))
    assert (model_config(config, "").text.width, model_config(config, "11b").text.width) == (48, 4096)


def test_dropping_unused_tiles_is_planned_as_a_model_of_that_many_slots() -> None:
    tuning, work = TuneConfig(r=4), Work(pages=2, rows=3, length=64, answers=9, tiles=1)
    with torch.device("meta"):
        dropped, one = MiniMllama(SMALL), MiniMllama(replace(SMALL, vision=replace(SMALL.vision, max_tiles=1)))
        for model in (dropped, one):
            apply_tuning(model, tuning)
    everything = step_flops(dropped, work)
    drop_unused_tiles(dropped)
    assert step_flops(dropped, work) == step_flops(one, work) < everything
    config = recipe(tuning, recompute=False)
    config = replace(config, compute=replace(config.compute, drop_unused_tiles=True))
    plans = [make_plan(config, PlanConfig(preset="11b", tiles=n, length=64)) for n in (1, 4)]
    kept = [float(plan.partition("\nzero2 ")[2].split()[4]) for plan in plans]  # activations
    assert kept[0] < 0.5 * kept[1]


# refusal


def test_tiles_to_plan_for_need_a_recipe_that_drops_the_others() -> None:
    with pytest.raises(ValueError, match=r"tiles=1 needs compute.drop_unused_tiles = true"):
        make_plan(recipe(TuneConfig(), recompute=False), PlanConfig(preset="nano", tiles=1))


def test_unknown_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="preset='7b' is not one of nano, 11b"):
        model_config(recipe(TuneConfig(), recompute=False), "7b")
