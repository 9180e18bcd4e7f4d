"""python -m eval, as it is called, from a checkpoint to a table and a report."""

import json
from pathlib import Path

import pytest
import torch

from eval.__main__ import main
from train.distributed import World


def test_the_whole_way_from_predictions_to_table_and_report(checkpoint: Path, tmp_path: Path, capsys) -> None:
    def path(name: str) -> str:
        return str(tmp_path / name)

    common = ["--model", str(checkpoint), "--n", "4", "--seed", "5", "--max-new-tokens", "4"]
    assert main(["predict", *common, "--split", "validate", "--texts", "--out", path("validate.jsonl")]) == 0
    assert main(["predict", *common, "--split", "test", "--out", path("test.jsonl")]) == 0
    files = ["--predictions", path("test.jsonl"), "--validation", path("validate.jsonl")]
    assert main(["score", *files, "--out", path("scores.json")]) == 0
    shown = capsys.readouterr().out
    assert f"wrote {path('test.jsonl')}" in shown
    assert "SIMULATED records" in shown
    scores = f"baseline={path('scores.json')}"
    assert main(["table", "--scores", scores, "--out", path("table.json")]) == 0
    assert "fair coin" in capsys.readouterr().out
    assert set(json.loads((tmp_path / "table.json").read_text())) == {"baseline", "trivial", "about"}
    arguments = ["--scores", scores, "--predictions", f"baseline={path('test.jsonl')}", "--pages", "1"]
    assert main(["report", *arguments, "--out", path("report.html")]) == 0
    assert (tmp_path / "report.html").read_text().startswith("<!doctype html>")


def test_two_reports_are_judged(capsys) -> None:
    assert main(["judge", "--reference", "Sinus rhythm. Normal ECG.", "--candidate", "Normal ECG. Sinus rhythm."]) == 0
    verdict = json.loads(capsys.readouterr().out)
    assert verdict == {"score": 100.0, "criteria": {"diagnosis": 10.0, "waveform": 10.0, "rhythm": 10.0}}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "usage: python -m eval {predict,join,score,judge,judge-llm,table,report"),
        (["guess"], "usage: python -m eval {predict,join,score"),
        (["predict", "--model", "nowhere", "--out", "OUT"], "error: model='nowhere' is neither"),
        (["score", "--predictions", "nowhere.jsonl", "--out", "OUT"], "error: "),
        (["judge", "--reference", "a", "--candidate", "b", "--judge", "gpt"], "error: judge='gpt' is not one of rules"),
        (["table", "--scores", "a.json"], "error: --scores takes name=file pairs"),
        (["report", "--scores", "a=b.json", "--predictions", "a=c.jsonl"], "error: --scores: no file b.json"),
    ],
)
def test_wrong_input_is_one_line_and_exit_code_2(arguments: list[str], message: str, tmp_path: Path, capsys) -> None:
    assert main([str(tmp_path / "out") if part == "OUT" else part for part in arguments]) == 2
    assert capsys.readouterr().err.startswith(message)


def test_a_table_is_not_overwritten(tmp_path: Path, predictions: dict[str, Path], capsys) -> None:
    scores = tmp_path / "scores.json"
    assert main(["score", "--predictions", str(predictions["base-test"]), "--out", str(scores)]) == 0
    (tmp_path / "table.json").write_text("precious")
    assert main(["table", "--scores", f"a={scores}", "--out", str(tmp_path / "table.json")]) == 2
    assert "exists" in capsys.readouterr().err
    assert (tmp_path / "table.json").read_text() == "precious"


def test_settings_that_contradict_each_other_end_the_command(capsys) -> None:
    with pytest.raises(SystemExit) as end:
        main(["predict", "--suite", "ptb"])
    assert end.value.code == 2
    assert "suite='ptb' is not one of simulated, wfdb" in capsys.readouterr().err


def test_ranks_wait_long_for_each_other_and_take_no_shard(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    waits: list[int] = []

    def two_ranks(device: str, timeout_seconds: int = 600) -> World:
        waits.append(timeout_seconds)
        return World(device=torch.device(device), size=2)

    monkeypatch.setattr("train.distributed.start", two_ranks)
    assert main(["predict", "--shard", "0/2"]) == 2
    assert "shard='0/2': under torchrun every rank takes its own part" in capsys.readouterr().err
    assert waits == [86_400]  # one part may take hours longer than another


def test_what_the_file_system_refuses_is_one_line(tmp_path: Path, capsys) -> None:
    assert main(["score", "--predictions", str(tmp_path), "--out", str(tmp_path / "s.json")]) == 1
    assert capsys.readouterr().err.startswith("error: [Errno 21] Is a directory")


def test_a_file_that_holds_no_scores_is_named(tmp_path: Path, capsys) -> None:
    (tmp_path / "other.json").write_text("{}")
    assert main(["table", "--scores", f"a={tmp_path / 'other.json'}"]) == 2
    assert capsys.readouterr().err.endswith("other.json was not written by `eval score`\n")
