"""Attention in blocks of queries, for CPUs in bfloat16."""

import pytest
import torch
from torch import Tensor

from minimllama.blocked import BlockedAttention
from minimllama.layers import SHORT, attend, attend_plainly

SCALE = 0.3


def inputs(dtype: torch.dtype = torch.float32, n_keys: int = 11) -> list[Tensor]:
    """q [2, 6, 7, 4] and k, v [2, 3, n_keys, 4]."""
    shapes = [(2, 6, 7, 4), (2, 3, n_keys, 4), (2, 3, n_keys, 4)]
    return [torch.randn(shape, dtype=torch.float32).to(dtype).requires_grad_() for shape in shapes]


def gradients(out: Tensor, of: list[Tensor]) -> list[Tensor]:
    weight = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(out.dtype)
    return list(torch.autograd.grad((out * weight).sum(), of, retain_graph=True))


# equation


def test_one_query_gets_the_softmax_mean_of_the_values() -> None:
    q, k, v = inputs()
    row = (SCALE * q[0, 3, 2] @ k[0, 1].T).softmax(-1) @ v[0, 1]  # query head 3 of 6 uses key head 1 of 3
    torch.testing.assert_close(BlockedAttention.apply(q, k, v, SCALE)[0, 3, 2], row)


# parity with the plain form


@pytest.mark.parametrize("block", [11, 33, 10**6])  # one query at a time, three (the last block is short), all
def test_values_and_gradients_are_those_of_the_plain_form(block: int) -> None:
    q, k, v = inputs()
    blocked = BlockedAttention.apply(q, k, v, SCALE, block)
    plain = attend_plainly(q, k, v, scale=SCALE)
    torch.testing.assert_close(blocked, plain)
    for one, other in zip(gradients(blocked, [q, k, v]), gradients(plain, [q, k, v]), strict=True):
        torch.testing.assert_close(one, other)


def test_in_bfloat16_it_is_as_close_to_float32_as_the_plain_form() -> None:
    q, k, v = inputs(torch.bfloat16, n_keys=SHORT + 5)
    exact = [x.detach().float().requires_grad_() for x in (q, k, v)]
    wanted = attend_plainly(*exact, scale=SCALE)
    errors = {}
    for name, out in (
        ("blocked", BlockedAttention.apply(q, k, v, SCALE)),
        ("plain", attend_plainly(q, k, v, scale=SCALE)),
    ):
        pairs = [(out, wanted), *zip(gradients(out, [q, k, v]), gradients(wanted, exact), strict=True)]
        errors[name] = torch.stack([(a.float() - b).norm() / b.norm() for a, b in pairs])
    assert (errors["blocked"] < 1.3 * errors["plain"] + 1e-3).all(), errors


# property


def test_long_rows_in_bfloat16_take_this_way_and_nothing_else_does(monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = BlockedAttention.apply, []
    monkeypatch.setattr(BlockedAttention, "apply", lambda *given: (calls.append(given[1].shape[2]), real(*given))[1])
    for dtype, n_keys, how in (
        (torch.bfloat16, SHORT + 1, {}),
        (torch.bfloat16, SHORT, {}),
        (torch.float32, SHORT + 1, {}),
        (torch.bfloat16, SHORT + 2, {"mask": torch.ones(7, SHORT + 2, dtype=torch.bool)}),
    ):
        attend(*inputs(dtype, n_keys), **how)
    assert calls == [SHORT + 1]


# refusal


def test_a_second_derivative_is_refused() -> None:
    q, k, v = inputs()
    (first,) = torch.autograd.grad(BlockedAttention.apply(q, k, v, SCALE).square().sum(), [q], create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()
