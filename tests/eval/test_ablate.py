"""Ablations run: every variant trained and scored by commands, what is done stays, a failure costs its row only."""

import contextlib
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

from eval.__main__ import main
from eval.ablate import AblateConfig, _settings, call, check_settings, run_ablation, runs_of, steps_of
from eval.ablate_spec import load_ablation
from train.__main__ import main as train_main

RECIPE = """
name = "tiny"
model = "MODEL"
[data]
page = "nano"
questions_per_image = 2
workers = 0
[[data.components]]
source = "simulated"
n = 4
seed = 2024
tasks = ["yes_no"]
label_set = "simulated"
[tuning]
r = 3
alpha = 6.0
[optim]
steps = 2
[batch]
images_per_forward = 2
[compute]
dtype = "float32"
device = "cpu"
threads = 1
"""
ABLATION = """
name = "tiny"
question = "Does it run?"
base = "BASE"
seeds = [1]
[score]
n_test = 4
n_validation = 4
seed = 9
bootstrap = 20
[[variants]]
name = "full"
set.tuning.method = "full"
[[variants]]
name = "broken"
set.data.max_tokens = 3
"""


@pytest.fixture
def ablation(tmp_path: Path, checkpoint: Path) -> Path:
    (tmp_path / "recipe.toml").write_text(RECIPE.replace("MODEL", str(checkpoint)))
    path = tmp_path / "tiny.toml"
    path.write_text(ABLATION.replace("BASE", str(tmp_path / "recipe.toml")))
    return path


def in_this_process(command: list[str]) -> tuple[int, str]:
    """As `call`, without a start of torch for each command."""
    with contextlib.redirect_stderr(io.StringIO()) as errors:
        code = {"train": train_main, "eval": main}[command[0]](command[1:])
    return code, errors.getvalue().strip().rpartition("\n")[2]


def files(folder: Path) -> dict[Path, int]:
    names = ("scores.json", "test.jsonl", "validate.jsonl")
    return {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.name in names}


def test_a_failure_costs_one_row_and_what_is_done_stays(ablation: Path, tmp_path: Path, capfd) -> None:
    out = tmp_path / "out"
    assert run_ablation(AblateConfig(ablation=ablation, out=out), in_this_process) == 1
    shown = capfd.readouterr().out
    assert "python -m train run --recipe" in shown
    assert "**broken-seed1 failed**: `train run` ended with exit code 2: error: " in shown
    table = json.loads((out / "table.json").read_text())
    assert {name: row["n_seeds"] for name, row in table["rows"].items()} == {"untuned": 1, "full": 1, "broken": 0}
    row = table["rows"]["full"]
    assert row["samples"]["mean"] == 4
    assert row["n_trained"] > 0
    assert min(row["seconds"]["mean"], row["peak_memory_bytes"]["mean"]) > 0
    assert {"auc", "macro_f1", "hamming"} <= row["protocols"]["statements"].keys()
    assert "fair coin" in table["trivial"]["superclass"]
    assert (out / "plot.svg").read_text().startswith("<svg")
    before = files(out)
    assert len(before) == 6  # scores, test and validate of two
    assert run_ablation(AblateConfig(ablation=ablation, out=out, only=("broken",)), in_this_process) == 1
    assert {path: when for path, when in files(out).items() if path in before} == before


def test_changed_settings_are_refused_before_anything_runs(ablation: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "out"
    spec = load_ablation(ablation)
    run = runs_of(spec, out)[1]
    run.folder.mkdir(parents=True)
    (run.folder / "settings.json").write_text(json.dumps(_settings(spec, run, 1)))
    check_settings(spec, runs_of(spec, out), 1)
    ablation.write_text(ablation.read_text().replace("n_test = 4", "n_test = 5"))
    assert main(["ablate", "--ablation", str(ablation), "--out", str(out)]) == 2
    told = capsys.readouterr().err
    assert "full-seed1 was made with other settings: score.n_test (4 then, 5 now). Choose another --out" in told
    assert not (out / "untuned").exists()


def test_a_dry_run_shows_commands_and_cost_and_writes_nothing(ablation: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "out"
    words = ["ablate", "--ablation", str(ablation), "--out", str(out), "--preset", "nano", "--dry-run"]
    assert main([*words, "--only", "full"]) == 0
    shown = capsys.readouterr().out
    assert shown.count("python -m train run") == 1
    assert "trained of nano" in shown
    assert not out.exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--only", "r8"], "error: no variant is called 'r8'; there are full, broken"),
        (["--base", "nowhere.toml"], "error: no recipe nowhere.toml"),
        (["--dry-run", "--preset", "1b"], "error: preset='1b' is not one of"),
    ],
)
def test_wrong_input_is_one_line(words: list[str], message: str, ablation: Path, tmp_path: Path, capsys) -> None:
    assert main(["ablate", "--ablation", str(ablation), "--out", str(tmp_path / "out"), *words]) == 2
    assert capsys.readouterr().err.startswith(message)


def test_a_run_goes_on_behind_the_training_that_is_done(ablation: Path, tmp_path: Path) -> None:
    spec = load_ablation(ablation)
    run = runs_of(spec, tmp_path / "out")[1]
    assert next(command[:2] for done, command in steps_of(spec, run, 1) if not done.exists()) == ["train", "run"]
    run.trained().parent.mkdir(parents=True)
    run.trained().write_text("{}")
    left = [command[:2] for done, command in steps_of(spec, run, 1) if not done.exists()]
    assert left == [["eval", "predict"], ["eval", "predict"], ["eval", "score"]]


def test_a_command_tells_its_exit_code_and_its_last_words() -> None:
    assert call(["eval", "guess"]) == (
        2,
        subprocess.run(
            [sys.executable, "-m", "eval", "guess"], capture_output=True, text=True, check=False
        ).stderr.strip(),
    )


def test_no_processes_are_refused() -> None:
    with pytest.raises(ValueError, match="processes=0 must be positive"):
        AblateConfig(ablation=Path("a.toml"), processes=0)
