"""benchmarks/gpu.py from end to end, on the CPU with a tiny model."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.gpu import LINES, PAGE, main
from benchmarks.gpu_page import page
from benchmarks.gpu_parts import PARTS
from benchmarks.on_device import Task, attempt, build_ours, build_theirs

ROOT = Path(__file__).resolve().parents[2]
SMALL = "--device cpu --size tiny --length 24 --answers 4 --batches 2 --decode-batches 3 --new-tokens 2 --labels 3"
BUDGET = "--case-seconds 0 --threads 1"
TASK = Task(
    device=torch.device("cpu"), size="tiny", length=24, answers=4, batches=(2,), decode_batches=(3,), new_tokens=2,
    labels=3, case_seconds=0.0,
)  # fmt: skip
KINDS = [name for name in PARTS if "compiled step" not in name and name not in ("card", "profile")]


@pytest.fixture(scope="module")
def rows() -> list[dict]:
    """What the parts yield, run in this process, which saves a start of torch each, and without the compiler."""
    with torch.compiler.set_stance("force_eager"):
        return [{"part": name, **row} for name in KINDS for row in PARTS[name].run(TASK)]


def test_every_part_finds_something_and_nothing_fails(rows: list[dict]) -> None:
    assert {row["part"] for row in rows} == set(KINDS)
    assert [row for row in rows if "error" in row] == []


def test_both_sides_compute_the_same_logits_from_the_same_weights(rows: list[dict]) -> None:
    """In bfloat16, whose numbers are 0.4 % apart; a wrong layer is off by 1."""
    (found,) = [row for row in rows if row["part"] == "agree"]
    assert found["relative_error"] < 0.02


def test_a_step_is_reported_with_its_loss_operations_and_plan(rows: list[dict]) -> None:
    ours = [row for row in rows if row["part"] == "step"]
    assert [row["checkpointing"] for row in ours] == [False, True]
    assert ours[0]["flops"] == ours[1]["flops"] > 0
    assert ours[0]["planned_bytes"] > ours[1]["planned_bytes"] > 0
    assert all(4 < row["loss"] < 9 for row in rows if row["part"].startswith("step"))  # about log(256) = 5.5


def test_weights_are_drawn_on_the_device() -> None:
    """On "meta" nothing can be drawn: only there would a copy through the host be seen as an error."""
    ours, theirs = build_ours("tiny", TASK.device), build_theirs("tiny", TASK.device)
    for model in (ours, theirs):
        assert all(p.dtype == torch.bfloat16 and bool(p.isfinite().all()) for p in model.parameters())
    assert all(bool(buffer.isfinite().all()) for buffer in theirs.buffers())


def test_a_failing_case_is_a_result_with_its_message() -> None:
    def fails() -> dict:
        raise RuntimeError("CUDA out of memory\nmore")

    assert attempt({"batch": 4}, fails) == {"batch": 4, "error": "RuntimeError: CUDA out of memory"}


def test_the_script_runs_as_a_file_and_stops_a_part_that_takes_too_long(tmp_path: Path) -> None:
    """`python benchmarks/gpu.py`: the page and the lines are there after each part, the budget's end among them."""
    options = f"--out {tmp_path} {SMALL} {BUDGET} --only build step --slower 0.02".split()  # 1.2 s for the steps
    done = subprocess.run([sys.executable, "benchmarks/gpu.py", *options], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in (tmp_path / LINES).read_text().splitlines()]
    assert {"part": "step", "error": "ended after its 1 s"} in lines
    assert "ended after its 1 s" in (tmp_path / PAGE).read_text()


def test_a_part_that_comes_too_late_is_not_started(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(f"--out {tmp_path} {SMALL} --seconds 5 --only step".split()) == 0
    assert "not run: the 5 s of the whole script are used" in (tmp_path / PAGE).read_text()


def test_the_page_has_a_ratio_for_what_both_sides_did(rows: list[dict]) -> None:
    run = {
        "part": "run", "hardware": "x", "peak_flops": 1e12, "size": "tiny", "date": "", "versions": "", "command": "",
        "with_theirs": True, "note": "", "length": 24, "answers": 4,
    }  # fmt: skip
    text = page([run, *rows])
    (line,) = [line for line in text.splitlines() if line.startswith("| batch 2, checkpointing |")]
    ours, theirs = (next(r for r in rows if r["part"] == p and r["checkpointing"]) for p in ("step", "step, theirs"))
    assert f"**{theirs['seconds'][0] / ours['seconds'][0]:.2f}**" in line
    assert sum(line.startswith("| 3, compiled |") for line in text.splitlines()) == 1


def test_the_script_needs_no_package_beside_four() -> None:
    """Everything it imports before transformers' side, with the product's other packages blocked."""
    code = (
        "import sys\n"
        "for name in ('tyro', 'tiktoken', 'sentencepiece', 'sklearn', 'scipy', 'transformers', 'peft'):\n"
        "    sys.modules[name] = None\n"
        "import benchmarks.gpu, benchmarks.__main__\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
