"""Shared by the tests of adapters: a checkpoint on disk, adapters that do something, the same model in transformers."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lora import LoraLinear, TuneConfig, apply_tuning
from minimllama import ImageBatch, MiniMllama, save_model
from tests.tools.tiny import TINY, pictures, prompt, tiny_model

TUNE = TuneConfig(r=3, alpha=6, dropout=0.0)


def stir(model: MiniMllama, seed: int = 5) -> MiniMllama:
    """Give every adapter random values, so that it changes something."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, LoraLinear):
                for p in (module.lora_A, module.lora_B):
                    p.copy_(0.3 * torch.randn(p.shape, generator=generator) / p.shape[1] ** 0.5)
    return model


def adapted_model(semantics: str = "meta", tune: TuneConfig = TUNE) -> MiniMllama:
    """The tiny model with stirred adapters."""
    model = tiny_model(0, semantics)
    apply_tuning(model, tune)
    return stir(model)


@pytest.fixture(scope="session")
def images() -> ImageBatch:
    """Two samples with one picture each, of one and of two tiles."""
    return pictures([[(12, 9)], [(30, 11)]])


@pytest.fixture(scope="session")
def tokens() -> Tensor:
    """Two rows; both see their picture from the third token on, so all semantics but the taps agree about them."""
    return torch.stack([prompt(9, 1, image_at=[2]), prompt(9, 2, image_at=[2])])


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, tokenizer_file: Path) -> Path:
    """The tiny model and its tokenizer on disk."""
    folder = tmp_path_factory.mktemp("base") / "checkpoint"
    save_model(tiny_model(), folder)
    (folder / "tokenizer.model").write_bytes(tokenizer_file.read_bytes())
    return folder


@pytest.fixture
def open_in_transformers(checkpoint: Path) -> Callable[[], Any]:
    """open_in_transformers(): the same checkpoint as transformers loads it, a new copy each time."""
    from transformers import MllamaForConditionalGeneration

    return lambda: MllamaForConditionalGeneration.from_pretrained(checkpoint, dtype=torch.float32).eval()


def transformers_inputs(tokens: Tensor, images: ImageBatch) -> dict[str, Tensor]:
    """Our batch as transformers takes it; each row sees the tiles of its one picture from its image token on."""
    mask = torch.zeros(*tokens.shape, 1, TINY.vision.max_tiles, dtype=torch.long)
    for row, (ids, tiles) in enumerate(zip(tokens.tolist(), images.n_tiles, strict=True)):
        mask[row, ids.index(TINY.image_token_id) :, 0, : tiles[0]] = 1
    return {
        "input_ids": tokens,
        "attention_mask": torch.ones_like(tokens),
        "pixel_values": images.pixels,
        "aspect_ratio_ids": images.aspect_ratio_ids,
        "aspect_ratio_mask": images.tile_mask.long(),
        "cross_attention_mask": mask,
    }


def images_of(inputs: dict[str, Tensor]) -> ImageBatch:
    """The other way round: images as the reference files hold them."""
    ids, mask = inputs["aspect_ratio_ids"], inputs["aspect_ratio_mask"]
    n_tiles = [[int(n) for n, i in zip(m.sum(-1), row, strict=True) if i] for m, row in zip(mask, ids, strict=True)]
    return ImageBatch(pixels=inputs["pixel_values"], aspect_ratio_ids=ids, tile_mask=mask.bool(), n_tiles=n_tiles)
