"""Small models, images and texts that every test can build in a second, with sizes that are all different.

Seventeen tokens per tile leave remainder 1 modulo 8, like the real 1601, so padding is exercised the same way.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from PIL import Image

from minimllama import ImageBatch, ImageTransform, MiniMllama, ModelConfig
from minimllama.config import RopeConfig, TextConfig, VisionConfig, aspect_ratios
from minimllama.init import initialise

VOCABULARY = 320  # of the tests' SentencePiece model too
BOS, EOS, PAD, START_HEADER, END_HEADER, EOM, EOT = range(1, 8)  # its control symbols, in train_tokenizer's order
IMAGE = VOCABULARY

TINY = ModelConfig(
    vision=VisionConfig(
        width=20,
        n_heads=2,
        mlp_width=28,
        n_local_layers=5,
        n_global_layers=3,
        taps=(0, 2, 3),
        tile_size=12,
        patch_size=3,
        max_tiles=4,
    ),
    text=TextConfig(
        width=48,
        mlp_width=56,
        n_layers=7,
        n_heads=6,
        n_kv_heads=3,
        cross_layers=(1, 4),
        vocab_size=VOCABULARY,
        n_extra_embeddings=8,
        max_positions=512,
        rope=RopeConfig(theta=10000.0),
        bos_id=BOS,
        eos_ids=(EOS, EOM, EOT),
        pad_id=PAD,
    ),
    image_token_id=IMAGE,
)

TEXTS = [
    "Sinus rhythm at 72 per minute, PR 160 ms, QRS 92 ms, QT 390 ms.",
    "Atrial fibrillation with a rapid ventricular response.",
    "Complete left bundle branch block; QRS 148 ms.",
    "What is shown in this ECG?",
    "Is there ST elevation in V2? yes no",
    "Normal ECG. Left axis deviation. Inferior myocardial infarction.",
]


def tiny_model(seed: int = 0, semantics: str = "meta", config: ModelConfig = TINY) -> MiniMllama:
    """A tiny random model in evaluation mode; every parameter is away from its neutral value.

    The small weights keep the residual streams well above the norms' epsilon; gates are open and differ.
    """
    generator = torch.Generator().manual_seed(seed)
    model = initialise(MiniMllama(config, semantics), generator)
    with torch.no_grad():
        for name, p in sorted(model.named_parameters()):
            noise = torch.randn(p.shape, generator=generator)
            if "gate" in name.split(".")[-1] or "norm" in name or name.endswith("bias"):
                p.add_(0.2 * noise)
    return model.eval()


@torch.no_grad()
def clear_unused_rows(model: MiniMllama) -> MiniMllama:
    """Position tables as published: 0 in the row of "no image", and for the slots that a grid of tiles does not use."""
    n_slots = model.config.vision.max_tiles
    for table in (model.vision.pre_tile.table, model.vision.post_tile.table, model.vision.positions.table):
        rows = table.view(len(table), n_slots, -1)
        rows[0] = 0
        for row, (height, width) in zip(rows[1:], aspect_ratios(n_slots), strict=True):
            row[height * width :] = 0
    return model


def with_vision(config: ModelConfig, **changes: object) -> ModelConfig:
    """The same sizes with other fields of the vision tower."""
    return replace(config, vision=replace(config.vision, **changes))


def with_text(config: ModelConfig, **changes: object) -> ModelConfig:
    """The same sizes with other fields of the text model."""
    return replace(config, text=replace(config.text, **changes))


def picture(width: int, height: int, seed: int = 0, mode: str = "RGB") -> Image.Image:
    """Random grey levels; the same seed gives the same picture."""
    channels = {"L": 1, "RGB": 3, "RGBA": 4}[mode]
    levels = np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)
    return Image.fromarray(levels[..., 0] if channels == 1 else levels)


def pictures(sizes: Sequence[Sequence[tuple[int, int]]], config: ModelConfig = TINY) -> ImageBatch:
    """Random pictures of these (width, height), one list per sample, ready for a model of this configuration."""
    transform = ImageTransform(config.vision.tile_size, config.vision.max_tiles)
    count = iter(range(1000))
    return transform([[picture(*size, seed=next(count)) for size in sample] for sample in sizes])


def prompt(length: int, seed: int, image_at: Sequence[int] = ()) -> torch.Tensor:
    """Random ordinary tokens after a bos, with image tokens at these positions."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(EOT + 1, VOCABULARY, (length,), generator=generator)
    tokens[0] = BOS
    tokens[list(image_at)] = IMAGE
    return tokens


def one_sample(images: ImageBatch, sample: int) -> ImageBatch | None:
    """A batch of this sample alone, without empty slots; None if it has no images."""
    counts = images.n_tiles[sample]
    if not counts:
        return None
    row, slots = slice(sample, sample + 1), len(counts)
    return ImageBatch(
        pixels=images.pixels[row, :slots],
        aspect_ratio_ids=images.aspect_ratio_ids[row, :slots],
        tile_mask=images.tile_mask[row, :slots],
        n_tiles=[counts],
    )
