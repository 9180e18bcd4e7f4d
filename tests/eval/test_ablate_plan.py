"""The plan of an ablation: the numbers of the published sizes, without weights."""

from dataclasses import replace
from pathlib import Path

import pytest

from eval.ablate import runs_of
from eval.ablate_plan import counted, plan_text
from eval.ablate_spec import load_ablation, recipe_of
from minimllama import PRESETS

ROOT = Path(__file__).parents[2]
PAPER = sorted((ROOT / "eval" / "ablations" / "paper").glob("*.toml"))


def test_there_is_a_paper_version_of_every_ablation() -> None:
    ours = {path.name for path in (ROOT / "eval" / "ablations").glob("*.toml")}
    assert {path.name for path in PAPER} == ours


@pytest.mark.parametrize("path", PAPER, ids=lambda path: path.stem)
def test_every_paper_version_is_planned_without_its_checkpoint(path: Path) -> None:
    spec = load_ablation(path)
    text = plan_text(spec, runs_of(spec, Path("out")), "11b", 4)
    assert all(variant.name in text for variant in spec.variants)
    assert text.count("not here") == len(spec.variants)
    assert "269,451,264" in text  # rank 64 on every linear layer


def test_rank_counts_in_proportion_and_partial_counts_projector_and_cross_attention() -> None:
    ranks = load_ablation(ROOT / "eval" / "ablations" / "paper" / "lora_rank.toml")
    trained = {
        v.name: counted(PRESETS["11b"], recipe_of(ranks, v, 1), 4)[0].n_trainable
        for v in ranks.variants
        if v.name in ("r16", "r128")
    }
    assert trained["r128"] == 8 * trained["r16"] == 538_902_528
    tuning = load_ablation(ROOT / "eval" / "ablations" / "paper" / "tuning.toml")
    recipe = recipe_of(tuning, tuning.variant("partial"), 1)
    report, gib = counted(PRESETS["11b"], recipe, 1)
    assert report.n_trainable == 1_776_359_440
    shared = counted(PRESETS["11b"], replace(recipe, shard=replace(recipe.shard, strategy="zero2")), 4)[1]
    assert shared < gib  # four ranks share the optimizer's state
