"""log.jsonl: one line per step; a continued run keeps what is still true."""

import json
from pathlib import Path

import pytest

from train.log import FILE, StepLog, read_log


def record(step: int, loss: float = 1.0) -> dict:
    return {"step": step, "loss": loss, "lr": 0.1, "images_per_s": 2.0}


def write(folder: Path, steps: range, start: int, n_steps: int = 9, loss: float = 1.0) -> None:
    log = StepLog(folder, start, n_steps)
    for step in steps:
        log.write(record(step, loss), seconds_per_step=2.0)
    log.close()


def test_one_line_per_step_is_there_at_once(tmp_path: Path) -> None:
    log = StepLog(tmp_path, 0, 9)
    log.write(record(1), 2.0)
    assert read_log(tmp_path) == [record(1)]  # before it is closed
    log.write(record(2), 2.0)
    log.close()
    assert [line["step"] for line in read_log(tmp_path)] == [1, 2]


def test_progress_says_step_loss_and_time_left(tmp_path: Path, capsys) -> None:
    write(tmp_path, range(1, 2), 0, n_steps=46)
    shown = capsys.readouterr().err
    assert "step 1/46" in shown
    assert "loss 1.0000" in shown
    assert "lr 1.00e-01" in shown
    assert "90 s" in shown or "1 min" in shown or "1:30" in shown  # 45 steps of 2 seconds


def test_a_continued_run_appends(tmp_path: Path) -> None:
    write(tmp_path, range(1, 4), 0)
    write(tmp_path, range(4, 6), 3)
    assert [line["step"] for line in read_log(tmp_path)] == [1, 2, 3, 4, 5]
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


def test_steps_that_are_done_again_are_kept_apart(tmp_path: Path) -> None:
    write(tmp_path, range(1, 6), 0, loss=1.0)
    write(tmp_path, range(4, 6), 3, loss=2.0)
    assert [(line["step"], line["loss"]) for line in read_log(tmp_path)] == [(1, 1), (2, 1), (3, 1), (4, 2), (5, 2)]
    before = (tmp_path / "log-before-3.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in before] == [1, 2, 3, 4, 5]
    write(tmp_path, range(4, 5), 3, loss=3.0)
    assert (tmp_path / "log-before-3.jsonl").read_text().splitlines() == before
    assert [line["loss"] for line in read_log(tmp_path)] == [1, 1, 1, 3]
    assert json.loads((tmp_path / "log-before-3-2.jsonl").read_text().splitlines()[-1])["loss"] == 2


@pytest.mark.parametrize("rest", ['{"step": 4, "lo', '{"step": 4', "{"])
def test_a_line_that_a_kill_cut_off_is_dropped(tmp_path: Path, rest: str) -> None:
    write(tmp_path, range(1, 4), 0)
    with (tmp_path / FILE).open("a") as file:
        file.write(rest)
    assert [line["step"] for line in read_log(tmp_path)] == [1, 2, 3]
    write(tmp_path, range(4, 5), 3)
    assert [line["step"] for line in read_log(tmp_path)] == [1, 2, 3, 4]
