"""Ablations as TOML: what may be set, what is refused, and that the commands mean the same as the recipe."""

from dataclasses import replace
from pathlib import Path

import pytest

from eval.ablate_spec import (
    Ablation,
    Scoring,
    Variant,
    find_recipe,
    flat,
    load_ablation,
    main_protocol,
    recipe_of,
    score_commands,
    train_command,
    typed,
)
from train.config import parse

ROOT = Path(__file__).parents[2]
SHIPPED = sorted((ROOT / "eval" / "ablations").rglob("*.toml"))
ABLATIONS = [path for path in SHIPPED if path.parent.name != "recipes"]
BASE = "eval/ablations/recipes/simulated.toml"


def ablation(*variants: Variant, base: str = BASE) -> Ablation:
    return Ablation(name="a", question="?", base=base, variants=variants or (Variant(name="v"),))


@pytest.mark.parametrize("path", ABLATIONS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_the_command_of_every_shipped_variant_means_its_recipe(path: Path, monkeypatch) -> None:
    monkeypatch.chdir(ROOT)
    loaded = load_ablation(path)
    for variant in loaded.variants:
        words = train_command(loaded, variant, 3, Path("there"), 1)
        assert words[:2] == ["train", "run"]
        told = parse(words[2:], "test")
        wanted = recipe_of(loaded, variant, 3)
        assert (told.seed, told.out, told.name) == (3, "there", "training")
        for part in ("data", "tuning", "optim", "batch", "compute", "shard", "validate"):
            assert getattr(told, part) == getattr(wanted, part), (variant.name, part)


def test_the_variants_of_a_shipped_ablation_differ() -> None:
    for path in ABLATIONS:
        loaded = load_ablation(path)
        recipes = [recipe_of(loaded, variant, 1) for variant in loaded.variants]
        assert all(a != b for i, a in enumerate(recipes) for b in recipes[:i]), path


def test_held_out_patients_are_others_than_those_of_the_training() -> None:
    for path in ABLATIONS:
        loaded = load_ablation(path)
        for component in recipe_of(loaded, loaded.variants[0], 1).data.components:
            assert component.source != "simulated" or component.seed != loaded.score.seed


def test_nested_tables_become_dotted_names_and_lists_stay_whole() -> None:
    assert flat({"a": {"b": {"c": 1}, "d": [2, 3]}, "e": True}) == {"a.b.c": 1, "a.d": [2, 3], "e": True}


def test_switches_and_lists_are_written_as_the_command_line_takes_them(monkeypatch) -> None:
    monkeypatch.chdir(ROOT)
    changes = {
        "compute": {"compile": True, "checkpoint_activations": False},
        "tuning": {"targets": ["text.layers.*.q_proj", "*.v_proj"]},
    }
    variant = Variant(name="v", set=changes)
    words = train_command(ablation(variant), variant, 1, Path("out"), 1)
    told = parse(words[2:], "test")
    assert told.compute.compile
    assert not told.compute.checkpoint_activations
    assert told.tuning.targets == ("text.layers.*.q_proj", "*.v_proj")
    assert "'text.layers.*.q_proj'" in typed(words)  # quoted: a shell would look for files


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tuning": {"rr": 3}}, r"variant v: no setting is called tuning.rr; did you mean tuning.r\?"),
        ({"tuning": {"r": "3"}}, "variant v: tuning.r='3' must be of type int"),
        ({"data": {"without": ["ptbxl"]}}, "variant v: data.without: no component is called ptbxl; there are"),
        ({"seed": 4}, "variant v: seed cannot be set here"),
        ({"data": {"components": []}}, "variant v: data.components cannot be set here; data.without leaves"),
    ],
)
def test_a_wrong_change_is_refused_by_name(changes: dict, message: str) -> None:
    variant = Variant(name="v", set=changes)
    with pytest.raises(ValueError, match=message):
        recipe_of(ablation(variant), variant, 1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("variants = [", "a.toml: "),
        ('[[variants]]\nname = "v"\nsett = 1', r"no setting is called variants\[0\].sett|did you mean .*set"),
        ('[[variants]]\nname = "untuned"', "variant 'untuned'"),
        ('[[variants]]\nname = "a/b"', "variant 'a/b': letters, digits"),
        ('[[variants]]\nname = "v"\n[[variants]]\nname = "v"', "two variants are called v"),
        ('seeds = [2, 2]\n[[variants]]\nname = "v"', "has one twice"),
    ],
)
def test_a_wrong_file_is_refused_with_its_name(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_text(f'name = "a"\nquestion = "?"\nbase = "{BASE}"\n{text}')
    with pytest.raises(ValueError, match=message) as error:
        load_ablation(path)
    assert str(error.value).startswith(str(path))


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no ablation nowhere.toml; eval/ablations has .*lora_rank.toml"):
        load_ablation(Path("nowhere.toml"))
    with pytest.raises(FileNotFoundError, match=r"no recipe nowhere.toml"):
        recipe_of(ablation(base="nowhere.toml"), Variant(name="v"), 1)
    with pytest.raises(ValueError, match="no variant is called 'r8'; there are v"):
        ablation().variant("r8")
    assert find_recipe(BASE).is_file()


def test_a_suite_takes_n_and_seed_only_if_its_patients_are_simulated() -> None:
    with pytest.raises(ValueError, match="n and seed do not apply"):
        Scoring(suite="wfdb", n_test=5)
    with pytest.raises(ValueError, match="n_test=1 and n_validation=0 must be at least 2"):
        Scoring(n_test=1)
    with pytest.raises(ValueError, match=r"score.suite='ptb' is not one of"):
        Scoring(suite="ptb")


@pytest.mark.parametrize(("suite", "lack"), [("ptb-test", "validation records"), ("ptbxl-report", "scores of labels")])
def test_a_suite_that_gives_no_scores_to_compare_is_refused_before_anything_is_trained(suite: str, lack: str) -> None:
    with pytest.raises(ValueError, match=f"suite {suite} has no {lack}"):
        Scoring(suite=suite)


def test_what_is_drawn_is_the_last_label_set_of_the_suite() -> None:
    drawn = {suite: main_protocol(replace(ablation(), score=Scoring(suite=suite))) for suite in ("wfdb", "ptbxl-super")}
    assert drawn == {"wfdb": "statements", "ptbxl-super": "superclass"}


def test_scoring_takes_the_adapter_or_the_model_that_training_left_or_neither() -> None:
    full = Variant(name="f", set={"tuning": {"method": "full"}})
    for variant, tuned, wanted in (
        (Variant(name="v"), True, ["--model", "nano", "--adapter", "there/training/adapter"]),
        (full, True, ["--model", "there/training/model"]),
        (full, False, ["--model", "nano"]),
    ):
        spec = ablation(variant)
        commands = score_commands(spec, recipe_of(spec, variant, 1), Path("there"), 1, tuned=tuned)
        assert [command[:2] for command in commands] == [["eval", "predict"], ["eval", "predict"], ["eval", "score"]]
        assert all(command[2 : 2 + len(wanted)] == wanted for command in commands[:2])
        assert ("--adapter" in commands[0]) == ("--adapter" in wanted)


def test_options_of_the_source_are_handed_to_the_predictions() -> None:
    spec = replace(ablation(), score=Scoring(suite="wfdb", root="r", options=("split_of_all=test",)))
    commands = score_commands(spec, recipe_of(spec, spec.variants[0], 1), Path("there"), 1, tuned=True)
    assert all(" --options split_of_all=test --split " in " ".join(command) for command in commands[:2])


def test_several_processes_go_through_torchrun() -> None:
    spec = ablation()
    words = train_command(spec, spec.variants[0], 1, Path("there"), 2)
    assert words[:6] == ["torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "train"]
    predict = score_commands(spec, recipe_of(spec, spec.variants[0], 1), Path("there"), 2, tuned=True)[0]
    assert predict[:8] == [*words[:5], "--", "eval", "predict"]
