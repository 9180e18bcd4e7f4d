"""Attention over many keys for CPUs in bfloat16: plain matrix products over blocks of queries.

There torch's fused kernel reaches half the speed of its own matrix product, in the backward pass as in the
forward pass. Here a block of scores is held in bfloat16, its softmax is computed in place, and the backward
pass computes both again, so that memory grows with the block and not with the sequence. Numbers and accuracy:
docs/performance.md.

Shapes: B rows, H query heads, G key/value heads, S queries, Z keys, E features per head; for one row and one
key head the queries of its H / G heads are S * H / G rows, taken M at a time; W is the most that fit a block.
"""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

BLOCK = 2**21  # scores held at once, 4 MiB in bfloat16


def _probabilities(q: Tensor, k: Tensor, scale: float, out: Tensor) -> Tensor:
    """softmax(scale q k^T) of one block: q [M, E], k [Z, E] -> [M, Z], in `out`."""
    torch.addmm(out, q, k.T, beta=0, alpha=scale, out=out)
    return torch.softmax(out, -1, out=out)


def _groups(q: Tensor, k: Tensor) -> Iterator[tuple[int, int, slice]]:
    """Row, key head and its query heads."""
    n = q.shape[1] // k.shape[1]
    for b in range(k.shape[0]):
        for g in range(k.shape[1]):
            yield b, g, slice(g * n, (g + 1) * n)


class BlockedAttention(torch.autograd.Function):
    """softmax(scale q k^T) v, where each key head serves H / G consecutive query heads."""

    @staticmethod
    def forward(ctx: FunctionCtx, q: Tensor, k: Tensor, v: Tensor, scale: float, block: int = BLOCK) -> Tensor:
        """q: [B, H, S, E], k, v: [B, G, Z, E] -> [B, H, S, E]."""
        ctx.save_for_backward(q, k, v)
        rows = max(1, block // k.shape[2])
        ctx.scale, ctx.rows = scale, rows  # type: ignore[attr-defined]
        out = torch.empty_like(q)
        room = q.new_empty(rows, k.shape[2])  # [W, Z]
        for b, g, heads in _groups(q, k):
            one_k, one_v = k[b, g].contiguous(), v[b, g].contiguous()
            blocks = q[b, heads].reshape(-1, q.shape[3]).split(rows)
            mixed = [_probabilities(x, one_k, scale, room[: len(x)]) @ one_v for x in blocks]  # [M, E]
            out[b, heads] = torch.cat(mixed).view_as(out[b, heads])
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        """Gradients of q, k and v; those of k and v are summed over blocks in float32."""
        q, k, v = ctx.saved_tensors  # type: ignore[attr-defined]
        scale, rows = ctx.scale, ctx.rows  # type: ignore[attr-defined]
        grad_q, grad_k, grad_v = (torch.empty_like(x) for x in (q, k, v))
        room = q.new_empty(3, rows, k.shape[2])
        for b, g, heads in _groups(q, k):
            one_k, one_v = k[b, g].contiguous(), v[b, g].contiguous()
            sum_k, sum_v = (torch.zeros(x.shape[3], x.shape[2]) for x in (k, v))  # [E, Z], the faster way round
            pieces = []
            blocks = (x[b, heads].reshape(-1, x.shape[3]).split(rows) for x in (q, grad))
            for x, dy in zip(*blocks, strict=True):
                p, dp, ds = room[:, : len(x)]  # [M, Z] each
                _probabilities(x, one_k, scale, p)
                sum_v += dy.T @ p
                torch.mm(dy, one_v.T, out=dp)
                torch.ops.aten._softmax_backward_data.out(dp, p, -1, p.dtype, grad_input=ds)
                pieces.append(ds @ one_k)
                sum_k += x.T @ ds
            grad_q[b, heads] = torch.cat(pieces).mul_(scale).view_as(grad_q[b, heads])
            grad_k[b, g], grad_v[b, g] = sum_k.mul_(scale).T, sum_v.T
        return grad_q, grad_k, grad_v, None, None
