"""Ablations run: every variant trained and scored by commands, what is done stays, a failure costs its row only."""

import contextlib
import io
import json
import os
import shutil
import signal
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from eval.__main__ import main
from eval.ablate import AblateConfig, _settings, call, check_settings, find_finished, run_ablation, runs_of, steps_of
from eval.ablate_spec import load_ablation
from train.__main__ import main as train_main
from train.log import read_log

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


def write_ablation(folder: Path, checkpoint: Path) -> Path:
    (folder / "recipe.toml").write_text(RECIPE.replace("MODEL", str(checkpoint)))
    path = folder / "tiny.toml"
    path.write_text(ABLATION.replace("BASE", str(folder / "recipe.toml")))
    return path


@pytest.fixture
def ablation(tmp_path: Path, checkpoint: Path) -> Path:
    return write_ablation(tmp_path, checkpoint)


@dataclass(frozen=True, kw_only=True)
class Ran:
    """An ablation that was run: its files, exit code and standard output."""

    ablation: Path
    out: Path
    code: int
    shown: str


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> Ran:
    folder = tmp_path_factory.mktemp("ran")
    config = AblateConfig(ablation=write_ablation(folder, checkpoint), out=folder / "out")
    with contextlib.redirect_stdout(io.StringIO()) as shown, contextlib.redirect_stderr(io.StringIO()):
        code = run_ablation(config, in_this_process)
    return Ran(ablation=config.ablation, out=folder / "out", code=code, shown=shown.getvalue())


def in_this_process(command: list[str]) -> tuple[int, str]:
    """As `call`, without a start of torch for each command."""
    with contextlib.redirect_stderr(io.StringIO()) as errors:
        code = {"train": train_main, "eval": main}[command[0]](command[1:])
    return code, errors.getvalue().strip().rpartition("\n")[2]


def files(folder: Path) -> dict[Path, int]:
    names = ("scores.json", "test.jsonl", "validate.jsonl")
    return {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.name in names}


def test_a_failure_costs_one_row_and_what_is_done_stays(ran: Ran) -> None:
    out = ran.out
    assert ran.code == 1
    assert "python -m train run --recipe" in ran.shown
    assert "**broken-seed1 failed**: `train run` ended with exit code 2: error: " in ran.shown
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
    assert run_ablation(AblateConfig(ablation=ran.ablation, out=out, only=("broken",)), in_this_process) == 1
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


def test_the_untuned_model_has_no_settings_of_training(ablation: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    before = [_settings(spec, run, 1) for spec in [load_ablation(ablation)] for run in runs_of(spec, tmp_path)]
    recipe.write_text(recipe.read_text().replace("steps = 2", "steps = 3"))
    after = [_settings(spec, run, 1) for spec in [load_ablation(ablation)] for run in runs_of(spec, tmp_path)]
    assert [a == b for a, b in zip(before, after, strict=True)] == [True, False, False]
    recipe.write_text(recipe.read_text().replace('page = "nano"', 'page = "tile448"'))
    spec = load_ablation(ablation)
    assert _settings(spec, runs_of(spec, tmp_path)[0], 1) != before[0]


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


def test_a_command_tells_its_exit_code_and_its_last_words(capfd) -> None:
    assert main(["guess"]) == 2
    assert call(["eval", "guess"]) == (2, capfd.readouterr().err.splitlines()[0])


def terminate_after_a_step(log: Path) -> None:
    """Ask this process to stop once a training has written a line."""
    while not log.is_file() or not log.read_text():
        time.sleep(0.02)
    os.kill(os.getpid(), signal.SIGTERM)


def test_a_terminated_ablation_goes_on_in_the_middle_of_a_training(ran: Ran, tmp_path: Path, capsys) -> None:
    text, path, out = ran.ablation.read_text(), tmp_path / "tiny.toml", tmp_path / "out"
    path.write_text(text[: text.rindex("[[variants]]")] + '[[variants]]\nname = "long"\nset.optim.steps = 24\n')
    shutil.copytree(ran.out, out, ignore=shutil.ignore_patterns("broken*"))  # untuned and full are done
    training, before, seen = out / "long-seed1" / "training", files(out), []
    threading.Thread(target=terminate_after_a_step, args=(training / "log.jsonl",), daemon=True).start()
    assert run_ablation(AblateConfig(ablation=path, out=out)) == 1  # commands are processes, as a user's are
    assert "stopped; the same command goes on" in capsys.readouterr().err
    assert 0 < len(read_log(training)) < 24

    def caller(command: list[str]) -> tuple[int, str]:
        seen.append(" ".join(command[:2]))
        return in_this_process(command)

    assert run_ablation(AblateConfig(ablation=path, out=out), caller) == 0
    assert seen == ["train run", "eval predict", "eval predict", "eval score"]  # of "long" only
    assert {path: when for path, when in files(out).items() if path in before} == before
    assert [line["step"] for line in read_log(training)] == list(range(1, 25))
    assert json.loads((out / "table.json").read_text())["rows"]["long"]["samples"]["mean"] == 48


def test_what_another_ablation_has_done_is_taken_from_it(ran: Ran, tmp_path: Path, capsys) -> None:
    path, done = tmp_path / "other.toml", ran.out / "full-seed1"
    text = ran.ablation.read_text().replace('"full"', '"everything"', 1)
    path.write_text(text)
    config = AblateConfig(ablation=path, out=tmp_path / "other", only=("everything",), reuse=(ran.out,))
    assert run_ablation(config, lambda command: (1, f"not to be run: {command}")) == 0
    assert capsys.readouterr().out.count("taken from") == 2  # the untuned model's scores, too
    assert (tmp_path / "other/everything-seed1/scores.json").read_bytes() == (done / "scores.json").read_bytes()
    assert not list((tmp_path / "other").rglob("checkpoint-*"))
    path.write_text(text.replace("n_test = 4", "n_test = 5"))
    spec = load_ablation(path)
    untuned, run, _ = runs_of(spec, tmp_path / "third")
    assert find_finished(spec, untuned, 1, [ran.out]) == []
    assert find_finished(spec, run, 1, [ran.out]) == [done / "training"]  # to be scored on five
    assert find_finished(spec, run, 2, [ran.out]) == []


def test_no_processes_and_absent_folders_are_refused() -> None:
    with pytest.raises(ValueError, match="processes=0 must be positive"):
        AblateConfig(ablation=Path("a.toml"), processes=0)
    with pytest.raises(FileNotFoundError, match="reuse: there is no folder nowhere"):
        AblateConfig(ablation=Path("a.toml"), reuse=(Path("nowhere"),))
