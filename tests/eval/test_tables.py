"""Table I: every number beside the trivial baselines, on the same records or not at all."""

import json
from pathlib import Path
from typing import Any

import pytest

from eval.score import ScoreConfig, score
from eval.tables import COLUMNS, HEADINGS, check_comparable, format_table, format_value, rows_of, table_json, table_text


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
        assert [row.name for row in rows] == ["nothing", "all normal", "fair coin", "base", "tuned"]
        assert rows[1].values["report_score"] == models["base"]["report"]["constant_report"]
        assert rows[3].values["auc"] == models["base"]["protocols"][protocol]["from_scores"]["macro_auc"]


def test_the_text_says_what_was_measured_on_what(models: dict[str, dict[str, Any]]) -> None:
    text = table_text(models)
    for name in ("5 superclasses", "all statements", "SIMULATED records, not patients", "seed 5", "split test"):
        assert name in text
    assert "7 validation records" in text
    n = models["base"]["protocols"]["statements"]["from_scores"]["n"]
    assert f"all statements: n = {n}" in text
    rows = [line.split() for line in text.splitlines() if line.startswith(("base", "tuned"))]
    assert len(rows) == 4
    assert all(len(row) == 1 + len(COLUMNS) for row in rows)
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
    assert set(table["trivial"]["statements"]) == {"nothing", "all normal", "fair coin"}
    assert table["about"]["synthetic"] is True


# refusal


@pytest.mark.parametrize("key", ["suite", "split", "n", "seed"])
def test_models_scored_on_different_records_do_not_share_a_table(models: dict[str, dict[str, Any]], key: str) -> None:
    other = {**models["tuned"], "settings": {**models["tuned"]["settings"], key: "other"}}
    mixed = {"base": models["base"], "tuned": other}
    for function in (check_comparable, table_text, table_json):
        with pytest.raises(ValueError, match="scored on different records"):
            function(mixed)
