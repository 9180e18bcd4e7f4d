"""What an ablation will train and need, counted on the meta device before anything runs."""

from collections.abc import Sequence
from typing import Any

import torch

from eval.ablate_spec import Ablation
from eval.tables import format_table
from lora import TuneReport, apply_tuning
from minimllama import MiniMllama, ModelConfig
from train.config import RunConfig
from train.plan import GIB, measure, model_config, state_bytes


def counted(config: ModelConfig, recipe: RunConfig, ranks: int) -> tuple[TuneReport, float]:
    """What a recipe trains in a model of these sizes, and GiB of weights and optimizer state per rank.

    Raises:
        ValueError: if a target matches nothing in this model.
    """
    dtype = getattr(torch, recipe.compute.dtype)
    with torch.device("meta"):
        model = MiniMllama(config, recipe.semantics).to(dtype)
        report = apply_tuning(model, recipe.tuning)
    strategy = recipe.shard.strategy if ranks > 1 else "none"
    return report, sum(state_bytes(strategy, measure(model, dtype), ranks, ranks, recipe.batch.accumulate)) / GIB


def _cells(config: ModelConfig, recipe: RunConfig, ranks: int) -> list[str]:
    report, gib = counted(config, recipe, ranks)
    return [f"{report.n_trainable:,}", f"{100 * report.n_trainable / report.n_total:.2f}", f"{gib:.2f}"]


def plan_text(ablation: Ablation, runs: Sequence[Any], preset: str, ranks: int) -> str:
    """One line per variant: parameters, and memory of weights and state, for the recipe's model and a preset.

    Args:
        ablation: what is planned.
        runs: of `runs_of`.
        preset: of PRESETS.
        ranks: that share the optimizer's state, if the recipe's strategy shares it.

    Raises:
        ValueError: if there is no such preset.
    """
    tuned = [run for run in runs if run.seed == ablation.seeds[0]]
    lines = []
    for run in tuned:
        try:
            own = _cells(model_config(run.recipe, ""), run.recipe, ranks)
        except FileNotFoundError:
            own = ["not here", "-", "-"]
        lines.append([run.variant.name, *own, *_cells(model_config(run.recipe, preset), run.recipe, ranks)])
    model = tuned[0].recipe.model
    headings = ["variant", f"trained of {model}", "%", "GiB", f"trained of {preset}", "%", "GiB"]
    about = "GiB: weights, float32 copies, gradients and moments of one rank; activations come on top (train plan)"
    n = len(ablation.variants) * len(ablation.seeds)
    return f"{n} trainings, {n + 1} scorings\n{format_table(headings, lines)}\n{about}"
