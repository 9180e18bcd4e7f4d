"""RMSNorm, SwiGLU, GeluMLP and the attention call."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from minimllama.layers import (
    SHORT,
    GeluMLP,
    RMSNorm,
    SwiGLU,
    attend,
    attend_groups,
    attend_plainly,
    join_heads,
    split_heads,
)


def heads(n: int, length: int, features: int = 6, rows: int = 2) -> Tensor:
    return torch.randn(rows, n, length, features)


# equation


def test_rms_norm_divides_by_the_root_of_the_mean_square() -> None:
    norm = RMSNorm(2, eps=0.0)
    norm.weight.data = torch.tensor([1.0, 10.0])
    x = torch.tensor([3.0, 4.0])  # mean square 12.5
    torch.testing.assert_close(norm(x), torch.tensor([3.0, 40.0]) / math.sqrt(12.5))


def test_swiglu_is_down_of_silu_gate_times_up() -> None:
    mlp = SwiGLU(1, 1)
    for layer, weight in ((mlp.gate_proj, 2.0), (mlp.up_proj, 3.0), (mlp.down_proj, 5.0)):
        layer.weight.data.fill_(weight)
    x = 0.5
    silu = 1.0 / (1 + math.exp(-1.0))  # of gate(x) = 1
    assert mlp(torch.tensor([[[x]]])).item() == pytest.approx(5 * silu * 3 * x, rel=1e-6)


def test_gelu_is_the_exact_one() -> None:
    mlp = GeluMLP(1, 1)
    for layer in (mlp.fc1, mlp.fc2):
        layer.weight.data.fill_(1.0)
        layer.bias.data.zero_()
    exact = 0.5 * (1 + math.erf(1 / math.sqrt(2)))  # 0.841345; the tanh form gives 0.841192
    assert mlp(torch.ones(1, 1, 1)).item() == pytest.approx(exact, abs=1e-6)


@pytest.mark.parametrize("function", [attend, attend_plainly])
def test_attention_weighs_values_by_the_softmax_of_scaled_products(function) -> None:
    q = torch.tensor([2.0, 0, 0, 0]).view(1, 1, 1, 4)  # sqrt(E) = 2
    k = torch.tensor([[math.log(3.0), 0, 0, 0], [0, 5.0, 0, 0]]).view(1, 1, 2, 4)  # scores log 3 and 0
    v = torch.tensor([[1.0, 0, 0, 0], [0, 1.0, 0, 0]]).view(1, 1, 2, 4)
    torch.testing.assert_close(function(q, k, v).flatten(), torch.tensor([0.75, 0.25, 0, 0]))


# parity


@pytest.mark.parametrize("n_kv_heads", [1, 3, 6])
@pytest.mark.parametrize(
    ("kind", "grouped"), [("all", False), ("causal", False), ("mask", False), ("mask", True), ("mask of all", True)]
)
def test_the_fused_and_the_written_out_attention_agree(n_kv_heads: int, kind: str, grouped: bool) -> None:
    length = 7
    q, k, v = heads(6, length), heads(n_kv_heads, length), heads(n_kv_heads, length)
    mask = torch.rand(2, 1, length if kind == "mask" else 1, length) < 0.5
    mask[..., 0] = True  # every query sees a key
    how = {"all": {}, "causal": {"causal": True}}.get(kind, {"mask": mask})
    inputs = [x.requires_grad_() for x in (q, k, v)]
    function = attend_groups if grouped else attend
    fused, plain = function(q, k, v, **how), attend_plainly(q, k, v, **how)
    torch.testing.assert_close(fused, plain)
    weight = torch.randn_like(fused)
    gradients = [torch.autograd.grad((out * weight).sum(), inputs) for out in (fused, plain)]
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("n_keys", [5, SHORT + 3])  # either side of the switch between the two forms
def test_attention_in_bfloat16_is_as_good_as_bfloat16_is(n_keys: int) -> None:
    q, k, v = heads(4, 3), heads(2, n_keys), heads(2, n_keys)
    exact = attend(q, k, v)
    rounded = attend(q.bfloat16(), k.bfloat16(), v.bfloat16())
    assert rounded.dtype == torch.bfloat16
    torch.testing.assert_close(rounded.float(), exact, atol=0.03, rtol=0.0)  # 8 bits of values near 1


# property


def test_each_key_head_serves_consecutive_query_heads() -> None:
    q, k, v = heads(6, 4), heads(2, 5), heads(2, 5)
    mixed = attend(q, k, v)
    v[:, 1] += 1  # of query heads 3, 4, 5 only
    changed = (attend(q, k, v) != mixed).any(dim=(0, 2, 3))
    assert changed.tolist() == [False] * 3 + [True] * 3


def test_causal_attention_does_not_look_ahead() -> None:
    q, k, v = heads(2, 5), heads(2, 5), heads(2, 5)
    before = attend(q, k, v, causal=True)
    k[:, :, 3], v[:, :, 3] = 9.0, 9.0
    after = attend(q, k, v, causal=True)
    assert torch.equal(before[:, :, :3], after[:, :, :3])
    assert (before[:, :, 3:] != after[:, :, 3:]).all()


def test_joining_undoes_splitting_and_heads_are_consecutive_features() -> None:
    x = torch.randn(2, 5, 12)
    split = split_heads(x, 3)
    assert torch.equal(split[:, 1], x[..., 4:8])
    assert torch.equal(join_heads(split), x)


def test_rms_norm_does_not_change_when_its_input_is_scaled() -> None:
    norm, x = RMSNorm(16, eps=0.0), torch.randn(3, 16)
    torch.testing.assert_close(norm(8 * x), norm(x))


def test_rms_norm_takes_its_statistics_in_float32() -> None:
    x = torch.full((1, 4), 300.0, dtype=torch.float16)  # its square overflows float16
    out = RMSNorm(4, eps=1e-5)(x)
    assert out.dtype == torch.float16
    torch.testing.assert_close(out, torch.ones_like(x))


# refusal: a query that sees no key is the caller's error, and shows


def test_a_query_that_sees_nothing_gets_nan_rather_than_a_guess() -> None:
    q, k, v = heads(2, 2), heads(2, 3), heads(2, 3)
    mask = torch.tensor([[True, True, False], [False, False, False]])
    out = attend_plainly(q, k, v, mask)
    assert not out[:, :, 0].isnan().any()
    assert out[:, :, 1].isnan().all()


def test_on_accelerators_a_mask_and_grouped_heads_never_meet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Together they would leave only the kernel that holds all scores; nor are keys and values repeated."""
    given, plain = [], torch.nn.functional.scaled_dot_product_attention

    def watched(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, **how: Any) -> Tensor:
        given.append((q.shape[1], k.shape[1], v.shape[1], how.get("enable_gqa", False)))
        return plain(q, k, v, mask, **how)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", watched)
    q, k = torch.empty(2, 6, 5, 8, device="meta"), torch.empty(2, 3, 7, 8, device="meta")
    mask = torch.empty(2, 1, 5, 7, dtype=torch.bool, device="meta")
    assert attend(q, k, k, mask=mask).shape == attend(q, k, k).shape == q.shape
    assert given == [(3, 3, 3, False), (6, 3, 3, True)]
