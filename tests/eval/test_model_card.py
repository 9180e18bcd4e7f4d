"""The model card: what it says stands in the files of the run, and what they lack is called missing."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from eval.__main__ import main
from eval.card_metrics import describe_scores
from eval.card_text import MISSING
from eval.model_card import CardConfig, base_of, check_same_run, options_of, write_card
from eval.predict import PredictConfig
from eval.score import ScoreConfig, score
from lora import TuneConfig, apply_tuning, load_adapter
from minimllama import PRESETS, load_model
from train.config import DataConfig, RunConfig, to_toml
from train.mixture import ComponentConfig


def log_line(step: int, images_per_s: float, loss: float | None) -> dict:
    return {
        "step": step,
        "epoch": step * 4 / 8,
        "samples": step * 4,
        "loss": loss,
        "images_per_s": images_per_s,
        "peak_memory_bytes": step * 2**30,
    }


@pytest.fixture(scope="module")
def recipe(checkpoint: Path) -> RunConfig:
    component = ComponentConfig(source="simulated", n=8, seed=3, tasks=("superclass", "report", "report"))
    data = DataConfig(components=(component,), page="nano")
    return RunConfig(name="cardiac", model=str(checkpoint), data=data, tuning=TuneConfig(r=3, alpha=12.0, dropout=0.0))


@pytest.fixture(scope="module")
def run(recipe: RunConfig, adapter: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two steps on three ranks, as `train run` leaves it."""
    folder = tmp_path_factory.mktemp("runs") / adapter.parent.name
    folder.mkdir()
    (folder / "config.toml").write_text(to_toml(recipe))
    lines = [log_line(1, 2.0, 3.0), log_line(2, 4.0, 1.25)]
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    shutil.copytree(adapter, folder / "adapter")
    (folder / "checkpoint-2").mkdir()
    (folder / "checkpoint-2" / "progress.json").write_text(json.dumps({"step": 2, "n_ranks": 3, "pages_per_step": 4}))
    (folder / "checkpoint-2" / "checksums.json").write_text("{}")
    (folder / "latest").write_text("checkpoint-2\n")
    return folder


@pytest.fixture(scope="module")
def scores(predictions: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("scores") / "scores.json"
    test, validation = predictions["tuned-test"], predictions["tuned-validate"]
    score(ScoreConfig(predictions=test, validation=validation, bootstrap=20, out=out))
    return out


@pytest.fixture(scope="module")
def card(run: Path, scores: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    out = tmp_path_factory.mktemp("card") / "MODEL_CARD.md"
    assert main(["card", "--run", str(run), "--scores", str(scores), "--out", str(out)]) == 0
    return out.read_text()


def cell(card: str, name: str) -> str:
    """The second cell of the row that begins with this name."""
    return next(line for line in card.splitlines() if line.startswith(f"| {name} |")).split("|")[2].strip()


# equation


def test_sections_stand_in_order(card: str) -> None:
    wanted = ["Model", "Intended use", "Training data", "Training", "Evaluation", "Limits", "Licence", "Make it again"]
    assert [line[3:] for line in card.splitlines() if line.startswith("## ")] == wanted
    assert card.startswith("# Model card: cardiac\n")


def test_parameters_are_those_that_tuning_trains(card: str, checkpoint: Path, recipe: RunConfig, adapter: Path) -> None:
    report = apply_tuning(load_model(checkpoint), recipe.tuning)
    assert cell(card, "trained parameters") == str(report)
    loaded = load_adapter(load_model(checkpoint), adapter)
    assert sum(p.numel() for n, p in loaded.named_parameters() if ".lora_" in n) == report.n_trainable


def test_the_log_gives_time_memory_and_loss(card: str) -> None:
    """4 pages at 2 per second and 4 at 4 per second: 3 seconds."""
    assert cell(card, "time in steps") == "0:03, 2.7 pages/s"
    assert cell(card, "peak memory of a rank") == "2.00 GiB"
    assert cell(card, "loss per answer token") == "1.2500, mean of the last tenth of steps"
    assert "Seen: 8 pages, 1.00 epochs." in card
    assert "| simulated | - | n = 8, seed = 3 | 8 | 1.0 | superclass x 1, report x 2 | statements |" in card


def test_every_metric_is_that_of_the_scores(card: str, scores: Path) -> None:
    found = json.loads(scores.read_text())
    for part in found["protocols"].values():
        low, high = part["from_scores"]["intervals"]["means"]["macro_auc"]
        assert f"| **this model** | {part['from_scores']['macro_auc']:.3f} ({low:.3f}-{high:.3f}) |" in card
        for name, values in part["trivial"].items():
            assert f"| {name} | {values['macro_auc']:.3f} | {values['macro_f1']:.3f} |" in card
        for code, values in part["from_scores"]["per_label"].items():
            assert f"| {code} | {values['n_pos']} | {values['n_neg']} |" in card
    assert "7 SIMULATED records, not patients: suite `simulated`, split `test`, seed 5." in card
    assert "Thresholds: 7 records of the validation split." in card
    assert "Fewer than 10 positive records: NORM, MI" in card


def test_commands_make_the_predictions_again(card: str, scores: Path, adapter: Path) -> None:
    settings = json.loads(scores.read_text())["settings"]
    shown = next(line for line in card.splitlines() if line.startswith("python -m eval predict"))
    assert f"--adapter {adapter}" in shown
    assert "--n 7 --seed 5" in shown
    assert "torchrun --standalone --nproc-per-node 3 -m train run --recipe " in card
    assert "on each of 3 ranks, 4 pages a step" in card
    assert "--suite" not in shown  # the default
    defaults = {name: getattr(PredictConfig(), name) for name in settings}
    assert options_of(defaults) == []
    assert options_of({**defaults, "texts": []}) == ["--texts"]


def test_subgroups_are_shown_where_there_are_some(run: Path, scores: Path, tmp_path: Path) -> None:
    found = json.loads(scores.read_text())
    found["subgroups"] = [{"field": "sex", "group": "female", "n": 3, "auc": 0.75}]
    (tmp_path / "s.json").write_text(json.dumps(found))
    shown = write_card(CardConfig(run=run, scores=tmp_path / "s.json", out=tmp_path / "card.md")).read_text()
    assert "| field | group | n | auc |\n| --- | --- | --- | --- |\n| sex | female | 3 | 0.75 |" in shown


# property


def test_what_is_missing_is_said(recipe: RunConfig, tmp_path: Path) -> None:
    """A run that has only begun, whose base and data are elsewhere."""
    component = ComponentConfig(source="ptbxl", root="nowhere/ptbxl")
    begun = replace(recipe, model="nowhere/11b", data=DataConfig(components=(component,), page="square"))
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.toml").write_text(to_toml(begun))
    shown = write_card(CardConfig(run=tmp_path / "run", out=tmp_path / "card.md")).read_text()
    assert cell(shown, "what the run left") == f"{MISSING}: the run has no adapter or model"
    assert cell(shown, "trained parameters") == MISSING
    assert cell(shown, "time, memory, loss") == f"{MISSING}: the run has no log.jsonl"
    assert f"| ptbxl | nowhere/ptbxl | - | {MISSING}: its folder is not here |" in shown
    assert "on each of not recorded ranks" in shown
    assert "No scores file was given." in shown
    assert "- Not scored: nothing is known of how well it does." in shown
    assert "Where the base comes from cannot be told" in shown


def test_an_adapter_without_its_base_is_counted_in_its_file(recipe: RunConfig, run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "run" / "config.toml").write_text(to_toml(replace(recipe, model="nowhere/11b")))
    shown = write_card(CardConfig(run=tmp_path / "run", out=tmp_path / "card.md")).read_text()
    n = apply_tuning(load_model(recipe.model), recipe.tuning).n_trainable
    assert cell(shown, "trained parameters").startswith(f"{n:,} in ")
    assert "nowhere/11b is not here" in shown


def test_the_licence_follows_the_base(recipe: RunConfig, card: str, tmp_path: Path) -> None:
    assert base_of(replace(recipe, model="nano")) == "nano"
    full = TuneConfig(method="full")
    assert base_of(replace(recipe, model="scratch", sizes="nano", tuning=full)) == "scratch"
    assert base_of(recipe) == ""  # the tests' own sizes
    assert "Built with Llama" not in card
    for name in ("11b", "11b-instruct", "90b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps(PRESETS[name].to_hf("bfloat16")))
        assert base_of(replace(recipe, model=str(tmp_path / name))) == "meta"
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.toml").write_text(to_toml(replace(recipe, model=str(tmp_path / "11b"))))
    shown = write_card(CardConfig(run=tmp_path / "run", out=tmp_path / "card.md")).read_text()
    assert '"Built with Llama" prominently' in shown
    assert "Llama 3.2 Community License" in shown
    assert all(f"(1.b.{section})" in shown for section in ("i", "iii", "iv"))
    assert "domiciled in the European Union" in shown


# refusal


def test_scores_of_another_model_are_refused(run: Path, scores: Path) -> None:
    found = json.loads(scores.read_text())
    check_same_run(run, found)
    found["settings"]["adapter"] = "runs/other/adapter"
    with pytest.raises(ValueError, match="with adapter 'runs/other/adapter', not of "):
        check_same_run(run, found)


def test_scores_of_another_run_of_the_same_name_are_refused(run: Path, scores: Path, tmp_path: Path) -> None:
    found, other = json.loads(scores.read_text()), tmp_path / run.name / "adapter"
    other.mkdir(parents=True)
    (other / "adapter_model.safetensors").write_bytes(b"other weights")
    with pytest.raises(ValueError, match="the scores are of model"):
        check_same_run(run, {"settings": {**found["settings"], "adapter": str(other)}})
    check_same_run(run, {"settings": {**found["settings"], "adapter": f"gone/{run.name}/adapter"}})
    with pytest.raises(ValueError, match="the scores are of model"):  # the model without this run's adapter
        check_same_run(run, {"settings": {**found["settings"], "adapter": ""}})


def test_answers_to_questions_are_in_the_card() -> None:
    settings = {"suite": "csn", "split": "test", "seed": None}
    told = {"accuracy": 0.75, "interval": [0.7, 0.8], "unparsed": 3, "by_likelihood": None, "pulse": 0.5}
    choices = {**told, "trivial": {"always A": 0.25}}
    scores = {"settings": settings, "synthetic": False, "n_records": 9, "n_validation": None, "protocols": {}}
    shown = "\n".join(describe_scores({**scores, "report": None, "choices": choices}))
    assert "0.750 (0.700-0.800)" in shown
    assert "always A" in shown


def test_a_card_is_not_overwritten_and_needs_a_run(run: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "card.md").write_text("precious")
    assert main(["card", "--run", str(run), "--out", str(tmp_path / "card.md")]) == 2
    assert "exists" in capsys.readouterr().err
    assert (tmp_path / "card.md").read_text() == "precious"
    assert main(["card", "--run", str(tmp_path), "--out", str(tmp_path / "b.md")]) == 2
    assert "error: no recipe" in capsys.readouterr().err
