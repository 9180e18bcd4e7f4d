"""Table I: every number beside the trivial baselines, on the same records or not at all."""

import json
from pathlib import Path
from typing import Any

import pytest

from eval.score import ScoreConfig, count_cut_off, score
from eval.tables import (
    COLUMNS,
    HEADINGS,
    Row,
    check_comparable,
    format_table,
    format_value,
    paper_table,
    rows_of,
    table_json,
    table_text,
)


@pytest.fixture(scope="module")
def models(predictions: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("scores")
    return {
        name: score(
            ScoreConfig(
                predictions=predictions[f"{name}-test"],
                validation=predictions[f"{name}-validate"],
                out=folder / f"{name}.json",
            )
        )
        for name in ("base", "tuned")
    }


# equation


def test_columns_are_padded_to_their_widest_cell() -> None:
    table = format_table(("model", "AUC"), [("a", "0.5"), ("longer", "0.123")])
    assert table.splitlines() == ["model     AUC", "-------------", "a         0.5", "longer  0.123"]


@pytest.mark.parametrize(
    ("column", "value", "shown"),
    [
        ("auc", 0.98765, "0.988"),
        ("auc", None, "-"),
        ("unparsed", 3, "3"),
        ("report_score", 85.44, "85.4"),
        ("hamming", 0, "0.000"),
    ],
)
def test_numbers_are_shown_as_the_paper_prints_them(column: str, value: float | None, shown: str) -> None:
    assert format_value(column, value) == shown


# property


def test_trivial_baselines_come_first_and_every_model_has_a_row(models: dict[str, dict[str, Any]]) -> None:
    for protocol in ("superclass", "statements"):
        rows = rows_of(models, protocol)
        trivial = ["nothing", "all normal", "prevalence coin", "fair coin", "reference copied"]
        assert [row.name for row in rows] == [*trivial, "base", "tuned"]
        assert rows[1].values["report_score"] == models["base"]["report"]["constant_report"]
        assert rows[4].values == {"report_score": 100.0}
        assert rows[5].values["auc"] == models["base"]["protocols"][protocol]["from_scores"]["macro_auc"]


def test_the_text_says_what_was_measured_on_what(models: dict[str, dict[str, Any]]) -> None:
    text = table_text(models)
    for name in ("5 superclasses", "all statements", "SIMULATED records, not patients", "seed 5", "split test"):
        assert name in text
    assert "7 validation records" in text
    n = models["base"]["protocols"]["statements"]["from_scores"]["n"]
    assert f"all statements: n = {n}" in text
    rows = [line.split() for line in text.splitlines() if line.startswith(("base", "tuned"))]
    assert len(rows) == 4
    n_bounds = sum(part.startswith("(") for part in rows[0])
    assert n_bounds > 0
    assert all(len([part for part in row if not part.startswith("(")]) == 1 + len(COLUMNS) for row in rows)
    assert all(heading in text for heading in HEADINGS)


def test_the_json_has_the_contracts_numbers_for_both_protocols(models: dict[str, dict[str, Any]]) -> None:
    table = json.loads(
        json.dumps(table_json({"baseline": models["base"], "fine_tuned": models["tuned"]}), allow_nan=False)
    )
    for name in ("baseline", "fine_tuned"):
        for protocol in ("superclass", "statements"):
            assert {"auc", "macro_f1", "hamming", "report_score"} <= table[name][protocol].keys()
            assert 0 <= table[name][protocol]["hamming"] <= 1
            assert 0 <= table[name][protocol]["report_score"] <= 100
    assert set(table["trivial"]["statements"]) == {"nothing", "all normal", "prevalence coin", "fair coin"}
    assert table["about"]["synthetic"] is True


def test_the_papers_numbers_stand_beside_ours_with_what_they_can_mean(models: dict[str, dict[str, Any]]) -> None:
    text = paper_table(models)
    rows = {line[: len("Hamming loss")].strip(): line.split() for line in text.splitlines()}
    assert rows["AUC"][1:3] == ["0.510", "0.980"]
    assert rows["Hamming loss"][2:4] == ["0.490", "0.110"]
    ours = models["tuned"]["protocols"]["superclass"]["from_scores"]["macro_auc"]
    assert rows["AUC"][4] == format_value("auc", ours)
    assert "without label set, split, n, interval" in text
    assert text in table_text(models)


def test_an_interval_stands_in_brackets_and_that_labels_were_lost_is_said(models: dict[str, dict[str, Any]]) -> None:
    row = Row(
        name="m", protocol="superclass", values={"auc": 0.81234, "intervals": {"auc": [0.7, 0.9]}, "hamming": 0.5}
    )
    assert row.shown("auc") == "0.812 (0.700-0.900)"
    assert row.shown("hamming") == "0.500"
    drawn = models["base"]["protocols"]["statements"]["from_scores"]["intervals"]
    assert f"{drawn['n_draws']} draws of {drawn['n_patients']} patients" in table_text(models)
    assert ("some of which lack a label" in table_text(models)) is not drawn["complete"]


# refusal


@pytest.mark.parametrize("key", ["suite", "split", "n", "seed"])
def test_models_scored_on_different_records_do_not_share_a_table(models: dict[str, dict[str, Any]], key: str) -> None:
    other = {**models["tuned"], "settings": {**models["tuned"]["settings"], key: "other"}}
    mixed = {"base": models["base"], "tuned": other}
    for function in (check_comparable, table_text, table_json):
        with pytest.raises(ValueError, match="scored on different records"):
            function(mixed)


def test_a_model_without_the_whole_of_the_records_is_refused(models: dict[str, dict[str, Any]]) -> None:
    base = models["base"]
    with pytest.raises(ValueError, match="scored on different records"):
        table_text({"all": base, "killed": {**base, "n_records": base["n_records"] - 1}})


def test_the_last_line_says_where_each_model_has_its_thresholds_and_scores_from(
    models: dict[str, dict[str, Any]],
) -> None:
    base = models["base"]
    last = table_text({"a": base, "b": {**base, "n_validation": None, "scores": "label_list"}}).splitlines()[-1]
    assert "from a: the log-odds of yes against no; b: the log-likelihood of the label's name" in last
    assert "a: thresholds with the best F1 on 7 validation records; b: none without validation records;" in last


def test_answers_that_were_cut_off_are_counted(models: dict[str, dict[str, Any]]) -> None:
    turns = {"text": "b", "ended": True, "turns": [{"text": "a", "ended": False}, {"text": "b", "ended": True}]}
    lines = [{"texts": {"report": {"text": "x", "ended": ended}, "arena": turns}} for ended in (True, False, False)]
    assert count_cut_off(lines) == {"report": 2, "arena": 3}
    told = table_text({"m": {**models["base"], "cut_off": {"report": 2}}})
    assert told.endswith("Answers that were cut off at max_new_tokens: m's 2 of report.")
