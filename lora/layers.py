"""A linear layer with a low-rank update: y = W x + s B A dropout(x). Hu et al. 2022, Eq. 3 (arXiv:2106.09685).

Shapes: N rows (all leading dimensions together), D inputs, O outputs, R rank, M ranks of all layers together.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable

FEW = 100  # expected dropped elements below which a mask is drawn instead of positions


def draw_dropped(shape: torch.Size, drop: float, device: torch.device) -> Tensor:
    """Elements of a tensor that dropout drops, each independently with probability `drop`; torch's default generator.

    On CPUs the distances from one to the next are drawn (they are geometric), which takes `drop` random numbers
    per element instead of one, and four bytes per dropped element instead of one per element.

    Returns:
        int32 [any number] positions in the flattened tensor, some perhaps more than once; or a bool mask of its
        shape, on other devices and for small tensors.
    """
    n = shape.numel()
    if device.type != "cpu" or n * drop < FEW or n >= 2**31:
        return torch.rand(shape, device=device) < drop
    n_gaps = int(n * drop + 8 * math.sqrt(n * drop) + 16)  # enough to pass the end, but for one case in 10^15
    gaps = torch.rand(n_gaps).neg_().log1p_().mul_(1 / math.log1p(-drop)).ceil_().clamp_(min=1)
    at = gaps.long().cumsum(0) - 1
    return torch.where(at < n, at, at[0]).int()  # a fixed number of positions, so that compilers see no new shape


def zero_dropped_(x: Tensor, dropped: Tensor | None) -> Tensor:
    """Set the dropped elements of a contiguous tensor to 0, in place."""
    if dropped is None:
        return x
    if dropped.dtype == torch.bool:
        return x.masked_fill_(dropped.view_as(x), 0)
    x.view(-1).index_fill_(0, dropped.long(), 0)
    return x


class LowRank(torch.autograd.Function):
    """W x + b + s B A x' for several layers of one input x; x' is x without its dropped elements.

    The input is kept once, beside four bytes per dropped element; A x' of all layers is one product, and so is
    what comes back through it. PEFT keeps the dropped input of each layer in the adapters' dtype, and multiplies
    in that dtype; here the adapters are cast to the input's dtype, and their gradients back.
    """

    @staticmethod
    def forward(
        ctx: FunctionCtx, x: Tensor, dropped: Tensor | None, scales: Sequence[float], *parameters: Any
    ) -> tuple[Tensor, ...]:
        """x: [..., D]; for each layer weight [O, D], bias [O] or None, a [R, D], b [O, R] -> for each layer [..., O].

        A scale holds the 1 / (1 - p) of dropout too.
        """
        weights, biases, a, b = (parameters[i::4] for i in range(4))
        rows = x.reshape(-1, x.shape[-1])  # [N, D]
        low_a = torch.cat([one.to(x.dtype) for one in a])  # [M, D]
        seen = rows if dropped is None else zero_dropped_(rows.clone(), dropped)  # [N, D]
        middle = seen @ low_a.T  # [N, M]
        outputs = []
        parts = middle.split([len(one) for one in a], dim=1)
        for weight, bias, up, part, scale in zip(weights, biases, b, parts, scales, strict=True):
            y = F.linear(rows, weight, bias).addmm_(part, up.to(x.dtype).T, alpha=scale)  # [N, O]
            outputs.append(y.view(*x.shape[:-1], -1))
        ctx.save_for_backward(x, dropped, middle, *parameters)  # type: ignore[arg-type]
        ctx.scales = scales  # type: ignore[attr-defined]
        return tuple(outputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, *grads: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        """Gradients of x and of each layer's weight, bias, a and b; of the first three only if they are asked for."""
        x, dropped, middle, *parameters = ctx.saved_tensors  # type: ignore[attr-defined]
        wants_x, _, _, *wants = ctx.needs_input_grad  # type: ignore[attr-defined]
        weights, a, b = (parameters[i::4] for i in (0, 2, 3))
        rows = x.reshape(-1, x.shape[-1])  # [N, D]
        given = [grad.reshape(-1, grad.shape[-1]) for grad in grads]  # [N, O] each
        scales, ranks = ctx.scales, [len(one) for one in a]  # type: ignore[attr-defined]
        back = torch.cat([s * (g @ up.to(g.dtype)) for s, g, up in zip(scales, given, b, strict=True)], dim=1)  # [N, M]
        grad_x = None
        if wants_x:
            low = zero_dropped_(back @ torch.cat([one.to(x.dtype) for one in a]), dropped)  # [N, D]
            for grad, weight in zip(given, weights, strict=True):
                low = low.addmm_(grad, weight)
            grad_x = low.view(x.shape)
        seen = rows if dropped is None else zero_dropped_(rows.clone(), dropped)  # [N, D]
        grad_a = (back.T @ seen).to(a[0].dtype).split(ranks)  # [R, D] each
        found: list[Tensor | None] = []
        for i, (grad, part) in enumerate(zip(given, middle.split(ranks, dim=1), strict=True)):
            found += [
                grad.T @ rows if wants[4 * i] else None,
                grad.sum(0) if wants[4 * i + 1] else None,
                grad_a[i],
                (scales[i] * (grad.T @ part)).to(b[i].dtype),
            ]
        return grad_x, None, None, *found


class LoraLinear(nn.Linear):
    """`base` with adapters beside its weight; a drop-in replacement at the same path, sharing the base's parameters.

    The adapters are float32, A uniform as torch initialises linear layers, B zero: the layer starts as the
        base.

    Args:
        base: the layer to adapt; it is not changed.
        r: rank.
        alpha: the update is scaled by alpha / r, or alpha / sqrt(r) with `rslora` (arXiv:2312.03732).
        dropout: probability, on the adapter's input only.
        rslora: see alpha.
        generator: of A's first values, on the CPU whatever device the base is on; torch's default one if None.
    """

    share_inputs = True  # of all such layers; see `together`

    def __init__(
        self,
        base: nn.Linear,
        r: int,
        alpha: float,
        dropout: float,
        *,
        rslora: bool = False,
        generator: torch.Generator | None = None,
    ) -> None:
        if type(base) is not nn.Linear:
            raise TypeError(f"adapters go on plain linear layers, not on a {type(base).__name__}")
        nn.Module.__init__(self)
        self.in_features, self.out_features = base.in_features, base.out_features
        self.weight, self.bias = base.weight, base.bias
        self.r, self.alpha, self.dropout, self.rslora = r, alpha, dropout, rslora
        self.scale = alpha / (math.sqrt(r) if rslora else r)
        device = base.weight.device
        first = torch.empty(r, base.in_features, device="meta" if device.type == "meta" else "cpu")
        if device.type != "meta":
            nn.init.kaiming_uniform_(first, a=math.sqrt(5), generator=generator)
        self.lora_A = nn.Parameter(first.to(device))
        self.lora_B = nn.Parameter(torch.zeros(base.out_features, r, device=device))

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the name that nn.Linear gives it
        """input: [..., D] -> [..., O]."""
        return _adapted(input, [self])[0]

    @staticmethod
    def together(x: Tensor, layers: Sequence[nn.Module]) -> Sequence[Tensor]:
        """Several layers of one input, such as q_proj, k_proj and v_proj: what they can share is computed once.

        They also share the elements that dropout drops; each layer's own distribution is the same as when it
        draws them itself. Layers of different dropout, and layers that are watched by hooks, are called one by
        one; so are all if `LoraLinear.share_inputs` is False.
        """
        adapted = [layer for layer in layers if isinstance(layer, LoraLinear)]
        is_one_group = len(adapted) == len(layers) and len({(a.dropout, a.training) for a in adapted}) == 1
        is_watched = any(layer._forward_hooks or layer._forward_pre_hooks for layer in layers)
        if not LoraLinear.share_inputs or not is_one_group or is_watched:
            return [layer(x) for layer in layers]
        return _adapted(x, adapted)

    def update(self) -> Tensor:
        """S B A, float32 [O, D]: what merging adds to the weight."""
        return self.scale * (self.lora_B.float() @ self.lora_A.float())  # [O, D]

    def merged(self) -> nn.Linear:
        """A plain layer with the update added to the weight; the base's own weight is not changed."""
        plain = nn.Linear(self.in_features, self.out_features, bias=self.bias is not None, device="meta")
        weight = (self.weight.float() + self.update()).to(self.weight.dtype)
        plain.weight = nn.Parameter(weight.detach(), requires_grad=self.weight.requires_grad)
        plain.bias = self.bias
        return plain


def _adapted(x: Tensor, layers: Sequence[LoraLinear]) -> tuple[Tensor, ...]:
    """Outputs of layers that have one input, one dropout and one mode."""
    drop = layers[0].dropout if layers[0].training else 0.0
    dropped = draw_dropped(x.shape, drop, x.device) if drop else None
    scales = [layer.scale / (1 - drop) for layer in layers]
    parameters = [p for layer in layers for p in (layer.weight, layer.bias, layer.lora_A, layer.lora_B)]
    return LowRank.apply(x, dropped, scales, *parameters)
