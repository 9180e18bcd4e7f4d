"""Layers of one input that share work: the same numbers as one by one; and dropped positions instead of a mask."""

import itertools
import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from lora import TuneConfig, apply_tuning
from lora.layers import FEW, LoraLinear, draw_dropped, zero_dropped_
from lora.peft_format import adapted_layers
from minimllama.layers import project
from tests.tools.tiny import pictures, prompt, tiny_model


@pytest.fixture
def one_by_one() -> Iterator[None]:
    LoraLinear.share_inputs = False
    yield
    LoraLinear.share_inputs = True


def three_layers(dropout: float = 0.0, *, bias: bool = True) -> list[LoraLinear]:
    """One input of 7 features; 5, 3 and 4 outputs; ranks 2, 3 and 1, scales all different."""
    layers = []
    for n, r, alpha in ((5, 2, 3.0), (3, 3, 4.0), (4, 1, 5.0)):
        layer = LoraLinear(nn.Linear(7, n, bias=bias), r, alpha, dropout).double()
        layer.weight.requires_grad_(False)
        nn.init.normal_(layer.lora_B)
        layers.append(layer)
    return layers


def gradients(outputs: list[Tensor], inputs: list[Tensor]) -> list[Tensor]:
    weights = [torch.arange(1, y.numel() + 1, dtype=y.dtype).view_as(y) for y in outputs]
    return list(torch.autograd.grad(sum((y * w).sum() for y, w in zip(outputs, weights, strict=True)), inputs))


# parity


@pytest.mark.parametrize("bias", [True, False])
def test_together_gives_the_values_and_gradients_of_one_by_one(bias: bool) -> None:
    layers = three_layers(bias=bias)
    x = torch.randn(2, 6, 7, dtype=torch.float64, requires_grad=True)
    inputs = [x, *(p for layer in layers for p in (layer.lora_A, layer.lora_B))]
    together, alone = list(project(x, *layers)), [layer(x) for layer in layers]
    for ours, theirs in zip(together, alone, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)  # float64: rounding only
    for ours, theirs in zip(gradients(together, inputs), gradients(alone, inputs), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_with_dropout_all_layers_lose_the_same_elements() -> None:
    layers = [layer.train() for layer in three_layers(dropout=0.4)]
    x = torch.randn(30, 7, dtype=torch.float64, requires_grad=True)  # 84 dropped elements: a mask is drawn
    inputs = [x, *(p for layer in layers for p in (layer.lora_A, layer.lora_B))]
    torch.manual_seed(5)
    outputs = list(project(x, *layers))
    torch.manual_seed(5)
    kept = (~draw_dropped(x.shape, 0.4, x.device)).double()
    plain = [
        nn.functional.linear(x, one.weight, one.bias) + one.scale * (x * kept / 0.6 @ one.lora_A.T) @ one.lora_B.T
        for one in layers
    ]
    for ours, theirs in zip(outputs, plain, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    for ours, theirs in zip(gradients(outputs, inputs), gradients(plain, inputs), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_positions_and_the_mask_of_the_same_elements_do_the_same() -> None:
    x = torch.randn(40, 90)
    positions = draw_dropped(x.shape, 0.1, x.device)
    assert positions.dtype == torch.int32
    mask = torch.zeros(x.numel(), dtype=torch.bool).index_fill(0, positions.long(), True).view_as(x)
    assert torch.equal(zero_dropped_(x.clone(), positions), zero_dropped_(x.clone(), mask))
    assert torch.equal(zero_dropped_(x.clone(), positions) != x, mask)


def test_the_whole_model_trains_alike_with_and_without_sharing(request: pytest.FixtureRequest) -> None:
    model = tiny_model()
    apply_tuning(model, TuneConfig(r=3, alpha=6, dropout=0.0))
    for layer in adapted_layers(model).values():
        nn.init.normal_(layer.lora_B, std=0.1)
    images, tokens = pictures([[(30, 20)]]), prompt(9, 1, image_at=[2])[None]
    trained = [p for p in model.parameters() if p.requires_grad]

    def run() -> list[Tensor]:
        logits = model(tokens, images)
        return [logits, *torch.autograd.grad(logits.square().sum(), trained)]

    together = run()
    request.getfixturevalue("one_by_one")
    for ours, theirs in zip(together, run(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0.0, atol=1e-4 * theirs.abs().max().item() + 1e-6)


# property


@pytest.mark.usefixtures("one_by_one")
def test_the_switch_lets_every_layer_draw_for_itself() -> None:
    first, second = (LoraLinear(nn.Linear(50, 4), 3, 6, 0.5).train() for _ in range(2))
    second.load_state_dict(first.state_dict())
    nn.init.normal_(first.lora_B)
    second.lora_B.data.copy_(first.lora_B)
    x = torch.randn(2, 50)
    assert not torch.equal(*project(x, first, second))


def test_layers_of_one_group_drop_alike_so_equal_layers_agree() -> None:
    first, second = (LoraLinear(nn.Linear(50, 4), 3, 6, 0.5).train() for _ in range(2))
    nn.init.normal_(first.lora_B)
    second.load_state_dict(first.state_dict())
    torch.testing.assert_close(*project(torch.randn(2, 50), first, second))  # another mask would change every number


def test_the_input_is_kept_once_for_all_layers() -> None:
    layers = [layer.train() for layer in three_layers(dropout=0.3)]
    x = torch.randn(60, 7, dtype=torch.float64)
    outputs = project(x, *layers)
    kept = outputs[0].grad_fn.saved_tensors
    assert all(y.grad_fn is outputs[0].grad_fn for y in outputs)
    assert [t.data_ptr() == x.data_ptr() for t in kept if t.shape == x.shape and t.is_floating_point()] == [True]


def test_a_plain_layer_among_them_and_a_watched_one_are_called_by_themselves() -> None:
    layers: list[nn.Module] = [*three_layers(), nn.Linear(7, 2).double()]
    seen = []
    layers[1].register_forward_hook(lambda *call: seen.append(call[2]))
    x = torch.randn(4, 7, dtype=torch.float64)
    outputs = project(x, *layers)
    assert len(outputs) == 4
    assert seen[0] is outputs[1]


def test_every_pattern_of_three_neighbours_has_its_probability() -> None:
    shape, drop = torch.Size((300, 700)), 0.3
    assert shape.numel() * drop > FEW  # so positions are drawn
    positions = draw_dropped(shape, drop, torch.device("cpu"))
    keep = torch.ones(shape.numel(), dtype=torch.bool).index_fill(0, positions.long(), False)
    triples = [tuple(row) for row in keep.view(-1, 3).tolist()]
    patterns = list(itertools.product((False, True), repeat=3))
    expected = {p: len(triples) * math.prod(1 - drop if k else drop for k in p) for p in patterns}
    chi_square = sum((triples.count(p) - expected[p]) ** 2 / expected[p] for p in patterns)
    assert chi_square < 29.9  # 7 degrees of freedom: passed by a true mask with probability 0.9999


def test_the_first_and_the_last_element_are_dropped_as_often_as_any() -> None:
    shape, drop, draws = torch.Size((500,)), 0.5, 2_000
    ends = torch.zeros(500)
    for _ in range(draws):
        ends[draw_dropped(shape, drop, torch.device("cpu")).long()] += 1
    deviation = math.sqrt(draws * drop * (1 - drop))
    assert (ends[[0, 499]] - draws * drop).abs().max() < 4.5 * deviation


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_a_compiler_sees_one_graph(dropout: float) -> None:
    layers = [layer.float().train() for layer in three_layers(dropout)]
    compiled = torch.compile(lambda x: project(x, *layers), backend="aot_eager", fullgraph=True)
    x = torch.randn(80, 7, requires_grad=True)
    outputs = compiled(x)
    if not dropout:
        for ours, theirs in zip(outputs, project(x, *layers), strict=True):
            torch.testing.assert_close(ours, theirs)
    sum(y.sum() for y in outputs).backward()
    assert layers[2].lora_A.grad is not None
