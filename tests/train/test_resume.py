"""A run that was stopped, killed or finished goes on exactly: weights, moments, randomness and log, bit for bit."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.train.conftest import MakeConfig, differences, saved_state
from train.config import RunConfig, load_recipe, to_toml
from train.log import read_log
from train.loop import run


def state_of(folder: Path, step: int) -> dict[str, Any]:
    """Of a checkpoint of the run."""
    return saved_state(folder / f"checkpoint-{step}")


def halfway(straight: Path, out: Path, log_lines: int) -> RunConfig:
    """A copy of the run as a kill after `log_lines` steps leaves it, and the recipe that goes on from it."""
    config = replace(load_recipe(straight / "config.toml"), out=str(out))
    config.folder.mkdir(parents=True)
    shutil.copytree(straight / "checkpoint-5", config.folder / "checkpoint-5")
    (config.folder / "latest").write_text("checkpoint-5\n")
    lines = (straight / "log.jsonl").read_text().splitlines(keepends=True)[:log_lines]
    (config.folder / "log.jsonl").write_text("".join(lines) + '{"step": 8, "lo')
    (config.folder / "config.toml").write_text(to_toml(config))
    return config


@pytest.mark.parametrize("workers", [0, 1])
def test_ten_steps_are_five_resumed_and_five_more_bit_for_bit(straight: Path, tmp_path: Path, workers: int) -> None:
    config = halfway(straight, tmp_path, 7)
    torch.manual_seed(12345)  # whatever ran before
    torch.rand(17)
    folder = run(replace(config, data=replace(config.data, workers=workers)))
    assert differences(state_of(straight, 10), state_of(folder, 10)) == []
    adapter = "adapter/adapter_model.safetensors"
    assert (folder / adapter).read_bytes() == (straight / adapter).read_bytes()
    exact = ("step", "epoch", "samples", "loss", "lr", "grad_norm")
    ours, theirs = read_log(folder), read_log(straight)
    assert [[line[k] for k in exact] for line in ours] == [[line[k] for k in exact] for line in theirs]
    again = [json.loads(line)["step"] for line in (folder / "log-before-5.jsonl").read_text().splitlines()[:-1]]
    assert again == [1, 2, 3, 4, 5, 6, 7]


def test_bfloat16_and_recomputation_resume_as_exactly(make_config: MakeConfig, tmp_path: Path) -> None:
    compute = {"dtype": "bfloat16", "checkpoint_activations": True}
    config = make_config(compute=compute, optim={"steps": 6}, batch={"accumulate": 1})
    whole = run(replace(config, out=str(tmp_path / "a")))
    folder = run(halfway(whole, tmp_path / "b", 6))
    assert differences(state_of(whole, 6), state_of(folder, 6)) == []


def test_a_killed_process_goes_on_where_its_last_checkpoint_was(straight: Path, root: Path, tmp_path: Path) -> None:
    config = replace(load_recipe(straight / "config.toml"), out=str(tmp_path))
    (tmp_path / "recipe.toml").write_text(to_toml(config))
    command = [sys.executable, "-m", "train", "run", "--recipe", str(tmp_path / "recipe.toml")]
    process = subprocess.Popen(command, cwd=root, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    log, ends = config.folder / "log.jsonl", time.monotonic() + 120
    while time.monotonic() < ends and process.poll() is None:
        if log.exists() and len(log.read_text().splitlines()) >= 6:
            break
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert (config.folder / "latest").exists()
    folder = run(config)
    assert differences(state_of(straight, 10), state_of(folder, 10)) == []


def test_a_finished_run_is_finished(straight: Path, tmp_path: Path) -> None:
    shutil.copytree(straight, tmp_path / "tiny")
    before = (tmp_path / "tiny" / "checkpoint-10" / "progress.json").stat().st_mtime_ns
    folder = run(replace(load_recipe(straight / "config.toml"), out=str(tmp_path)))
    assert (folder / "checkpoint-10" / "progress.json").stat().st_mtime_ns == before
    assert len(read_log(folder)) == 10


# refusal


def test_a_folder_with_a_run_is_refused_unless_it_may_go_on(straight: Path) -> None:
    with pytest.raises(FileExistsError, match="holds a run already; choose another name, or resume"):
        run(replace(load_recipe(straight / "config.toml"), resume="none"))


def test_going_on_with_another_recipe_is_refused(straight: Path) -> None:
    config = load_recipe(straight / "config.toml")
    with pytest.raises(ValueError, match=r"made by another recipe; it differs in: seed \(1 then, 2 now\)"):
        run(replace(config, seed=2))
