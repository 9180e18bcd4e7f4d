"""Building blocks that both towers use: RMSNorm, SwiGLU, GeluMLP and one attention call.

Shapes: B rows, S tokens, Z keys, D width, M inner width, H query heads, G key/value heads, E features per
    head.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minimllama.blocked import BlockedAttention


class RMSNorm(nn.Module):
    """w * x / rms(x), with the statistics in float32. Zhang & Sennrich 2019, Eq. 4 (arXiv:1910.07467).

    The result is cast back to x's dtype before the weight multiplies it: llama-models,
    models/llama3/model.py, RMSNorm.
    """

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """x: [..., D] -> [..., D], same dtype."""
        wide = x.float()
        normed = wide * (wide.square().mean(-1, keepdim=True) + self.eps).rsqrt()
        return self.weight.to(x.dtype) * normed.to(x.dtype)


def project(x: Tensor, *layers: nn.Module) -> Sequence[Tensor]:
    """Several linear layers of one input.

    A layer whose class has `together` is asked to run them all at once; the result is that of calling each.
    """
    together = getattr(layers[0], "together", None)
    return [layer(x) for layer in layers] if together is None else together(x, layers)


class SwiGLU(nn.Module):
    """down(silu(gate(x)) * up(x)). Shazeer 2020, Eq. 6 (arXiv:2002.05202)."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(width, inner, bias=False)
        self.up_proj = nn.Linear(width, inner, bias=False)
        self.down_proj = nn.Linear(inner, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """x: [B, S, D] -> [B, S, D]."""
        gate, up = project(x, self.gate_proj, self.up_proj)  # [B, S, M]
        inner = F.silu(gate) * up  # [B, S, M]
        return self.down_proj(inner)  # [B, S, D]


class GeluMLP(nn.Module):
    """fc2(gelu(fc1(x))) with the exact (erf) GELU. Dosovitskiy et al. 2021, sec. 3.1 (arXiv:2010.11929)."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, inner)
        self.fc2 = nn.Linear(inner, width)

    def forward(self, x: Tensor) -> Tensor:
        """x: [B, S, D] -> [B, S, D]."""
        inner = F.gelu(self.fc1(x))  # [B, S, M]
        return self.fc2(inner)  # [B, S, D]


def split_heads(x: Tensor, n_heads: int) -> Tensor:
    """[B, S, H * E] -> [B, H, S, E]."""
    return x.unflatten(-1, (n_heads, -1)).transpose(1, 2)  # [B, H, S, E]


def join_heads(x: Tensor) -> Tensor:
    """[B, H, S, E] -> [B, S, H * E]."""
    return x.transpose(1, 2).flatten(2)  # [B, S, H*E]


SHORT = 512  # keys up to which the plain form beats torch's fused kernel on CPUs in bfloat16 (docs/performance.md)


def attend_plainly(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, *, causal: bool = False, scale: float | None = None
) -> Tensor:
    """`attend`, written out; the scores [B, H, S, Z] are held in q's dtype."""
    k, v = (x.repeat_interleave(q.shape[1] // k.shape[1], dim=1) for x in (k, v))  # [B, H, Z, E]
    scores = q * (scale or q.shape[-1] ** -0.5) @ k.transpose(-1, -2)  # [B, H, S, Z]
    if causal:
        mask = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool, device=q.device).tril()
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf)  # [B, H, S, Z]
    return scores.softmax(-1) @ v  # [B, H, S, E]


def attend_groups(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, *, scale: float | None = None) -> Tensor:
    """`attend` with a mask [B or 1, 1, S or 1, Z]: the query heads of one key head become more queries of it.

    CUDA's fast kernels take groups or a mask; both at once would hold all scores, in float32. Repeating keys and values
    for every query head would copy a long cache for every new token. Repeating the mask is cheaper up to 2 G E queries,
    2,048 at the 11B.
    """
    n = q.shape[1] // k.shape[1]
    folded = q.unflatten(1, (-1, n)).flatten(2, 3)  # [B, G, H*S/G, E]
    if mask.shape[2] > 1:
        mask = mask.repeat(1, 1, n, 1)  # of H*S/G queries
    mixed = F.scaled_dot_product_attention(folded, k, v, mask, scale=scale)  # [B, G, H*S/G, E]
    return mixed.unflatten(2, (n, -1)).flatten(1, 2)  # [B, H, S, E]


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    mask: Tensor | None = None,
    causal: bool = False,
    scale: float | None = None,
) -> Tensor:
    """softmax(scale q k^T + mask) v, where each key/value head serves H / G consecutive query heads.

    Vaswani et al. 2017, Eq. 1 (arXiv:1706.03762); grouped heads: Ainslie et al. 2023 (arXiv:2305.13245).

    Args:
        q: [B, H, S, E].
        k, v: [B, G, Z, E].
        mask: bool [B or 1, 1, S or 1, Z]; True where a query may see a key. A query that sees no key gets NaN.
        causal: query i sees keys 0..i; needs S == Z.
        scale: 1 / sqrt(E) if None.

    Returns:
        [B, H, S, E].
    """
    if q.dtype == torch.bfloat16 and q.device.type == "cpu":
        if k.shape[2] <= SHORT:
            return attend_plainly(q, k, v, mask, causal=causal, scale=scale)
        if mask is None and not causal:
            return BlockedAttention.apply(q, k, v, scale or q.shape[-1] ** -0.5)  # [B, H, S, E]
    grouped = q.shape[1] != k.shape[1]
    if grouped and mask is not None and q.device.type != "cpu":
        return attend_groups(q, k, v, mask, scale=scale)
    return F.scaled_dot_product_attention(  # [B, H, S, E]
        q, k, v, mask, is_causal=causal, scale=scale, enable_gqa=grouped
    )
