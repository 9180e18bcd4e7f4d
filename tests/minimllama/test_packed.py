"""Reordered weights: the same numbers bit for bit, and nothing but computing."""

from pathlib import Path

import pytest
import torch
from torch import nn

from lora import TuneConfig, apply_tuning
from minimllama import generate, save_model
from minimllama.packed import PackedLinear, can_pack, pack_weights
from tests.tools.tiny import pictures, prompt, tiny_model

needs_bfloat16 = pytest.mark.skipif(
    not can_pack(nn.Linear(2, 2).bfloat16()), reason="this CPU has no bfloat16 products of oneDNN"
)


@needs_bfloat16
@pytest.mark.parametrize("rows", [1, 3, 40])
@pytest.mark.parametrize("bias", [True, False])
def test_a_packed_layer_gives_the_same_bits(rows: int, bias: bool) -> None:
    layer = nn.Linear(48, 56, bias=bias).bfloat16()
    x = torch.randn(rows, 5, 48).bfloat16()
    with torch.no_grad():
        assert torch.equal(PackedLinear(layer)(x), layer(x))


@needs_bfloat16
def test_a_packed_model_generates_the_same_tokens() -> None:
    images, prompts = pictures([[(30, 20)], [(20, 20)]]), [prompt(9, 1, image_at=[2]), prompt(6, 2, image_at=[1])]
    plain = generate(tiny_model().bfloat16(), prompts, images, max_new_tokens=8)
    packed = pack_weights(tiny_model().bfloat16())
    assert (
        sum(isinstance(layer, PackedLinear) for layer in packed.modules()) == 7 * 7 + 1
    )  # layers, linear layers in each, lm_head
    for one, other in zip(generate(packed, prompts, images, max_new_tokens=8), plain, strict=True):
        assert torch.equal(one, other)


@needs_bfloat16
def test_a_packed_model_is_neither_saved_nor_trained(tmp_path: Path) -> None:
    model = pack_weights(tiny_model().bfloat16())
    with pytest.raises(ValueError, match="only plain weights are saved"):
        save_model(model, tmp_path)
    with pytest.raises(TypeError, match="not on a PackedLinear"):
        apply_tuning(model, TuneConfig(r=2))


def test_other_types_and_adapted_layers_are_left_alone() -> None:
    model = tiny_model()
    names = [(name, type(m)) for name, m in pack_weights(model).named_modules()]
    assert names == [(name, type(m)) for name, m in tiny_model().named_modules()]
    apply_tuning(model.bfloat16(), TuneConfig(r=2))
    pack_weights(model)
    assert not any(isinstance(layer, PackedLinear) for layer in model.text.layers.modules())
