"""Weights that read one input as one matrix: the same numbers, and nothing but computing."""

from pathlib import Path

import pytest
import torch

from lora import TuneConfig, apply_tuning
from minimllama import save_model
from minimllama.fused import FusedLinear, fuse_weights
from minimllama.packed import PackedLinear, can_pack, rows_of
from minimllama.weights import WEIGHTS, hold_weights
from tests.tools.tiny import pictures, prompt, tiny_model

TOKENS = torch.stack([prompt(9, 1, image_at=[2]), prompt(9, 2, image_at=[1])])


@torch.no_grad()
def logits(model):
    return model(TOKENS, pictures([[(30, 20)], [(20, 20)]]))


def test_fused_weights_give_the_same_logits_from_fewer_products() -> None:
    model, calls = fuse_weights(tiny_model()), []
    for layer in model.text.layers.modules():
        if isinstance(layer, FusedLinear) and layer.first[0] is layer:
            layer.joint.register_forward_hook(lambda *_: calls.append(1))
    torch.testing.assert_close(logits(model), logits(tiny_model()), atol=1e-5, rtol=0.0)
    assert len(calls) == 7 * 2  # keys and values of a cross layer also are one product


@torch.no_grad()
def test_a_fused_layer_called_alone_is_its_part() -> None:
    plain, fused = (m.text.layers[0].attention for m in (tiny_model(), fuse_weights(tiny_model())))
    x = torch.randn(2, 3, 48)
    for name in ("q_proj", "k_proj", "v_proj"):
        torch.testing.assert_close(getattr(fused, name)(x), getattr(plain, name)(x), atol=1e-6, rtol=0.0)


@torch.no_grad()
@pytest.mark.parametrize(("how", "tolerance"), [("fast", 0.0), ("int8", 0.01)])
def test_rows_of_a_fused_layer_are_those_of_its_weight(how: str, tolerance: float) -> None:
    plain = tiny_model().bfloat16().text.layers[0].attention
    fused = hold_weights(tiny_model().bfloat16(), how).text.layers[0].attention
    for name in ("q_proj", "k_proj", "v_proj"):
        expected, found = (rows_of(getattr(a, name), (5, 0)).float() for a in (plain, fused))
        assert (found - expected).abs().max() <= tolerance * expected.abs().max()


@pytest.mark.parametrize(("how", "tolerance"), [("plain", 0.0), ("fast", 0.05), ("int8", 0.2)])
def test_every_form_of_the_weights_gives_nearly_the_same_logits(how: str, tolerance: float) -> None:
    model = hold_weights(tiny_model().bfloat16(), how)
    exact = logits(tiny_model().bfloat16())
    assert (logits(model) - exact).abs().max() <= tolerance * exact.abs().max()
    if how == "fast" and can_pack(torch.nn.Linear(2, 2).bfloat16()):
        assert sum(isinstance(m, PackedLinear) for m in model.modules()) == 5 * 4 + 2 * 5 + 1


def test_another_word_is_refused() -> None:
    assert list(WEIGHTS) == ["plain", "fast", "int8"]
    with pytest.raises(ValueError, match="weights='int4' is not one of plain, fast, int8"):
        hold_weights(tiny_model(), "int4")


def test_layers_with_adapters_stay_as_they_are() -> None:
    model = tiny_model()
    apply_tuning(model, TuneConfig(r=2))
    assert not any(isinstance(m, FusedLinear) for m in fuse_weights(model).modules())


def test_a_fused_model_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="only plain weights are saved"):
        save_model(fuse_weights(tiny_model()), tmp_path)
