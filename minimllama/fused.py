"""Weights that read one input as one matrix: queries, keys and values, and the two halves of SwiGLU.

One product of many outputs keeps a GPU or the memory channels of a CPU busier than three of few. The numbers are those
of the separate products up to the order of their sums. For merged models: layers with adapters stay as they are.

Shapes: D inputs, O outputs of one layer.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from minimllama.layers import SwiGLU
from minimllama.model import MiniMllama
from minimllama.packed import ComputingLinear, rows_of
from minimllama.text import CrossAttention, SelfAttention

GROUPS = {
    SelfAttention: ("q_proj", "k_proj", "v_proj"),
    CrossAttention: ("k_proj", "v_proj"),
    SwiGLU: ("gate_proj", "up_proj"),
}


class FusedLinear(ComputingLinear):
    """One of several layers whose weights are one matrix, which the first of them holds.

    Args:
        base: the layer to replace.
        start: where its outputs begin among those of all.
        first: of the layers; None for the first itself.
        joint: the layer of all outputs; for the first only.
    """

    def __init__(self, base: nn.Linear, start: int, first: "FusedLinear | None", joint: nn.Linear | None) -> None:
        super().__init__(base)
        self.start = start
        self.first = (first or self,)  # in a tuple, so that it is no child
        if joint is not None:
            self.joint = joint

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the name that nn.Linear gives it
        """input: [..., D] -> [..., O]."""
        return self.first[0].joint(input)[..., self.start : self.start + self.out_features]

    def rows(self, outputs: Sequence[int]) -> Tensor:
        """The weight's rows of these outputs, as the layer of all outputs keeps them."""
        return rows_of(self.first[0].joint, [self.start + output for output in outputs])

    @staticmethod
    def together(x: Tensor, layers: Sequence[nn.Module]) -> Sequence[Tensor]:
        """All layers of one matrix: one product."""
        fused = [layer for layer in layers if isinstance(layer, FusedLinear)]
        joint = fused[0].first[0].joint
        if len(fused) < len(layers) or sum(layer.out_features for layer in fused) != joint.out_features:
            return [layer(x) for layer in layers]
        return joint(x).split([layer.out_features for layer in fused], dim=-1)


def fuse_weights(model: MiniMllama) -> MiniMllama:
    """Join the weights of plain layers that read one input, in place and for good; group by group."""
    for module in list(model.text.layers.modules()):
        names = GROUPS.get(type(module), ())
        layers = [getattr(module, name) for name in names]
        if not layers or any(type(layer) is not nn.Linear or layer.bias is not None for layer in layers):
            continue
        joint = nn.Linear(layers[0].in_features, sum(x.out_features for x in layers), bias=False, device="meta")
        joint.weight = nn.Parameter(torch.cat([x.weight.detach() for x in layers]), requires_grad=False)
        first, start = None, 0
        for name, layer in zip(names, layers, strict=True):
            fused = FusedLinear(layer, start, first, joint if first is None else None)
            setattr(module, name, fused)
            first, start = first or fused, start + layer.out_features
    return model
