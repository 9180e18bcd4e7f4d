"""The adapted layer against the formula written plainly, and the distribution of its dropout mask."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lora.layers import LoraLinear, LowRank, draw_dropped


def plain(
    x: Tensor, weight: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, scale: float, keep: Tensor | None, drop: float
) -> Tensor:
    """Hu et al. 2022, Eq. 3, step by step, for autograd to differentiate."""
    seen = x if keep is None else x * keep / (1 - drop)
    return F.linear(x, weight, bias) + scale * F.linear(F.linear(seen, a), b)


def low_rank(
    x: Tensor, weight: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, scale: float, keep: Tensor | None, drop: float
) -> Tensor:
    """The function for a single layer, with the arguments of `plain`."""
    dropped = None if keep is None else ~keep
    return LowRank.apply(x, dropped, [scale / (1 - drop)], weight, bias, a, b)[0]


def keep_mask(shape: torch.Size, drop: float) -> Tensor:
    """The complement of what is drawn, as a mask."""
    dropped = draw_dropped(shape, drop, torch.device("cpu"))
    if dropped.dtype == torch.bool:
        return ~dropped
    return torch.ones(shape.numel(), dtype=torch.bool).index_fill(0, dropped.long(), 0).view(shape)


def some_inputs(dtype: torch.dtype, *, bias: bool, masked: bool) -> list:
    """Arguments of the function for 2 x 3 rows, 7 inputs, 5 outputs, rank 4, with everything differentiable."""
    generator = torch.Generator().manual_seed(1)

    def draw(*shape: int, as_dtype: torch.dtype = dtype) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(as_dtype).requires_grad_()

    adapters = torch.float64 if dtype == torch.float64 else torch.float32
    x, weight = draw(2, 3, 7), draw(5, 7)
    b0 = draw(5) if bias else None
    a, b = draw(4, 7, as_dtype=adapters), draw(5, 4, as_dtype=adapters)
    keep = torch.rand(2, 3, 7, generator=generator) >= 0.25 if masked else None
    return [x, weight, b0, a, b, 1.5, keep, 0.25 if masked else 0.0]


CASES = pytest.mark.parametrize(("bias", "masked"), [(False, False), (True, False), (False, True), (True, True)])


# equation


def test_one_row_computed_by_hand() -> None:
    base = nn.Linear(2, 1, bias=True)
    layer = LoraLinear(base, r=1, alpha=6, dropout=0.0)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, 2.0]]))
        layer.bias.fill_(0.5)
        layer.lora_A.copy_(torch.tensor([[3.0, -1.0]]))
        layer.lora_B.fill_(2.0)
    # W x + b = 1 + 4 + 0.5; A x = 3 - 2 = 1; s B A x = 6 * 2 * 1
    assert layer(torch.tensor([[1.0, 2.0]])).item() == 17.5
    assert layer.update().tolist() == [[36.0, -12.0]]


def test_the_scale_is_alpha_over_r_or_over_its_root() -> None:
    base = nn.Linear(3, 2)
    assert LoraLinear(base, r=4, alpha=10, dropout=0.0).scale == 2.5
    assert LoraLinear(base, r=4, alpha=10, dropout=0.0, rslora=True).scale == 5.0


# parity


@CASES
def test_values_and_all_gradients_equal_those_of_the_plain_formula(bias: bool, masked: bool) -> None:
    arguments = some_inputs(torch.float64, bias=bias, masked=masked)
    tensors = [t for t in arguments if isinstance(t, Tensor) and t.requires_grad]
    ours, theirs = low_rank(*arguments), plain(*arguments)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    direction = torch.randn_like(ours)
    for mine, reference in zip(
        torch.autograd.grad(ours, tensors, direction), torch.autograd.grad(theirs, tensors, direction), strict=True
    ):
        torch.testing.assert_close(mine, reference, rtol=1e-12, atol=1e-12)  # float64: rounding only


@CASES
def test_gradients_agree_with_finite_differences(bias: bool, masked: bool) -> None:
    arguments = some_inputs(torch.float64, bias=bias, masked=masked)
    assert torch.autograd.gradcheck(low_rank, tuple(arguments))


@CASES
def test_bfloat16_is_as_close_as_its_rounding_allows(bias: bool, masked: bool) -> None:
    arguments = some_inputs(torch.bfloat16, bias=bias, masked=masked)
    exact = [
        t.detach().double().requires_grad_() if isinstance(t, Tensor) and t.requires_grad else t for t in arguments
    ]
    ours, reference = low_rank(*arguments), plain(*exact)
    direction = torch.randn_like(reference).bfloat16()
    ours.backward(direction)
    reference.backward(direction.double())
    pairs = [(ours, reference), *((t.grad, e.grad) for t, e in zip(arguments, exact, strict=True) if t is not e)]
    for mine, wanted in pairs:
        if isinstance(mine, Tensor):
            # 8 bits of mantissa: 2^-8 per rounding, and four roundings in a row
            assert (mine.double() - wanted).norm() < 4 * 2**-8 * wanted.norm()
    assert [t.grad.dtype for t in arguments[3:5]] == [torch.float32, torch.float32]
    assert arguments[0].grad.dtype == torch.bfloat16


def test_a_frozen_base_gets_no_gradient_and_the_first_layer_no_input_gradient() -> None:
    x, weight, _, a, b, *rest = some_inputs(torch.float32, bias=False, masked=False)
    weight.requires_grad_(False)
    x = x.detach()
    low_rank(x, weight, None, a, b, *rest).sum().backward()
    assert weight.grad is None
    assert x.grad is None
    assert a.grad is not None
    assert b.grad is not None


# property


@pytest.mark.parametrize("bias", [True, False])
def test_a_new_layer_is_its_base(bias: bool) -> None:
    base = nn.Linear(7, 5, bias=bias)
    layer = LoraLinear(base, r=3, alpha=9, dropout=0.2)  # dropout acts on the adapter's input only
    x = torch.randn(4, 7)
    assert torch.equal(layer.train()(x), base(x))


def test_it_shares_its_bases_parameters() -> None:
    base = nn.Linear(7, 5)
    layer = LoraLinear(base, r=3, alpha=9, dropout=0.0)
    assert layer.weight is base.weight
    assert layer.bias is base.bias
    assert [name for name, _ in layer.named_parameters()] == ["weight", "bias", "lora_A", "lora_B"]


def test_merging_equals_adding() -> None:
    base = nn.Linear(7, 5)
    layer = LoraLinear(base, r=3, alpha=9, dropout=0.2).eval()
    nn.init.normal_(layer.lora_B)
    before = base.weight.clone()
    x = torch.randn(6, 7)
    torch.testing.assert_close(layer.merged()(x), layer(x), rtol=1e-5, atol=1e-5)  # two orders of summation in float32
    assert torch.equal(base.weight, before)


def test_dropout_acts_in_training_only() -> None:
    layer = LoraLinear(nn.Linear(50, 5), r=3, alpha=9, dropout=0.5)
    nn.init.normal_(layer.lora_B)
    x = torch.randn(4, 50)
    layer.eval()
    assert torch.equal(layer(x), layer(x))
    layer.train()
    assert not torch.equal(layer(x), layer(x))


def test_dropout_changes_nothing_on_average() -> None:
    layer = LoraLinear(nn.Linear(20, 5), r=3, alpha=9, dropout=0.3)
    nn.init.normal_(layer.lora_B)
    x = torch.randn(1, 20)
    exact = layer.eval()(x)
    draws = layer.train()(x.expand(40_000, -1))
    error = (draws.mean(0) - exact[0]).abs() / (draws.std(0) / math.sqrt(len(draws)))
    assert error.max() < 4.5  # standard errors


def test_the_input_is_kept_once_and_the_mask_as_bytes() -> None:
    layer = LoraLinear(nn.Linear(7, 5), r=3, alpha=9, dropout=0.3).train()
    x = torch.randn(4, 7)
    y = layer(x)  # what is kept lives as long as it
    kept = y.grad_fn.saved_tensors
    assert kept[0].data_ptr() == x.data_ptr()
    assert sum(t.numel() for t in kept if t.shape[:1] == (4,) and t.is_floating_point()) == x.numel() + 4 * 3
    assert [t.element_size() for t in kept if t.dtype == torch.bool] == [1]


@pytest.mark.parametrize("drop", [0.02, 0.3, 0.9])
def test_a_mask_drops_the_wanted_share(drop: float) -> None:
    keep = keep_mask(torch.Size((300, 700)), drop)
    n = keep.numel()
    assert keep.shape == (300, 700)
    assert abs(int((~keep).sum()) - n * drop) < 4.5 * math.sqrt(n * drop * (1 - drop))


@pytest.mark.parametrize("lag", [1, 2, 7, 700])
def test_elements_are_dropped_independently_of_their_neighbours(lag: int) -> None:
    drop = 0.3
    dropped = ~keep_mask(torch.Size((300, 700)), drop).flatten()
    both = int((dropped[:-lag] & dropped[lag:]).sum())
    n = dropped.numel() - lag
    # the variance of a count of overlapping pairs: n p^2 (1 - p^2) + 2 n p^3 (1 - p)
    deviation = math.sqrt(n * (drop**2 * (1 - drop**2) + 2 * drop**3 * (1 - drop)))
    assert abs(both - n * drop**2) < 4.5 * deviation


def test_every_pattern_of_three_elements_has_its_probability() -> None:
    drop, draws = 0.3, 20_000
    counts: dict[tuple[bool, ...], int] = dict.fromkeys(itertools.product((False, True), repeat=3), 0)
    for _ in range(draws):
        counts[tuple(keep_mask(torch.Size((3,)), drop).tolist())] += 1
    expected = {pattern: draws * math.prod(1 - drop if k else drop for k in pattern) for pattern in counts}
    chi_square = sum((counts[p] - expected[p]) ** 2 / expected[p] for p in counts)
    assert chi_square < 29.9  # 7 degrees of freedom: passed by a true mask with probability 0.9999


def test_a_mask_comes_from_torchs_generator() -> None:
    torch.manual_seed(3)
    first = keep_mask(torch.Size((40, 9)), 0.4)
    second = keep_mask(torch.Size((40, 9)), 0.4)
    torch.manual_seed(3)
    assert torch.equal(keep_mask(torch.Size((40, 9)), 0.4), first)
    assert not torch.equal(first, second)
