"""The plan: against arithmetic for the published model, and against measured peaks at a small size."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lora import TuneConfig, apply_tuning
from minimllama import MiniMllama
from minimllama.padding import drop_unused_tiles
from tests.tools.gloo import run_ranks
from tests.tools.measure_plan import (
    FEW_TOKENS,
    MANY_TOKENS,
    SMALL,
    measured,
    measured_cases,
    planned,
    recipe,
    several,
)
from train.distributed import World
from train.flops import Work, step_flops
from train.plan import (
    FORMULAS,
    GIB,
    PlanConfig,
    Sizes,
    activation_bytes,
    make_plan,
    model_config,
    received_bytes,
    state_bytes,
)
from train.shard import STRATEGIES

PUBLISHED = Sizes(
    frozen=10_642_941_475, trained=269_451_264, trained_text=209_715_200, unit=5_242_880, on_the_way=2_548_056_064,
    rest=81_614_339, once=606_983_683, bytes=2, trained_in_float32=True,
)  # fmt: skip


# equation


def test_full_tuning_of_the_published_model_as_the_zero_paper_counts_it() -> None:
    """18 bytes a parameter replicated; bfloat16 weights and a share of 16 bytes under ZeRO-2. GiB of 10.67 B."""
    full = replace(PUBLISHED, frozen=0, trained=10_670_220_835, unit=0, trained_in_float32=False)
    assert sum(state_bytes("none", full, 1, 1, 1)) / GIB == pytest.approx(178.9, abs=0.1)
    assert sum(state_bytes("zero2", full, 4, 4, 1)) / GIB == pytest.approx(59.6, abs=0.1)


def test_lora_on_four_ranks() -> None:
    """The base is 19.8 GiB; all that is trained adds 1.6 under zero2, and 1.2 GB are received per step."""
    assert sum(state_bytes("zero2", PUBLISHED, 4, 4, 1)) / GIB == pytest.approx(21.3, abs=0.1)
    assert received_bytes("zero2", PUBLISHED, 4, 4, 1) / 1e9 == pytest.approx(1.2, abs=0.02)
    assert received_bytes("zero1", PUBLISHED, 4, 4, 8) == received_bytes("zero1", PUBLISHED, 4, 4, 1)
    assert received_bytes("zero2", PUBLISHED, 4, 4, 3) > 2 * received_bytes("zero2", PUBLISHED, 4, 4, 1)
    assert received_bytes("zero3", PUBLISHED, 4, 4, 1) / 1e9 == pytest.approx(32.6, abs=0.1)
    assert received_bytes("none", PUBLISHED, 1, 1, 1) == 0


def test_hsdp_on_two_nodes_is_zero3_inside_a_node_and_a_little_between_them() -> None:
    inside = received_bytes("zero3", PUBLISHED, 4, 4, 1)
    both = received_bytes("hsdp", PUBLISHED, 8, 4, 1)
    assert both - inside == 2 * 0.5 * 4 * PUBLISHED.trained / 4
    assert state_bytes("hsdp", PUBLISHED, 8, 4, 1) == state_bytes("zero3", PUBLISHED, 4, 4, 1)


# parity


@pytest.mark.parametrize(
    ("method", "recompute"), [("lora", ""), ("lora", "blocks"), ("full", ""), ("full", "selective")]
)
def test_the_planned_peak_is_the_measured_one_within_10_percent(method: str, recompute: str) -> None:
    config = recipe(TuneConfig(method=method, r=8, alpha=16, dropout=0.05), recompute=bool(recompute))
    config = replace(config, compute=replace(config.compute, recompute=recompute or "blocks"))
    peak = planned("none", MANY_TOKENS, config, 1)[0]
    assert peak == pytest.approx(measured(World(device=torch.device("cpu")), MANY_TOKENS, config)[0], rel=0.1)


def test_on_two_ranks_too_and_each_receives_what_is_planned_for_every_strategy() -> None:
    """Where weights are most of the memory. Peaks within 10 %, traffic within 5 % (padding).

    In bfloat16 weights are gathered in two bytes and gradients summed in four.
    """
    configs = [
        several("zero2", "lora", dtype="bfloat16"),
        several("zero3", "lora"),
        several("ddp", "full"),
        several("hsdp", "full"),
    ]
    configs += [several(strategy, "full", accumulate=2) for strategy in ("zero1", "zero2")]
    for rank in run_ranks(2, measured_cases, configs):
        for config, (peak, received) in zip(configs, rank, strict=True):
            wanted = planned(config.shard.strategy, FEW_TOKENS, config, 2)
            what = f"{config.tuning.method} {config.shard.strategy} accumulate={config.batch.accumulate}"
            assert wanted[0] == pytest.approx(peak, rel=0.1), what
            assert wanted[1] == pytest.approx(received, rel=0.05), what


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


def test_what_waits_on_the_host_is_not_planned_on_the_device() -> None:
    plain = recipe(TuneConfig(r=4), recompute=False)
    offloaded = replace(plain, compute=replace(plain.compute, offload_activations=True))
    here, there = (activation_bytes(SMALL, config, PlanConfig()).activations for config in (plain, offloaded))
    assert there < here / 5  # one block of fourteen, and what stands between the towers


# refusal


def test_tiles_to_plan_for_need_a_recipe_that_drops_the_others() -> None:
    with pytest.raises(ValueError, match=r"tiles=1 needs compute.drop_unused_tiles = true"):
        make_plan(recipe(TuneConfig(), recompute=False), PlanConfig(preset="nano", tiles=1))


def test_groups_must_divide_the_ranks_as_they_must_in_a_run() -> None:
    with pytest.raises(ValueError, match="group=4 does not divide ranks=6"):
        PlanConfig(ranks=6, group=4)
    assert [PlanConfig(ranks=n).node for n in (1, 2, 6, 8)] == [1, 2, 6, 4]


def test_unknown_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="preset='7b' is not one of nano, 11b"):
        model_config(recipe(TuneConfig(), recompute=False), "7b")
