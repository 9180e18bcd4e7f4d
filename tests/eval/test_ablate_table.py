"""The table of an ablation: paired differences, means over seeds, and costs from the log."""

import json
from pathlib import Path

import numpy as np
import pytest

from eval.ablate_table import draws_of_auc, measured, paired_difference, table_markdown
from eval.score import ScoreConfig, score
from train.ecg import LABEL_SETS


def test_the_draws_are_those_of_the_scored_interval(predictions: dict[str, Path], tmp_path: Path) -> None:
    path = predictions["tuned-test"]
    scored = score(ScoreConfig(predictions=path, bootstrap=60, out=tmp_path / "s.json"))
    wanted = scored["protocols"]["statements"]["from_scores"]["intervals"]["means"]["macro_auc"]
    drawn = draws_of_auc(path, "simulated", "statements", 60)
    assert np.quantile(drawn, [0.025, 0.975]) == pytest.approx(wanted, abs=1e-12)


def test_groups_of_the_statements_are_drawn_from_the_scores_of_all_of_them(tmp_path: Path) -> None:
    codes, lines = LABEL_SETS["statements"].codes, []
    for i in range(6):
        truth = {"labels": ["SR", "LVOLT"] if i % 2 else ["AFIB", "QWAVE"], "superclass": [], "report": None}
        odds = {code: float(code in truth["labels"]) for code in codes}
        lines.append({"id": f"{i}", "patient_id": f"{i}", "truth": truth, "log_odds": {"statements": odds}})
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert draws_of_auc(tmp_path / "p.jsonl", "ptbxl-statements", "form", 9).tolist() == [1.0] * 9


def test_a_model_does_not_differ_from_itself(predictions: dict[str, Path]) -> None:
    path = predictions["tuned-test"]
    assert paired_difference([path], [path], "simulated", "statements", 40) == [0.0, 0.0]


def test_pairs_do_not_depend_on_the_order_of_the_lines(predictions: dict[str, Path], tmp_path: Path) -> None:
    path = predictions["tuned-test"]
    (tmp_path / "turned.jsonl").write_text("\n".join(reversed(path.read_text().splitlines())) + "\n")
    assert paired_difference([path], [tmp_path / "turned.jsonl"], "simulated", "statements", 40) == [0.0, 0.0]


def test_a_perfect_model_is_better_and_both_directions_mirror(predictions: dict[str, Path], tmp_path: Path) -> None:
    lines = [json.loads(line) for line in predictions["base-test"].read_text().splitlines()]
    for line in lines:
        line["log_odds"]["statements"] = {
            code: float(code in line["truth"]["labels"]) for code in line["log_odds"]["statements"]
        }
    perfect = tmp_path / "perfect.jsonl"
    perfect.write_text("".join(json.dumps(line) + "\n" for line in lines))
    there = paired_difference([perfect], [predictions["base-test"]], "simulated", "statements", 40)
    back = paired_difference([predictions["base-test"]], [perfect], "simulated", "statements", 40)
    assert there is not None
    assert back is not None
    assert there[0] > 0
    assert [-back[1], -back[0]] == pytest.approx(there)


def test_costs_are_read_from_the_log(tmp_path: Path) -> None:
    steps = [(8, 4.0, 100), (16, 2.0, 300), (20, 4.0, 200)]  # 2 s, 4 s, and a last half batch in 1 s
    lines = [{"samples": n, "images_per_s": speed, "peak_memory_bytes": peak} for n, speed, peak in steps]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert measured(tmp_path) == {"seconds": 7.0, "peak_memory_bytes": 300.0, "samples": 20.0}


def test_a_table_shows_baselines_and_failures_and_says_what_brackets_are() -> None:
    auc = {"mean": 0.7, "min": 0.6, "max": 0.8, "interval": None}
    row = {"n_seeds": 2, "seeds": [1, 2], "failed": {}, "n_trained": 1234}
    row["protocols"] = {"superclass": {"n": 5, "n_labels": 5, "auc": auc, "macro_f1": auc, "hamming": auc}}
    row |= {"seconds": {"mean": 61.0}, "peak_memory_bytes": {"mean": 2.0**30}, "samples": {"mean": 800.0}}
    lost = {"n_seeds": 0, "seeds": [], "failed": {"b-seed1": "out of memory"}, "n_trained": None}
    result = {"name": "x", "question": "Why?", "reference": "a", "seeds": [1, 2], "synthetic": True}
    result |= {"n_validation": 6, "rows": {"a": row, "b": lost}}
    result["trivial"] = {"superclass": {"nothing": {"macro_auc": 0.5, "macro_f1": 0.0, "hamming": 0.2}}}
    text = table_markdown(result)
    assert "| nothing | 0.500 | 0.000 | 0.200 |" in text
    assert "| **a** | 0.700 (0.600-0.800) |" in text
    assert "smallest and largest of the seeds" in text
    assert "SIMULATED records, not patients" in text
    assert "| **a** | 1,234 | 1:01 | 1,024 | 800 | 2 |" in text
    assert "**b-seed1 failed**: out of memory" in text
