"""The size at which both implementations are compared, its random checkpoint, and the inputs of every benchmark.

"mid" is the published 11B with every width and depth divided by four: 228 M parameters, and 17 M in adapters of
rank 64 on its 131 linear layers. Tile and patch are the real ones, so an image costs as many vision tokens.

Shapes: B samples, T text tokens, I = 1 image slot, K tile slots.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from lora import TuneConfig, apply_tuning, save_adapter
from lora.peft_format import adapted_layers
from minimllama import ImageBatch, ImageTransform, MiniMllama, ModelConfig, image_visibility, save_model
from minimllama.chat import NO_LABEL
from minimllama.init import initialise
from minimllama.sizes import TextConfig, VisionConfig, aspect_ratios

MID = ModelConfig(
    vision=VisionConfig(
        width=320, n_heads=4, mlp_width=1280, n_local_layers=8, n_global_layers=2, taps=(0, 1, 3, 5, 7)
    ),
    text=TextConfig(
        width=1024,
        mlp_width=3584,
        n_layers=10,
        n_heads=8,
        n_kv_heads=2,
        cross_layers=(3, 8),
        vocab_size=32000,
        bos_id=1,
        eos_ids=(2,),
        pad_id=3,
    ),
    image_token_id=32000,
)
R, ALPHA, DROPOUT = 64, 128, 0.05  # the paper's adapters
CANVASES = {1: (448, 448), 2: (896, 448), 3: (1344, 448), 4: (896, 896)}  # tiles -> width, height of the page


@torch.no_grad()
def clear_unused_slots(model: MiniMllama) -> MiniMllama:
    """Zeros where published tables have them: positions of tile slots that a grid does not use, and of no image."""
    n_slots = model.config.vision.max_tiles
    for module in (model.vision.pre_tile, model.vision.positions, model.vision.post_tile):
        slots = module.table.unflatten(-1, (n_slots, -1))
        slots[0] = 0
        for i, (rows, columns) in enumerate(aspect_ratios(n_slots), start=1):
            slots[i, rows * columns :] = 0
    return model


def write_checkpoint(folder: Path, shard_bytes: int = 120_000_000) -> None:
    """Random weights in bfloat16, sharded, with an adapter whose B is not zero in `folder`/adapter; kept if there."""
    if (folder / "adapter" / "adapter_config.json").exists():
        return
    generator = torch.Generator().manual_seed(0)
    model = clear_unused_slots(initialise(MiniMllama(MID, "hf"), generator))  # the adapter is compared in that mode
    save_model(model.to(torch.bfloat16), folder, max_shard_bytes=shard_bytes)
    apply_tuning(model, TuneConfig(r=R, alpha=ALPHA, dropout=DROPOUT))
    for layer in adapted_layers(model).values():
        torch.nn.init.normal_(layer.lora_B, std=0.01, generator=generator)
    save_adapter(model, folder / "adapter")


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What both implementations are given.

    Attributes:
        tokens: int64 [B, T]: bos, image token, random text.
        labels: int64 [B, T], already shifted; -100 but for the last `n_supervised` predictions.
        images: one page per sample.
        visible: bool [B, T, 1, K].
    """

    tokens: Tensor
    labels: Tensor
    images: ImageBatch
    visible: Tensor


def as_keywords(inputs: Inputs) -> dict[str, Tensor]:
    """What transformers' forward takes."""
    return {
        "input_ids": inputs.tokens,
        "attention_mask": torch.ones_like(inputs.tokens),
        "pixel_values": inputs.images.pixels,
        "aspect_ratio_ids": inputs.images.aspect_ratio_ids,
        "aspect_ratio_mask": inputs.images.tile_mask.long(),
        "cross_attention_mask": inputs.visible.long(),
    }


def make_inputs(
    batch: int, n_tokens: int, tiles: int, n_supervised: int = 64, seed: int = 0, config: ModelConfig = MID
) -> Inputs:
    """Noise pages that fill `tiles` tiles, and random text."""
    rng = np.random.default_rng(seed)
    width, height = (side * config.vision.tile_size // 448 for side in CANVASES[tiles])
    pages = [Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)) for _ in range(batch)]
    images = ImageTransform(config.vision.tile_size, config.vision.max_tiles)([[page] for page in pages])
    tokens = torch.from_numpy(rng.integers(10, config.text.vocab_size, (batch, n_tokens)))
    tokens[:, 0], tokens[:, 1] = config.text.bos_id, config.image_token_id
    labels = torch.full_like(tokens, NO_LABEL)
    n_supervised = min(n_supervised, n_tokens - 2)
    labels[:, -n_supervised - 1 : -1] = tokens[:, -n_supervised:]
    visible = image_visibility(tokens, images.n_tiles, config.image_token_id, config.vision.max_tiles)
    return Inputs(tokens=tokens, labels=labels, images=images, visible=visible)


def make_questions(
    n_labels: int, n_shared: int = 40, n_own: int = 12, config: ModelConfig = MID
) -> tuple[Tensor, list[Tensor], tuple[int, int]]:
    """One prompt with an image, n_labels continuations of different lengths, and the two answers to compare."""
    rng = np.random.default_rng(1)
    prompt = torch.from_numpy(rng.integers(10, config.text.vocab_size, n_shared))
    prompt[0], prompt[1] = config.text.bos_id, config.image_token_id
    lengths = rng.integers(n_own - 4, n_own + 5, n_labels)
    suffixes = [torch.from_numpy(rng.integers(10, config.text.vocab_size, length)) for length in lengths]
    return prompt, suffixes, (100, 200)
