"""The demo: its commands run one after the other, a stopped one goes on, a finished one is moved aside."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from eval.__main__ import main as eval_main
from eval.demo import DemoConfig, move_aside, steps

RECIPE = """
name = "tiny"
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


@pytest.fixture
def config(tmp_path: Path, checkpoint: Path) -> DemoConfig:
    (tmp_path / "tiny.toml").write_text(RECIPE)
    return DemoConfig(
        out=tmp_path / "demo",
        recipe=tmp_path / "tiny.toml",
        model=str(checkpoint),
        n_test=3,
        n_validation=3,
        seed=4,
    )


def run(config: DemoConfig, most: int = 99) -> list[str]:
    """The commands that are not done yet, those of eval in this process; returns what was run."""
    ran = []
    for done, command in steps(config)[:most]:
        if not done.exists():
            if command[0] == "eval":
                ran.append(f"eval {command[1]}")
                assert eval_main(command[1:]) == 0
            else:
                ran.append(" ".join(command[command.index("-m") + 1 :][:2]))
                assert subprocess.run([sys.executable, "-m", *command], check=False).returncode == 0

    return ran


def test_every_command_runs_and_the_table_has_both_models(config: DemoConfig) -> None:
    config.out.mkdir()
    first = run(config, most=3)
    assert first == ["eval predict", "eval predict", "eval score"]
    rest = run(config)  # what a demo that was stopped after its third command still does
    assert rest == ["train run", "eval predict", "eval predict", "eval score", "eval report", "eval table"]
    assert run(config) == []
    table = json.loads((config.out / "table.json").read_text())
    for name in ("baseline", "fine_tuned"):
        for protocol in ("superclass", "statements"):
            assert {"auc", "macro_f1", "hamming", "report_score"} <= table[name][protocol].keys()
            assert None not in (table[name][protocol][k] for k in ("macro_f1", "hamming", "report_score"))
    assert (config.out / "report.html").stat().st_size > 10_000


def test_held_out_patients_are_others_than_those_of_the_training() -> None:
    from train.config import load_recipe

    config = DemoConfig()
    components = load_recipe(config.recipe).data.components
    assert all(component.seed != config.seed for component in components)
    commands = [command for _, command in steps(config) if command[:2] == ["eval", "predict"]]
    assert {command[command.index("--split") + 1] for command in commands} == {"validate", "test"}
    assert {command[command.index("--seed") + 1] for command in commands} == {str(config.seed)}


def test_a_finished_demo_is_moved_aside_and_an_unfinished_one_stays(tmp_path: Path) -> None:
    for expected in ("demo-1", "demo-2"):
        (tmp_path / "demo").mkdir()
        (tmp_path / "demo" / "table.json").write_text(expected)
        move_aside(tmp_path / "demo")
        assert (tmp_path / expected / "table.json").read_text() == expected
    (tmp_path / "demo").mkdir()
    move_aside(tmp_path / "demo")
    assert (tmp_path / "demo").is_dir()


def test_too_few_patients_are_refused() -> None:
    with pytest.raises(ValueError, match=r"n_test=1 and n_validation=\d+ must be at least 2"):
        DemoConfig(n_test=1)
