"""Weights in eight bits with a scale for each output, for generation: half the memory of bfloat16.

w = s q, where s is the largest |w| of the output's row over 127 and q is rounded to the nearest integer. Nothing is
calibrated and activations stay as they are. What it costs in quality and what it takes: docs/performance.md.

Shapes: N rows of input, D inputs, O outputs.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minimllama.model import MiniMllama
from minimllama.packed import ComputingLinear, replace_linears

FEW = 8  # rows of input up to which torch's product with int8 weights beats widening them first, on CPUs
AT_ONCE = 4096  # outputs that are rounded at a time, in float32


def quantise(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Integers of the weight's shape, and one scale per output, in the weight's dtype.

    The scales are rounded to that dtype before they divide, so that their own rounding costs nothing.
    """
    parts, scales = [], []
    for rows in weight.split(AT_ONCE):
        wide = rows.float()
        scale = (wide.abs().amax(1) / 127).clamp(min=1e-12).to(weight.dtype)
        parts.append((wide / scale.float()[:, None]).round().clamp(-127, 127).to(torch.int8))
        scales.append(scale)
    return torch.cat(parts), torch.cat(scales)


class Int8Linear(ComputingLinear):
    """A linear layer whose weight is int8, with one scale per output."""

    quantised: Tensor
    scale: Tensor

    def __init__(self, base: nn.Linear) -> None:
        super().__init__(base)
        quantised, scale = quantise(base.weight.detach())
        self.register_buffer("quantised", quantised)
        self.register_buffer("scale", scale)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the name that nn.Linear gives it
        """input: [..., D] -> [..., O]; without gradients."""
        x = input.reshape(-1, self.in_features)  # [N, D]
        if x.device.type == "cpu" and len(x) <= FEW and self.in_features % 16 == 0 and self.out_features % 16 == 0:
            y = torch.ops.aten._weight_int8pack_mm(x.contiguous(), self.quantised, self.scale)  # [N, O]
        else:
            y = F.linear(x, self.quantised.to(x.dtype)) * self.scale  # [N, O]
        y = y if self.bias is None else y + self.bias
        return y.view(*input.shape[:-1], -1)

    def rows(self, outputs: Sequence[int]) -> Tensor:
        """The weight's rows of these outputs, as they compute, in float32."""
        chosen = list(outputs)
        return self.quantised[chosen].float() * self.scale[chosen].float()[:, None]


def quantise_weights(model: MiniMllama) -> MiniMllama:
    """Replace the text model's linear layers, lm_head included, in place and for good, one after the other.

    Raises:
        TypeError: if a layer has an adapter; merge it first.
    """

    def make(layer: nn.Linear) -> nn.Linear:
        if isinstance(layer, ComputingLinear):  # holds layers of its own, or is done
            return layer
        if type(layer) is not nn.Linear:
            raise TypeError(f"int8 is for plain linear layers, not for a {type(layer).__name__}: merge adapters first")
        return Int8Linear(layer)

    return replace_linears(model, make)
