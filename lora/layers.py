"""A linear layer with a low-rank update: y = W x + s B A dropout(x). Hu et al. 2022, Eq. 3 (arXiv:2106.09685).

Shapes: N rows (all leading dimensions together), D inputs, O outputs, R rank.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def keep_mask(shape: torch.Size, drop: float, device: torch.device) -> Tensor:
    """bool, each element False with probability `drop`, independently; from torch's default generator.

    On CPUs the distances between dropped elements are drawn (geometric), which needs `drop` random numbers
    per element instead of one.
    """
    if device.type != "cpu":
        return torch.rand(shape, device=device) >= drop
    n = shape.numel()
    keep = torch.ones(n, dtype=torch.bool)
    n_gaps = int(n * drop + 8 * math.sqrt(n * drop) + 16)  # enough to pass the end, but for one case in 10^15
    start = -1
    while start < n - 1:
        at = start + torch.empty(n_gaps, dtype=torch.int64).geometric_(drop).cumsum(0)
        keep[at[at < n]] = False
        start = int(at[-1])
    return keep.view(shape)


class LowRankLinear(torch.autograd.Function):
    """W x + b + s B A (k x / (1 - p)) with the input kept once, and the mask as one byte per element.

    PEFT keeps the dropped input in the adapters' dtype beside the mask, and multiplies in that dtype; here
    the adapters are cast to the input's dtype, and their gradients back.
    """

    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        a: Tensor,
        b: Tensor,
        scale: float,
        keep: Tensor | None,
        drop: float,
    ) -> Tensor:
        """x: [..., D], weight: [O, D], a: [R, D], b: [O, R], keep: bool like x -> [..., O]."""
        low_a, low_b = a.to(x.dtype), b.to(x.dtype)
        seen = x if keep is None else x * keep * (1 / (1 - drop))
        middle = F.linear(seen, low_a)
        ctx.save_for_backward(x, weight, a, b, keep, middle)  # type: ignore[arg-type]  # torch keeps None as None
        ctx.scale, ctx.drop, ctx.has_bias = scale, drop, bias is not None  # type: ignore[attr-defined]
        return F.linear(x, weight, bias).add_(F.linear(middle, low_b), alpha=scale)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        """Gradients of x, weight, bias, a and b, each only if it is asked for."""
        x, weight, a, b, keep, middle = ctx.saved_tensors  # type: ignore[attr-defined]
        scale, drop = ctx.scale, ctx.drop  # type: ignore[attr-defined]
        wants_x, wants_weight, wants_bias = ctx.needs_input_grad[:3]  # type: ignore[attr-defined]
        rows = grad.flatten(0, -2)  # [N, O]
        through = scale * (grad @ b.to(grad.dtype))
        seen = x if keep is None else x * keep * (1 / (1 - drop))
        grad_a = through.flatten(0, -2).T @ seen.flatten(0, -2)  # [R, D]
        grad_b = scale * (rows.T @ middle.flatten(0, -2))  # [O, R]
        grad_x = None
        if wants_x:
            low = through @ a.to(grad.dtype)
            grad_x = (grad @ weight).add_(low if keep is None else low * keep * (1 / (1 - drop)))
        grad_weight = rows.T @ x.flatten(0, -2) if wants_weight else None
        grad_bias = rows.sum(0) if wants_bias else None
        return grad_x, grad_weight, grad_bias, grad_a.to(a.dtype), grad_b.to(b.dtype), None, None, None


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
    """

    def __init__(self, base: nn.Linear, r: int, alpha: float, dropout: float, *, rslora: bool = False) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = base.in_features, base.out_features
        self.weight, self.bias = base.weight, base.bias
        self.r, self.alpha, self.dropout, self.rslora = r, alpha, dropout, rslora
        self.scale = alpha / (math.sqrt(r) if rslora else r)
        device = base.weight.device
        self.lora_A = nn.Parameter(torch.empty(r, base.in_features, device=device))
        self.lora_B = nn.Parameter(torch.zeros(base.out_features, r, device=device))
        nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5))

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the name that nn.Linear gives it
        """input: [..., D] -> [..., O]."""
        keep = None
        if self.training and self.dropout:
            keep = keep_mask(input.shape, self.dropout, input.device)
        a, b = self.lora_A, self.lora_B
        return LowRankLinear.apply(input, self.weight, self.bias, a, b, self.scale, keep, self.dropout)

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
