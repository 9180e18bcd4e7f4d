"""Rotary position embedding with Llama 3.1's frequency scaling.

Sources: Su et al. 2021, Eq. 34 (arXiv:2104.09864); scaling: llama-models, models/llama3/model.py,
apply_scaling. Pairs are halves (element i with i + E / 2), as in the Hugging Face files; checkpoint/meta.py
permutes Meta's interleaved pairs once, on loading.

Shapes: B rows, T tokens, H heads, E features per head, F = E / 2 frequencies.
"""

import math

import torch
from torch import Tensor

from minimllama.config import RopeConfig


def rope_frequencies(config: RopeConfig, head_width: int) -> Tensor:
    """Angle per position of each pair, float32 [F], on the CPU.

    Wavelengths below original / high_freq_factor keep their frequency, those above original / low_freq_factor
    are slowed down by `factor`, and those between are interpolated.
    """
    exponents = torch.arange(0, head_width, 2, device="cpu").float() / head_width  # [F]
    frequencies = 1.0 / config.theta**exponents  # [F]
    wavelengths = 2 * math.pi / frequencies  # [F]
    low, high = config.low_freq_factor, config.high_freq_factor
    smooth = (config.original_positions / wavelengths - low) / (high - low)  # [F]
    between = (1 - smooth) * frequencies / config.factor + smooth * frequencies  # [F]
    is_long = wavelengths > config.original_positions / low
    is_short = wavelengths < config.original_positions / high
    return torch.where(is_short, frequencies, torch.where(is_long, frequencies / config.factor, between))  # [F]


def rope_cos_sin(positions: Tensor, frequencies: Tensor) -> tuple[Tensor, Tensor]:
    """Cos and sin of every angle.

    Args:
        positions: int [B, T].
        frequencies: [F], of `rope_frequencies`, on the positions' device.

    Returns:
        Two float32 tensors [B, 1, T, F]; the 1 stands for the heads.
    """
    angles = positions[:, None, :, None].float() * frequencies  # [B, 1, T, F]
    return angles.cos(), angles.sin()


def apply_rope(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate each pair (x_i, x_{i + F}) by its angle, in float32.

    Args:
        x: [B, H, T, E].
        cos, sin: [B, 1, T, F].

    Returns:
        [B, H, T, E] in x's dtype.
    """
    first, second = x.float().chunk(2, dim=-1)
    rotated = torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)  # [B, H, T, E]
    return rotated.to(x.dtype)
