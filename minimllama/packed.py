"""Weights in the order in which a CPU's bfloat16 matrix product wants them, for generation.

With a few rows of input that product spends most of its time reordering the weights, in every call. Reordered
once, they give the same numbers, bit for bit, in two thirds of the time; docs/performance.md. The packed layers
only compute: their `weight` is a placeholder without content, so saving, merging or tuning them fails.
"""

import torch
from torch import Tensor, nn

from minimllama.model import MiniMllama


def can_pack(layer: nn.Module) -> bool:
    """Whether this is a plain bfloat16 linear layer on a CPU whose matrix products are oneDNN's."""
    if type(layer) is not nn.Linear or layer.weight.dtype != torch.bfloat16 or layer.weight.device.type != "cpu":
        return False
    return torch.backends.mkldnn.is_available() and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


class PackedLinear(nn.Linear):
    """A linear layer with a reordered copy of its base's weight, and no other."""

    def __init__(self, base: nn.Linear) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = base.in_features, base.out_features
        self.weight = nn.Parameter(torch.empty_like(base.weight, device="meta"), requires_grad=False)
        self.bias = base.bias
        self.packed = torch.ops.mkldnn._reorder_linear_weight(base.weight.detach(), 1)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the name that nn.Linear gives it
        """input: [..., D] -> [..., O]; without gradients."""
        return torch.ops.mkldnn._linear_pointwise(input, self.packed, self.bias, "none", [], "")


def pack_weights(model: MiniMllama) -> MiniMllama:
    """Replace the text layers' linear layers in place, for good; each dense weight is freed when it is packed.

    Layers that cannot be packed are left as they are, so on another device or in float32 nothing changes. The
    vision tower has too many rows to gain, and the rows of lm_head are also read one by one.
    """
    for block in model.text.layers:
        for parent in block.modules():
            for name, layer in list(parent.named_children()):
                if isinstance(layer, nn.Linear) and can_pack(layer):
                    setattr(parent, name, PackedLinear(layer))
    return model
