"""Reports of suites that are not simulated: published pictures, answers to their own questions; and what is refused."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from eval.report import ReportConfig, write_report
from eval.report.curves import training_loss
from eval.report.models import load_elsewhere, load_models
from eval.score import ScoreConfig, score
from train.ecg import LABEL_SETS

CODES = LABEL_SETS["code15"].codes
NOTE = {"model": "m", "adapter": "", "suite": "code15-test", "split": "test", "n": None, "seed": None, "page": ""}


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> ReportConfig:
    """Six pictures of ECGBench: the records 0, 2 and 4 have RBBB, and the answers say so of 0 and 2."""
    folder, items, lines = tmp_path_factory.mktemp("suites"), [], []
    (folder / "bench" / "images").mkdir(parents=True)
    for i in range(6):
        Image.new("RGB", (20, 10), (40 * i, 0, 0)).save(folder / "bench" / "images" / f"r{i}.png")
        golden, said = ("RBBB" if i % 2 == 0 else "NORM"), ("RBBB" if i in (0, 2) else "LBBB")
        turns = [{"from": "human", "value": "Which label?"}, {"from": "gpt", "value": golden}]
        items.append({"id": f"item {i}", "image_path": f"r{i}.png", "conversations": turns})
        truth = {"labels": ["RBBB"] if i % 2 == 0 else [], "superclass": None, "report": None}
        truth |= {"questions": ["Which label?"], "answers": [golden]}
        odds = {"code15": {code: float(-i) for code in CODES}}
        line = {"id": f"r{i}", "patient_id": f"r{i}", "truth": truth, "item": f"item {i}", "log_odds": odds}
        lines.append({**line, "label_list": odds, "texts": {"code15": {"text": said}}})
    (folder / "bench" / "code15-test.json").write_text(json.dumps(items))
    note = {**NOTE, "root": str(folder / "bench"), "semantics": "meta"}
    (folder / "test.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "test.config.json").write_text(json.dumps(note))
    score(ScoreConfig(predictions=folder / "test.jsonl", bootstrap=5, out=folder / "scores.json"))
    scores, predictions = (f"m={folder / 'scores.json'}",), (f"m={folder / 'test.jsonl'}",)
    return ReportConfig(scores=scores, predictions=predictions, draws=5, pages=4, out=folder / "report.html")


def test_published_pictures_stand_beside_their_questions_and_answers(config: ReportConfig) -> None:
    html = write_report(config).read_text()  # without --root: the folder that was predicted
    assert html.count('alt="ECG page r') == 4
    assert "<dt>question</dt><dd>Which label?</dd>" in html
    assert "<dt>m, code15</dt><dd>RBBB</dd>" in html


def test_the_words_of_a_suite_are_those_of_its_own_question(config: ReportConfig) -> None:
    (model,) = load_models(config.scores, config.predictions)
    words = model.parts["code15"].words
    assert words is not None
    assert words[:, CODES.index("RBBB")].tolist() == [True, False, True, False, False, False]


def test_without_pages_no_record_is_opened(config: ReportConfig) -> None:
    none = replace(config, root="nowhere", pages=0, out=config.out.with_name("none.html"))
    assert "ECG page" not in write_report(none).read_text()


def test_a_step_whose_loss_was_not_finite_leaves_a_gap(tmp_path: Path) -> None:
    lines = [{"step": i, "loss": None if i == 2 else 1.0, "samples": i} for i in (1, 2, 3)]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert "3 steps, 3 pages" in training_loss(tmp_path)
    (tmp_path / "log.jsonl").write_text("")
    with pytest.raises(ValueError, match=r"log.jsonl has no step with a loss"):
        training_loss(tmp_path)


def test_other_scores_and_other_predictions_than_the_scored_ones_are_refused(
    config: ReportConfig, tmp_path: Path
) -> None:
    path = Path(config.predictions[0].partition("=")[2])
    other = tmp_path / "scores.json"
    score(ScoreConfig(predictions=path, scores="label_list", bootstrap=0, out=other))
    with pytest.raises(ValueError, match="made from label_list; a report shows log-odds"):
        load_models([f"m={other}"], config.predictions)
    half = tmp_path / "test.jsonl"
    half.write_text("".join(path.read_text().splitlines(keepends=True)[:4]))
    with pytest.raises(ValueError, match=r"test.jsonl has 4 lines, but m was scored on 6"):
        load_models(config.scores, [f"m={half}"])


def test_a_model_of_other_pages_has_no_clean_ones_to_compare_with(config: ReportConfig) -> None:
    (model,) = load_models(config.scores, config.predictions)
    worn = replace(model, scores={**model.scores, "settings": {**model.settings, "distort": "phone"}})
    with pytest.raises(ValueError, match="--robustness x: m saw phone pages, so there are no clean ones"):
        load_elsewhere([config.predictions[0].replace("m=", "x=", 1)], [worn])
