"""Weights in the order in which a CPU's bfloat16 matrix product wants them, for generation.

With a few rows of input that product spends most of its time reordering the weights, in every call. Reordered
once, they give the same numbers, bit for bit, in two thirds of the time; docs/performance.md. The packed layers
only compute: their `weight` is a placeholder without content, so saving, merging or tuning them fails.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from minimllama.model import MiniMllama


def can_pack(layer: nn.Module) -> bool:
    """Whether this is a plain bfloat16 linear layer on a CPU whose matrix products are oneDNN's."""
    if type(layer) is not nn.Linear or layer.weight.dtype != torch.bfloat16 or layer.weight.device.type != "cpu":
        return False
    return torch.backends.mkldnn.is_available() and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


class ComputingLinear(nn.Linear, ABC):
    """A linear layer that keeps its weight in a form of its own, and only computes."""

    def __init__(self, base: nn.Linear) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = base.in_features, base.out_features
        self.weight = nn.Parameter(torch.empty_like(base.weight, device="meta"), requires_grad=False)
        self.bias = base.bias

    @abstractmethod
    def rows(self, outputs: Sequence[int]) -> Tensor:
        """The weight's rows of these outputs, [len(outputs), D]."""


@torch.library.custom_op("minimllama::packed_linear", mutates_args=())
def packed_linear(x: Tensor, packed: Tensor, bias: Tensor | None, n_outputs: int) -> Tensor:
    """x: [..., D] -> [..., O]. An operator of its own, because torch.compile does not take a packed weight's."""
    return torch.ops.mkldnn._linear_pointwise(x, packed, bias, "none", [], "")


@packed_linear.register_fake
def _(x: Tensor, packed: Tensor, bias: Tensor | None, n_outputs: int) -> Tensor:
    return x.new_empty(*x.shape[:-1], n_outputs)


class PackedLinear(ComputingLinear):
    """A linear layer with a reordered copy of its base's weight, and no other."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__(base)
        self.packed = torch.ops.mkldnn._reorder_linear_weight(base.weight.detach(), 1)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the name that nn.Linear gives it
        """input: [..., D] -> [..., O]; without gradients."""
        if torch.compiler.is_compiling():  # only then: an operator in Python takes a few microseconds more
            return packed_linear(input, self.packed, self.bias, self.out_features)
        return torch.ops.mkldnn._linear_pointwise(input, self.packed, self.bias, "none", [], "")

    def rows(self, outputs: Sequence[int]) -> Tensor:
        """The weight's rows of these outputs; the whole weight is put back in order for a moment."""
        return self.packed.to_dense()[list(outputs)]


def rows_of(layer: nn.Linear, outputs: Sequence[int]) -> Tensor:
    """Rows of a linear layer's weight, however it keeps it: [len(outputs), D]."""
    return layer.rows(outputs) if isinstance(layer, ComputingLinear) else layer.weight[list(outputs)]


def replace_linears(model: MiniMllama, make: Callable[[nn.Linear], nn.Linear]) -> MiniMllama:
    """Put make(layer) in the place of every linear layer of the text model, lm_head included; the vision tower stays.

    One after the other, so that there is never a second copy of the whole.
    """
    for parent in (*list(model.text.layers.modules()), model.text):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, nn.Linear):
                setattr(parent, name, make(layer))
    return model


def pack_weights(model: MiniMllama) -> MiniMllama:
    """Replace the text model's linear layers in place, for good; each dense weight is freed when it is packed.

    Layers that cannot be packed are left as they are, so on another device or in float32 nothing changes. The
    vision tower has too many rows to gain.
    """
    return replace_linears(model, lambda layer: PackedLinear(layer) if can_pack(layer) else layer)
