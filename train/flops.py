"""Floating-point operations of a training step, and what cards can do.

Two per multiply-add. Linear layers are counted one by one from the model; attention from its sizes. What only makes
memory smaller (recomputation) is not counted: the share of the peak is that of useful work. With 512 text tokens, one
448 px page and LoRA of rank 64 on every layer of the 11B: 21.4 TFLOP forward, 47.4 with the backward pass.
"""

from dataclasses import dataclass

import torch
from torch import nn

from lora import LoraLinear
from minimllama import MiniMllama

# Dense bfloat16 peaks, FLOP/s, by a part of the device's name: NVIDIA's data sheets.
PEAKS = {"A100": 312e12, "H100": 989e12, "H200": 989e12, "RTX 4090": 165e12, "L4": 121e12, "A10": 125e12}


@dataclass(frozen=True, kw_only=True)
class Work:
    """How much a step computes.

    Attributes:
        pages: through the vision tower.
        rows, length: of text.
        answers: positions whose vocabulary is computed.
        tiles: most of a page, where unused tile slots are dropped; 0: all slots.
    """

    pages: int
    rows: int
    length: int
    answers: int
    tiles: int = 0

    def slots(self, model: MiniMllama) -> int:
        """Tile slots of a page that are computed; copies count, although they are computed once."""
        vision = model.config.vision
        return self.tiles if self.tiles and vision.drop_unused_tiles else vision.max_tiles


def _uses(name: str, model: MiniMllama, work: Work) -> int:
    """How many tokens go through a linear layer."""
    vision = model.config.vision
    if name.startswith("vision."):
        return work.pages * work.slots(model) * (vision.tokens_per_tile + vision.padding_per_tile)
    is_of_image = name == "projector" or (
        name.endswith(("k_proj", "v_proj")) and int(name.split(".")[2]) in model.config.text.cross_layers
    )
    if is_of_image:
        return work.pages * work.slots(model) * vision.tokens_per_tile
    return work.answers if name == "text.lm_head" else work.rows * work.length


def attention_flops(model: MiniMllama, work: Work) -> tuple[int, int]:
    """Scores and mixing of the vision tower, and of the text model."""
    vision, text = model.config.vision, model.config.text
    sequence = work.slots(model) * (vision.tokens_per_tile + vision.padding_per_tile)
    n_layers = vision.n_local_layers + vision.n_global_layers
    in_vision = work.pages * n_layers * 4 * sequence**2 * vision.width
    keys, n_cross = work.slots(model) * vision.tokens_per_tile, len(text.cross_layers)
    per_position = 4 * text.width * (n_cross * keys + (text.n_layers - n_cross) * work.length)
    return in_vision, work.rows * work.length * per_position


def first_trained(model: MiniMllama) -> int:
    """The first text layer that has something to learn; -1 if what enters the layers has."""
    if model.text.embed_tokens.weight.requires_grad:
        return -1
    return next((i for i, x in enumerate(model.text.layers) if any(p.requires_grad for p in x.parameters())), 10**9)


def _has_backward(name: str, trains_vision: bool, first: int) -> bool:
    """Whether the gradient of a layer's input is computed: only if something trainable lies before it."""
    if name == "projector" or name.startswith("vision."):
        return trains_vision
    return not name.startswith("text.layers.") or int(name.split(".")[2]) >= first


def step_flops(model: MiniMllama, work: Work) -> tuple[float, float]:
    """Forward pass, and forward and backward pass together.

    The backward pass computes the gradient of every layer's input, unless nothing trainable lies before it, and of
    every trained weight.
    """
    trains_vision = any(p.requires_grad for p in model.vision.parameters())
    forward, backward, first = 0.0, 0.0, first_trained(model)
    for name, layer in model.named_modules():
        if not isinstance(layer, nn.Linear):
            continue
        plain = 2.0 * layer.in_features * layer.out_features * _uses(name, model, work)
        low = 0.0
        if isinstance(layer, LoraLinear):
            low = 2.0 * layer.r * (layer.in_features + layer.out_features) * _uses(name, model, work)
        forward += plain + low
        backward += _has_backward(name, trains_vision, first) * plain + 2 * low + layer.weight.requires_grad * plain
    vision = model.config.vision
    patches = 2.0 * work.pages * work.slots(model) * vision.n_patches * 3 * vision.patch_size**2 * vision.width
    in_vision, in_text = attention_flops(model, work)
    forward += patches + in_vision + in_text
    backward += 2.0 * (trains_vision * in_vision + in_text)
    backward += model.vision.patches.weight.requires_grad * patches
    return forward, forward + backward


def peak_flops(device_name: str) -> float | None:
    """FLOP/s of a card in bfloat16, None if it is not known."""
    return next((peak for part, peak in PEAKS.items() if part in device_name), None)


def device_peak(device: torch.device) -> float | None:
    """FLOP/s of this device in bfloat16, None if it is not known."""
    return peak_flops(torch.cuda.get_device_name(device)) if device.type == "cuda" else None
