"""PULSE's evaluation, repaired: its own outputs where the reference cases are at hand, and a few cases by hand."""

import json
from pathlib import Path
from typing import Any

import pytest

from eval.answers import parse_choice, parse_options
from eval.pulse import extract_letter, label_set_metrics, labels_of_golden, labels_of_text, qa_accuracy, score_texts


@pytest.fixture(scope="module")
def cases(shared: Path) -> list[dict[str, Any]]:
    path = shared / "parity" / "pulse_eval_cases.json"
    if not path.is_file():
        pytest.skip(f"no reference cases at {path}")
    return json.loads(path.read_text())["cases"]


def agree(ours: dict[str, float | None], theirs: dict[str, Any]) -> None:
    for name, value in ours.items():
        # the file keeps twelve digits
        assert value == (None if theirs[name] is None else pytest.approx(theirs[name], abs=1e-11)), name


# parity with PULSE's functions


def test_label_sets_score_as_pulse_scores_them(cases: list[dict[str, Any]]) -> None:
    chosen = [case for case in cases if case["kind"] == "label_sets"]
    assert len(chosen) > 10
    for case in chosen:
        if case["pulse"]["error"]:
            with pytest.raises(ValueError, match="no golden answer"):
                label_set_metrics(case["y_true"], case["y_pred"])
        else:
            agree(label_set_metrics(case["y_true"], case["y_pred"]), case["pulse"])


def test_texts_are_read_and_scored_as_pulse_does(cases: list[dict[str, Any]]) -> None:
    chosen = [case for case in cases if case["kind"] == "generated_text"]
    assert {case["task"] for case in chosen} == {"ptb-test", "cpsc-test", "code15-test"}
    for case in chosen:
        for text, codes in zip(case["golden"], case["parsed_true"], strict=True):
            assert sorted(labels_of_golden(text, case["task"])) == sorted(codes)
        for text, codes in zip(case["generated"], case["parsed_pred"], strict=True):
            assert sorted(labels_of_text(text, case["task"])) == sorted(codes)
        agree(score_texts(case["golden"], case["generated"], case["task"]), case["pulse"])


def test_questions_and_letters_are_read_as_pulse_does(cases: list[dict[str, Any]]) -> None:
    letters = [case for case in cases if case["kind"] == "extract"]
    questions = [case for case in cases if case["kind"] == "ecgqa"]
    assert letters
    assert questions
    for case in letters:
        assert extract_letter(case["generated"]) == case["pulse"]["letter"], case["generated"]
    for case in questions:
        assert qa_accuracy(case["golden"], case["generated"], case["options"]) == case["pulse"]["accuracy"]


# by hand


@pytest.mark.parametrize(
    ("text", "task", "codes"),
    [
        ("ABNORMAL", "ptb-test", ["NORM"]),
        ("No evidence of MI.", "ptb-test", ["MI"]),
        ("AFL, II-AVB", "cpsc-test", ["AF", "I-AVB"]),
        ("SB? Answer: ABNORMAL", "code15-test", ["ABNORMAL"]),
        ("normal", "ptb-test", []),
    ],
)
def test_pulse_reads_substrings(text: str, task: str, codes: list[str]) -> None:
    assert labels_of_text(text, task) == codes


def test_a_label_that_the_truth_lacks_costs_nothing() -> None:
    m = label_set_metrics([["MI"], ["CD"]], [["MI", "HYP"], ["CD", "HYP"]])
    assert m == {"macro_auc_hard": 1.0, "macro_f1": 1.0, "hamming": 0.0}


def test_one_label_everywhere_makes_the_auc_undefined_and_its_f1_is_of_the_other_outcome() -> None:
    assert label_set_metrics([["MI", "CD"], ["MI"]], [["MI", "CD"], ["MI"]])["macro_auc_hard"] is None
    m = label_set_metrics([["MI"], [], [], []], [["MI"], ["MI"], [], []])
    assert m["macro_f1"] == pytest.approx(4 / 5)  # of the negatives: 2 hits and 1 miss; that of MI would be 2/3


def test_a_truth_without_labels_and_an_unknown_task_are_refused() -> None:
    with pytest.raises(ValueError, match="no golden answer"):
        label_set_metrics([[]], [["MI"]])
    with pytest.raises(ValueError, match="task='mmmu' is not one of"):
        labels_of_text("A", "mmmu")


@pytest.mark.parametrize(
    ("text", "ours", "pulse"),
    [
        ("B", "B", "B"),
        ("c)", "C", None),
        ("(C)", "C", None),
        ("Option E", "E", None),
        ("Not D. It is B.", "B", "B"),
        ("This is A. Fib", None, "A"),
        ("The correct option is C", "C", "C"),
        ("Answer: Both RBBB and LBBB", None, "B"),
        ("Answer: G. Sinus rhythm", "G", "G"),
        ("**B. Sinus rhythm**", "B", "B"),
        ("The correct option is **B**", "B", None),
        ("D\n\nOption A is wrong.", "D", None),
        ("B) AF\nA) is wrong.", "B", None),
        ("A. Sinus rhythm B. AF C. SVT", None, "A"),  # repeats the options
        ("A) Sinus rhythm\nB) AF\nThe answer is (B).", "B", None),
        ("It is A or it is B", None, None),
        ("Sinus rhythm.", None, None),
        ("", None, None),
    ],
)
def test_letters_by_our_rules_and_by_pulses(text: str, ours: str | None, pulse: str | None) -> None:
    assert parse_choice(text) == ours
    assert extract_letter(text) == pulse


def test_a_letter_that_is_no_option_is_no_answer() -> None:
    assert parse_choice("F", letters="ABCD") is None


def test_options_are_whole_words_in_any_case_and_never_a_guess() -> None:
    options = ["yes", "no", "not sure", "lead I", "lead II"]
    assert parse_options("Not sure.", options) == {"not sure"}
    assert parse_options("Lead II and lead I", options) == {"lead I", "lead II"}
    assert parse_options("lead II", options) == {"lead II"}
    assert parse_options("abnormal", options) is None
    assert qa_accuracy([["not sure"], ["lead ii"]], ["not sure", "lead ii"], "no, not sure, lead i, lead ii") == 0.0
