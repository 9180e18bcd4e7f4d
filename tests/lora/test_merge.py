"""Merging: plain weights that do what base and adapter did."""

import pytest
import torch
from torch import Tensor

from lora import LoraLinear, TuneConfig, apply_tuning, merge_adapters
from minimllama import ImageBatch, load_model, save_model
from tests.lora.conftest import adapted_model
from tests.tools.tiny import TINY, tiny_model


def test_a_merged_model_gives_the_adapted_models_logits(tokens: Tensor, images: ImageBatch) -> None:
    model = adapted_model()
    adapted = model(tokens, images)
    base = tiny_model()(tokens, images)
    merged = merge_adapters(model)(tokens, images)
    torch.testing.assert_close(merged, adapted, rtol=0, atol=1e-4)  # logits of size 10 in float32
    assert (merged - base).abs().max() > 0.1  # the adapters did something


def test_a_merged_model_is_plain_again() -> None:
    model = merge_adapters(adapted_model())
    assert not any(isinstance(module, LoraLinear) for module in model.modules())
    assert [name for name, _ in model.named_parameters()] == [name for name, _ in tiny_model().named_parameters()]
    assert not model.training


def test_a_merged_model_is_a_checkpoint_like_any_other(tmp_path, tokens: Tensor, images: ImageBatch) -> None:
    model = merge_adapters(adapted_model())
    save_model(model, tmp_path / "merged")
    assert torch.equal(load_model(tmp_path / "merged")(tokens, images), model(tokens, images))


def test_a_bfloat16_base_is_merged_in_float32_and_rounded_once() -> None:
    model = tiny_model().bfloat16()
    apply_tuning(model, TuneConfig(r=3, alpha=6, targets="projector"))
    layer = model.projector
    assert isinstance(layer, LoraLinear)
    torch.nn.init.normal_(layer.lora_B)
    exact = layer.weight.double() + 2 * layer.lora_B.double() @ layer.lora_A.double()
    merge_adapters(model)
    assert model.projector.weight.dtype == torch.bfloat16
    assert model.projector.weight.shape == (TINY.text.width, TINY.vision.n_features)
    # half a unit in the last of 8 bits is at most 2^-8 of the number; the rest is float32's rounding before it
    assert ((model.projector.weight.double() - exact).abs() <= (2**-8 + 1e-5) * exact.abs()).all()


def test_a_model_without_adapters_is_refused() -> None:
    with pytest.raises(ValueError, match="no adapters to merge"):
        merge_adapters(tiny_model())
