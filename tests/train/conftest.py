"""What the tests of training share: a tiny checkpoint with its tokenizer on disk, and a recipe that trains it."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp

from lora import TuneConfig
from minimllama import save_model
from tests.tools.tiny import tiny_model
from train.config import BatchConfig, ComputeConfig, DataConfig, RunConfig, SaveConfig
from train.mixture import ComponentConfig
from train.optim import OptimConfig

MakeConfig = Callable[..., RunConfig]


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, tokenizer_file: Path) -> Path:
    """The tiny model and its tokenizer on disk."""
    folder = tmp_path_factory.mktemp("base") / "checkpoint"
    save_model(tiny_model(), folder)
    (folder / "tokenizer.model").write_bytes(tokenizer_file.read_bytes())
    return folder


def tiny_recipe(out: Path, model: Path) -> RunConfig:
    """Ten steps of two forward passes of two pages with three questions each, with dropout."""
    patients = ComponentConfig(source="simulated", n=7, seed=3, tasks=("rate", "yes_no", "look"), label_set="simulated")
    return RunConfig(
        name="tiny",
        out=str(out),
        model=str(model),
        data=DataConfig(components=(patients,), page="nano", questions_per_image=3, workers=0),
        tuning=TuneConfig(r=3, alpha=6.0, dropout=0.2),
        optim=OptimConfig(peak_lr=0.01, steps=10, warmup=0.25, weight_decay=0.01),
        batch=BatchConfig(images_per_forward=2, accumulate=2),
        compute=ComputeConfig(dtype="float32", device="cpu", threads=1),
        save=SaveConfig(every=5, keep=3),
    )


@pytest.fixture
def make_config(tmp_path: Path, checkpoint: Path) -> MakeConfig:
    """make_config(tuning={"method": "full"}, seed=2): the tiny recipe with some settings replaced."""

    def make(**changes: Any) -> RunConfig:
        config = tiny_recipe(tmp_path / "runs", checkpoint)
        for name, value in changes.items():
            changed = replace(getattr(config, name), **value) if isinstance(value, dict) else value
            config = replace(config, **{name: changed})
        return config

    return make


def differences(a: Any, b: Any, where: str = "") -> list[str]:
    """Where two nested structures of tensors and plain values are not equal, bit for bit."""
    if isinstance(a, dict) and isinstance(b, dict):
        odd = [f"{where}.{key}" for key in a.keys() ^ b.keys()]
        return odd + [d for key in a.keys() & b.keys() for d in differences(a[key], b[key], f"{where}.{key}")]
    if isinstance(a, list | tuple) and isinstance(b, list | tuple) and len(a) == len(b):
        return [d for i, (x, y) in enumerate(zip(a, b, strict=True)) for d in differences(x, y, f"{where}[{i}]")]
    same = torch.equal(a, b) if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor) else a == b
    return [] if same else [where]


def saved_state(checkpoint: Path) -> dict[str, Any]:
    """Everything that a checkpoint holds but the recipe (which names the output folder): whole tensors, and numbers."""
    found = dcp.FileSystemReader(checkpoint / "state").read_metadata().state_dict_metadata
    state: dict[str, Any] = {name: torch.empty(m.size, dtype=m.properties.dtype) for name, m in found.items()}
    dcp.load(state, checkpoint_id=checkpoint / "state", no_dist=True)
    note = json.loads((checkpoint / "progress.json").read_text())
    del note["recipe"]
    random = {path.name: torch.load(path, weights_only=True) for path in checkpoint.glob("random-*.pt")}
    return {**state, "note": note, "random": random}


@pytest.fixture(scope="session")
def straight(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> Path:
    """The folder of an uninterrupted run of ten steps, with checkpoints after five and ten."""
    from train.loop import run

    return run(tiny_recipe(tmp_path_factory.mktemp("straight"), checkpoint))
