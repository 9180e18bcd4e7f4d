"""What the tests of scoring share: a tiny model with 256 px tiles, its adapter, and predictions of it."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from eval.predict import PredictConfig, run_predict
from lora import TuneConfig, apply_tuning, save_adapter
from minimllama import save_model
from tests.tools.tiny import TINY, tiny_model, with_vision

CONFIG = with_vision(TINY, tile_size=256, patch_size=64)  # 17 tokens per tile; page style "nano" fills two tiles


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, tokenizer_file: Path) -> Path:
    """The tiny model and its tokenizer on disk."""
    folder = tmp_path_factory.mktemp("base") / "checkpoint"
    save_model(tiny_model(config=CONFIG), folder)
    (folder / "tokenizer.model").write_bytes(tokenizer_file.read_bytes())
    return folder


@pytest.fixture(scope="session")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter with random values for it."""
    model = tiny_model(config=CONFIG)
    apply_tuning(model, TuneConfig(r=3, alpha=12, dropout=0.0))
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if name.endswith("lora_B"):
                p.copy_(0.3 * torch.randn(p.shape, generator=generator))
    folder = tmp_path_factory.mktemp("adapter") / "adapter"
    save_adapter(model, folder)
    return folder


def predict_config(checkpoint: Path, out: Path, **changes: object) -> PredictConfig:
    """Seven patients, three pages at a time, answers of at most six tokens."""
    config = PredictConfig(model=str(checkpoint), n=7, seed=5, batch=3, max_new_tokens=6, out=out)
    return replace(config, **changes)  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def predictions(checkpoint: Path, adapter: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Predictions of base and adapted model on test and validation patients, by "base-test" and so on."""
    folder = tmp_path_factory.mktemp("predictions")
    files = {}
    for name, own in (("base", ""), ("tuned", str(adapter))):
        for split, texts in (("test", ("superclass", "statements", "report")), ("validate", ())):
            out = folder / f"{name}-{split}.jsonl"
            files[f"{name}-{split}"] = run_predict(
                predict_config(checkpoint, out, adapter=own, split=split, texts=texts)
            )
    return files
