"""The main job once, on what the repository ships: fine-tune the packaged checkpoint on simulated patients, score both.

Every step is a command that a user would type; it is printed, and run as one, so that a demo that was stopped goes
on where it was.
"""

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from minimllama.console import duration, say

BASE, TUNED = "baseline", "fine_tuned"
ENDINGS = {"scores": "scores.json", "predictions": "test.jsonl", "validation": "validate.jsonl"}  # option: its files


@dataclass(frozen=True, kw_only=True)
class DemoConfig:
    """What the demo does.

    Attributes:
        out: its folder; a finished demo there is moved aside, not overwritten.
        recipe: of the fine-tuning.
        model: a checkpoint's folder, or "nano".
        n_test, n_validation: held-out patients that are reported, and those that choose the thresholds.
        processes: ranks of the fine-tuning, on one thread each.
        seed: of the held-out patients.
    """

    out: Path = Path("runs/demo")
    recipe: Path = Path(__file__).parent.parent / "train" / "recipes" / "demo.toml"
    model: str = "nano"
    n_test: int = 400
    n_validation: int = 600
    processes: int = 2
    seed: int = 77

    def __post_init__(self) -> None:
        if self.processes < 1:
            raise ValueError(f"processes={self.processes} must be positive")
        if min(self.n_test, self.n_validation) < 2:
            raise ValueError(f"n_test={self.n_test} and n_validation={self.n_validation} must be at least 2")


def move_aside(folder: Path) -> None:
    """Rename a finished demo to the first free name with a number."""
    if (folder / "table.json").exists():
        number = 1
        while (target := folder.with_name(f"{folder.name}-{number}")).exists():
            number += 1
        os.rename(folder, target)
        say(f"the finished demo in {folder} is now {target}")


def _predict(config: DemoConfig, name: str, split: str) -> list[str]:
    n = config.n_test if split == "test" else config.n_validation
    adapter = ["--adapter", str(config.out / "training" / "adapter")] if name == TUNED else []
    where = ["--out", str(config.out / f"{name}-{split}.jsonl")]
    held_out = ["--split", split, "--n", str(n), "--seed", str(config.seed)]
    texts = [] if split == "test" else ["--texts"]  # thresholds need scores only
    return ["eval", "predict", "--model", config.model, *adapter, *held_out, *texts, *where]


def _score(config: DemoConfig, name: str) -> list[str]:
    test, validation = (str(config.out / f"{name}-{split}.jsonl") for split in ("test", "validate"))
    return ["eval", "score", "--predictions", test, "--validation", validation, "--out", str(_scores(config, name))]


def _scores(config: DemoConfig, name: str) -> Path:
    return config.out / f"{name}-scores.json"


def steps(config: DemoConfig) -> list[tuple[Path, list[str]]]:
    """Every command of the demo, behind the file whose presence means that it is done.

    Predictions resume by themselves, so the file behind theirs is that of the scoring that needs them.
    """
    out = config.out
    ranks = ["torch.distributed.run", "--standalone", "--nproc-per-node", str(config.processes), "-m"]
    training = [*ranks, "train", "run", "--recipe", str(config.recipe), "--out", str(out), "--name", "training"]
    pairs = {kind: [f"{name}={out / file}" for name, file in _named(kind)] for kind in ENDINGS}
    shown = ["--run", str(out / "training"), "--out", str(out / "report.html")]
    return [
        *((_scores(config, BASE), _predict(config, BASE, split)) for split in ("validate", "test")),
        (_scores(config, BASE), _score(config, BASE)),
        (out / "training" / "adapter" / "adapter_config.json", [*training, "--model", config.model]),
        *((_scores(config, TUNED), _predict(config, TUNED, split)) for split in ("validate", "test")),
        (_scores(config, TUNED), _score(config, TUNED)),
        (
            out / "report.html",
            ["eval", "report", *(word for kind in ENDINGS for word in (f"--{kind}", *pairs[kind])), *shown],
        ),
        (out / "table.json", ["eval", "table", "--scores", *pairs["scores"], "--out", str(out / "table.json")]),
    ]


def _named(kind: str) -> list[tuple[str, str]]:
    return [(name, f"{name}-{ENDINGS[kind]}") for name in (BASE, TUNED)]


def run_demo(config: DemoConfig) -> Path:
    """Run what is not done yet.

    Returns:
        The folder: table.json, report.html, predictions, scores and the run folder `training`.

    Raises:
        RuntimeError: if a command fails; what the others wrote stays.
    """
    move_aside(config.out)
    config.out.mkdir(parents=True, exist_ok=True)
    began = time.perf_counter()
    for done, command in steps(config):
        if done.exists():
            continue
        say(f"\n[{duration(time.perf_counter() - began)}] python -m {' '.join(command)}")
        result = subprocess.run([sys.executable, "-m", *command], check=False)
        if result.returncode:
            raise RuntimeError(f"`python -m {' '.join(command)}` ended with exit code {result.returncode}")
    n_models = len(json.loads((config.out / "table.json").read_text()))
    assert n_models >= 2
    took = duration(time.perf_counter() - began)
    say(f"\n{took} minutes. {config.out / 'table.json'}, {config.out / 'report.html'} (open it in a browser)")
    return config.out
