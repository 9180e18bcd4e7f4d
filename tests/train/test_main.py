"""python -m train, as it is called."""

from pathlib import Path

import pytest

from tests.train.conftest import MakeConfig
from train.__main__ import main
from train.config import load_recipe, to_toml
from train.log import read_log


@pytest.fixture
def recipe(make_config: MakeConfig, tmp_path: Path) -> Path:
    (tmp_path / "recipe.toml").write_text(to_toml(make_config(optim={"steps": 2})))
    return tmp_path / "recipe.toml"


def test_run_trains_as_the_recipe_and_the_overrides_say(recipe: Path, capsys) -> None:
    assert main(["run", "--recipe", str(recipe), "--optim.peak-lr", "1e-4", "--optim.warmup", "0"]) == 0
    folder = load_recipe(recipe).folder
    assert [line["lr"] for line in read_log(folder)] == [1e-4, 5e-5]
    assert load_recipe(folder / "config.toml").optim.peak_lr == 1e-4
    said = capsys.readouterr()
    assert "lora: " in said.out
    assert "2 steps of 4 pages on cpu" in said.out
    assert f"wrote {folder / 'adapter'}" in said.out
    assert "left" in said.err


def test_show_draws_one_sample(recipe: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "page.png"
    assert main(["show", "--recipe", str(recipe), "--position", "2", "--out", str(out)]) == 0
    assert out.is_file()
    assert "tokens carry loss" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "usage: python -m train {run,"),
        (["fit"], "usage: python -m train {run,"),
        (["run", "--recipe", "nowhere.toml"], "error: no recipe nowhere.toml; train/recipes has"),
        (["show", "--recipe", "nowhere.toml"], "error: no recipe nowhere.toml; train/recipes has"),
    ],
)
def test_wrong_input_is_one_line_and_exit_code_2(arguments: list[str], message: str, capsys) -> None:
    assert main(arguments) == 2
    assert capsys.readouterr().err.startswith(message)


def test_a_run_that_is_there_already_is_one_line_too(recipe: Path, capsys) -> None:
    assert main(["run", "--recipe", str(recipe)]) == 0
    capsys.readouterr()
    assert main(["run", "--recipe", str(recipe), "--resume", "none"]) == 2
    assert capsys.readouterr().err.startswith("error: ")
