"""Training, generation and scoring where the model's memory is not the host's: see tests/tools/accelerator.py."""

import os
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lora import TuneConfig, apply_tuning
from minimllama import ImageBatch, ImageTransform, MiniMllama, generate, next_token_logits
from minimllama.visibility import see
from tests.tools.accelerator import DEVICE, Imagined, on_accelerator
from tests.tools.tiny import TINY, pictures, prompt, with_text, with_vision
from train.dataset import Batch
from train.distributed import World
from train.optim import MasterAdamW, OptimConfig
from train.step import train_step

SMALL = with_text(with_vision(TINY, n_local_layers=1, n_global_layers=1, taps=(0,)), n_layers=2, cross_layers=(1,))
PROMPTS = [prompt(9, 1, image_at=[3]), prompt(6, 2, image_at=[1])]

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="a device can be imagined in a fork only")


def on_device() -> MiniMllama:
    torch.set_default_dtype(torch.bfloat16)
    with torch.device(DEVICE):
        model = MiniMllama(SMALL)
    torch.set_default_dtype(torch.float32)
    return model


def batch_of(n_tiles: list[int], sample_of_row: list[int]) -> Batch:
    tokens = torch.stack([prompt(16, row, image_at=[2]) for row in range(len(sample_of_row))])
    labels = torch.full_like(tokens, -100)
    labels[:, 5:] = tokens[:, 5:]
    counts = [[n] for n in n_tiles]
    return Batch(
        tiles=torch.zeros(len(n_tiles), 4, 3, 12, 12, dtype=torch.uint8),
        aspect_ratio_ids=torch.ones(len(n_tiles), dtype=torch.int64),
        n_tiles=n_tiles,
        tokens=tokens,
        labels=labels,
        sight=see(tokens, counts, SMALL, sample_of_row=sample_of_row),
        record_ids=[str(i) for i in range(len(n_tiles))],
    )


def train(mode: Imagined, batch: Batch) -> int:
    """A step with pages of one and two tiles, one of which has two questions; returns how often the host waited."""
    model = on_device().train()
    apply_tuning(model, TuneConfig(r=3, alpha=6.0, dropout=0.2))
    transform, world = ImageTransform(12, 4), World(device=torch.device(DEVICE))
    setup: Any = SimpleNamespace(
        model=model, device=world.device, world=world, transform=transform, config=SimpleNamespace(shard=None)
    )
    optimizer, before = MasterAdamW(model, OptimConfig()), mode.waits
    train_step(setup, [batch], optimizer, 1e-3)
    assert {str(p.device) for p in (*model.parameters(), *optimizer.masters.values())} == {DEVICE}
    return mode.waits - before


def answer(images: ImageBatch) -> None:
    model = on_device().eval()
    with torch.no_grad():
        states = model.encode(images.to(DEVICE))
    rows = generate(model, PROMPTS, images, max_new_tokens=2, states=states)
    assert [len(row) for row in rows] == [11, 8]
    suffixes = [prompt(3, 3)[1:], prompt(5, 4)[1:]]
    assert next_token_logits(model, PROMPTS, suffixes, [10, 11], images, states=states).shape == (2, 2, 2)


def test_training_generation_and_scoring_keep_devices_apart_and_no_layer_waits_for_the_device() -> None:
    batch, images = batch_of([2, 1], [0, 1, 1]), pictures([[(20, 12)], [(12, 12)]])

    def use(mode: Imagined) -> None:
        with pytest.raises(RuntimeError, match=r"same device|two different devices"):
            torch.zeros(3, device=DEVICE) + torch.zeros(3)
        waits = train(mode, batch)
        assert waits < 20, waits  # per batch: its pages' scale, positions, masks, loss and norm; a layer would add ten
        answer(images)

    on_accelerator(use)
