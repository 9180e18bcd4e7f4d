"""From predictions to scores: both protocols, thresholds from validation, words, reports, trivial baselines."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eval.judge import judge_by_rules
from eval.metrics import best_f1_thresholds, label_metrics
from eval.predict import read_predictions
from eval.score import (
    CONSTANT_REPORT,
    ScoreConfig,
    eligible,
    score,
    score_matrix,
    score_reports,
    text_matrix,
    trivial_predictions,
    truth_matrix,
)
from train.ecg import LABEL_SETS

FIVE = LABEL_SETS["superclass"]


def line(
    name: str,
    superclass: list[str],
    odds: list[float],
    text: str = "",
    report: tuple[str, str] = ("Sinus rhythm.", "Sinus rhythm."),
    labels: list[str] | None = None,
) -> dict[str, Any]:
    """One prediction, made by hand."""
    statements = LABEL_SETS["simulated"].codes
    return {
        "id": name,
        "patient_id": name,
        "truth": {"labels": labels if labels is not None else ["SR"], "superclass": superclass, "report": report[0]},
        "log_odds": {
            "superclass": dict(zip(FIVE.codes, odds, strict=True)),
            "statements": dict.fromkeys(statements, 0.0),
        },
        "texts": {"superclass": {"text": text}, "statements": {"text": ""}, "report": {"text": report[1]}},
    }


def write(path: Path, lines: list[dict[str, Any]], **settings: object) -> Path:
    path.write_text("".join(json.dumps(entry) + "\n" for entry in lines))
    stated = {"model": "m", "adapter": "", "suite": "simulated", "page": "", "semantics": "meta", "split": "test"}
    path.with_suffix(".config.json").write_text(
        json.dumps({**stated, "n": None, "seed": None, "root": None, **settings})
    )
    return path


HAND = [
    line("a", ["NORM"], [2.0, -1.0, -1.0, -1.0, -1.0], "NORM."),
    line("b", ["MI", "CD"], [-1.0, 1.0, -2.0, 0.5, -3.0], "MI, HYP.", ("Atrial fibrillation.", "Sinus rhythm.")),
    line("c", ["NORM"], [-0.5, 0.5, -1.0, -2.0, -1.0], "I do not know."),
    line("d", [], [0.0, 0.0, 0.0, 0.0, 0.0], "None of them."),
]


# equation


def test_matrices_by_hand() -> None:
    lines = eligible(HAND, "superclass")
    assert [entry["id"] for entry in lines] == ["a", "b", "c"]  # d has no superclass
    assert len(eligible(HAND, "statements")) == 4
    assert truth_matrix(lines, "superclass", FIVE).astype(int).tolist() == [
        [1, 0, 0, 0, 0],
        [0, 1, 0, 1, 0],
        [1, 0, 0, 0, 0],
    ]
    assert score_matrix(lines, "superclass", FIVE)[1].tolist() == [-1.0, 1.0, -2.0, 0.5, -3.0]
    words, unparsed = text_matrix(lines, "superclass", FIVE)
    assert words.astype(int).tolist() == [[1, 0, 0, 0, 0], [0, 1, 0, 0, 1], [0, 0, 0, 0, 0]]
    assert unparsed == 1


def test_records_without_labels_are_not_scored() -> None:
    unlabelled = {**HAND[0], "truth": {"labels": None, "superclass": None, "report": None}}
    assert eligible([unlabelled, HAND[1]], "statements") == [HAND[1]]


def test_trivial_baselines_by_hand() -> None:
    y = truth_matrix(HAND, "superclass", FIVE)
    trivial = trivial_predictions(y, FIVE, seed=0)
    assert not trivial["nothing"].any()
    assert trivial["all normal"].astype(int).tolist() == [[1, 0, 0, 0, 0]] * 4
    statements = trivial_predictions(np.zeros((2, 71), bool), LABEL_SETS["statements"], 0)["all normal"]
    codes = LABEL_SETS["statements"].codes
    assert {codes[i] for i in np.flatnonzero(statements[0])} == {"NORM", "SR"}
    coin = trivial_predictions(np.zeros((2000, 5), bool), FIVE, 0)["fair coin"]
    assert coin.mean() == pytest.approx(0.5, abs=4.5 * 0.005)  # standard errors of 10,000 tosses


def test_scores_of_hand_made_predictions(tmp_path: Path) -> None:
    path = write(tmp_path / "p.jsonl", HAND)
    result = score(ScoreConfig(predictions=path, out=tmp_path / "s.json"))
    assert json.loads((tmp_path / "s.json").read_text()) == result
    part = result["protocols"]["superclass"]
    assert part["from_scores"]["per_label"]["NORM"]["auc"] == 1.0
    assert part["from_scores"]["per_label"]["MI"]["auc"] == 1.0
    assert part["from_scores"]["n"] == 3
    assert "macro_f1" not in part["from_scores"]  # no thresholds without validation
    assert (part["from_text"]["unparsed"], part["from_text"]["hamming"]) == (1, pytest.approx(3 / 15))
    assert part["trivial"]["nothing"] == {"macro_auc": 0.5, "macro_f1": 0.0, "hamming": pytest.approx(4 / 15)}
    assert part["trivial"]["all normal"]["hamming"] == pytest.approx(3 / 15)  # b: NORM wrong, MI and CD missed
    assert (result["n_records"], result["n_validation"], result["synthetic"]) == (4, None, True)


def test_report_scores_are_means_over_the_records() -> None:
    result = score_reports(HAND, "rules")
    assert result is not None
    each = [judge_by_rules(e["truth"]["report"], e["texts"]["report"]["text"]).score for e in HAND]
    assert each[0] == 100.0
    assert each[1] < 100.0
    assert result["score"] == pytest.approx(np.mean(each))
    assert result["n"] == 4
    constant = [judge_by_rules(e["truth"]["report"], CONSTANT_REPORT).score for e in HAND]
    assert result["constant_report"] == pytest.approx(np.mean(constant))
    assert result["score"] == pytest.approx(10 * np.mean(list(result["criteria"].values())))


def test_without_reports_there_is_no_report_score() -> None:
    assert score_reports([{**HAND[0], "texts": {}}], "rules") is None
    assert score_reports([{**HAND[0], "truth": {**HAND[0]["truth"], "report": None}}], "rules") is None


# parity


def test_a_models_scores_are_its_metrics_at_thresholds_of_the_validation_records(
    predictions: dict[str, Path], tmp_path: Path
) -> None:
    config = ScoreConfig(
        predictions=predictions["tuned-test"], validation=predictions["tuned-validate"], out=tmp_path / "s.json"
    )
    result = score(config)
    test, held = (read_predictions(predictions[f"tuned-{split}"]) for split in ("test", "validate"))
    for protocol, label_set in (("superclass", FIVE), ("statements", LABEL_SETS["simulated"])):
        kept, chosen = eligible(test, protocol), eligible(held, protocol)
        thresholds = best_f1_thresholds(
            truth_matrix(chosen, protocol, label_set), score_matrix(chosen, protocol, label_set)
        )
        y, s = truth_matrix(kept, protocol, label_set), score_matrix(kept, protocol, label_set)
        expected = label_metrics(y, s >= thresholds, s, label_set.codes, thresholds)
        measured = result["protocols"][protocol]["from_scores"]
        intervals = measured.pop("intervals")
        assert measured == expected
        assert {"macro_auc", "macro_ap", "macro_f1", "hamming", "brier", "ece"} <= intervals["means"].keys()
        assert intervals["n_draws"] == 1000
        low, high = intervals["means"]["hamming"]
        assert low <= measured["hamming"] <= high
    assert result["n_validation"] == 7
    json.loads((tmp_path / "s.json").read_text(), parse_constant=pytest.fail)  # no NaN, no Infinity


# refusal


def test_thresholds_of_another_model_are_refused(predictions: dict[str, Path], tmp_path: Path) -> None:
    config = ScoreConfig(
        predictions=predictions["tuned-test"], validation=predictions["base-validate"], out=tmp_path / "s.json"
    )
    with pytest.raises(ValueError, match="was made with another adapter: no source of thresholds"):
        score(config)
    assert not (tmp_path / "s.json").exists()


def test_thresholds_of_the_reported_patients_are_refused(predictions: dict[str, Path], tmp_path: Path) -> None:
    config = ScoreConfig(
        predictions=predictions["base-test"], validation=predictions["base-test"], out=tmp_path / "s.json"
    )
    with pytest.raises(ValueError, match="7 patients stand in both files, such as sim-5-test-000000"):
        score(config)


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "s.json").write_text("precious")
    with pytest.raises(FileExistsError, match=r"s.json exists"):
        score(ScoreConfig(predictions=tmp_path / "p.jsonl", out=tmp_path / "s.json"))
    assert (tmp_path / "s.json").read_text() == "precious"


def test_unlabelled_records_cannot_be_scored(tmp_path: Path) -> None:
    unlabelled = {**HAND[0], "truth": {"labels": None, "superclass": None, "report": None}}
    with pytest.raises(ValueError, match="no record has labels for the superclass protocol"):
        score(ScoreConfig(predictions=write(tmp_path / "p.jsonl", [unlabelled]), out=tmp_path / "s.json"))


def test_validation_records_without_a_label_of_the_protocol_are_no_source_of_thresholds(tmp_path: Path) -> None:
    test, held = write(tmp_path / "p.jsonl", HAND[:3]), write(tmp_path / "v.jsonl", HAND[3:])
    with pytest.raises(ValueError, match="no validation record has labels for the superclass protocol"):
        score(ScoreConfig(predictions=test, validation=held, out=tmp_path / "s.json"))


def test_an_unknown_judge_is_refused() -> None:
    with pytest.raises(ValueError, match="judge='oracle' is not one of rules"):
        ScoreConfig(predictions=Path("p.jsonl"), judge="oracle")


def test_references_that_state_nothing_to_compare_are_left_out_and_counted() -> None:
    pairs = (("Refer to a cardiologist.", "Banana."), ("Sinus rhythm.", "Atrial fibrillation."))
    lines = [
        {"id": str(i), "patient_id": str(i), "truth": {"report": ours}, "texts": {"report": {"text": theirs}}}
        for i, (ours, theirs) in enumerate(pairs)
    ]
    assert score_reports(lines[:1], "rules") is None  # not 100 of 100 for a banana
    found = score_reports(lines, "rules")
    assert found is not None
    assert (found["n"], found["n_silent"]) == (1, 1)


def test_a_record_that_stands_twice_is_refused(predictions: dict[str, Path], tmp_path: Path) -> None:
    own, text = tmp_path / "p.jsonl", predictions["base-test"].read_text()
    own.write_text(text + text.splitlines(keepends=True)[2])
    with pytest.raises(ValueError, match="1 records stand there more than once, such as sim-5-test-000002"):
        score(ScoreConfig(predictions=own, out=tmp_path / "s.json"))


def test_records_that_train_a_model_choose_no_thresholds(predictions: dict[str, Path], tmp_path: Path) -> None:
    held = tmp_path / "train.jsonl"
    held.write_text(predictions["base-validate"].read_text())
    note = json.loads(predictions["base-validate"].with_suffix(".config.json").read_text())
    held.with_suffix(".config.json").write_text(json.dumps({**note, "split": "train"}))
    with pytest.raises(ValueError, match="of the split that trains a model: no source of thresholds"):
        score(ScoreConfig(predictions=predictions["base-test"], validation=held, out=tmp_path / "s.json"))


def test_log_odds_are_no_probabilities_even_if_all_lie_in_the_unit_interval(
    predictions: dict[str, Path], tmp_path: Path
) -> None:
    lines = [json.loads(line) for line in predictions["base-test"].read_text().splitlines()]
    for line in lines:
        line["log_odds"] = {name: dict.fromkeys(odds, 0.0) for name, odds in line["log_odds"].items()}
    own = tmp_path / "p.jsonl"
    own.write_text("".join(json.dumps(line) + "\n" for line in lines))
    own.with_suffix(".config.json").write_text(predictions["base-test"].with_suffix(".config.json").read_text())
    found = score(ScoreConfig(predictions=own, bootstrap=3, out=tmp_path / "s.json"))["protocols"]["superclass"]
    assert found["from_scores"]["brier"] == 0.25  # of a probability of one half, whatever is true
    assert found["from_scores"]["intervals"]["means"]["brier"] == [0.25, 0.25]
