"""Weights in eight bits: the nearest of 255 values per output, and nothing but computing."""

from pathlib import Path

import pytest
import torch
from torch import nn

from lora import TuneConfig, apply_tuning
from minimllama import next_token_logits, save_model
from minimllama.int8 import FEW, Int8Linear, quantise, quantise_weights
from tests.tools.tiny import pictures, prompt, tiny_model


def test_every_weight_is_the_nearest_multiple_of_its_outputs_scale() -> None:
    weight = torch.tensor([[1.27, -0.5, 0.004], [0.0, 0.0, 0.0], [-254.0, 1.0, 3.1]])
    quantised, scale = quantise(weight)
    assert quantised.tolist() == [[127, -50, 0], [0, 0, 0], [-127, 0, 2]]
    torch.testing.assert_close(scale, torch.tensor([0.01, 1e-12, 2.0]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.no_grad()
def test_no_weight_is_off_by_more_than_half_a_step_in_either_dtype(dtype: torch.dtype) -> None:
    weight = torch.randn(5000, 16).to(dtype)  # more outputs than are rounded at a time
    quantised, scale = quantise(weight)
    assert scale.dtype == dtype
    steps = (weight.float() / scale.float()[:, None] - quantised.float()).abs().max()
    assert steps <= (0.51 if dtype == torch.float32 else 1.01)  # the largest weight of a row may be cut to 127 steps


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
@pytest.mark.parametrize(("inputs", "outputs"), [(48, 64), (24, 40)])
@pytest.mark.parametrize("rows", [1, FEW, FEW + 1])
@torch.no_grad()
def test_the_product_is_that_of_the_widened_weight(
    rows: int, inputs: int, outputs: int, dtype: torch.dtype, tolerance: float
) -> None:
    layer = Int8Linear(nn.Linear(inputs, outputs, bias=rows > 1).to(dtype))
    x = torch.randn(rows, 1, inputs).to(dtype)
    expected = x.float() @ layer.rows(range(outputs)).T + (0 if layer.bias is None else layer.bias.float())
    assert layer(x).dtype == dtype
    torch.testing.assert_close(layer(x).float(), expected, atol=tolerance, rtol=tolerance)  # two roundings of bfloat16


@torch.no_grad()
def test_a_models_log_odds_stay_close() -> None:
    images, prompts = pictures([[(30, 20)], [(20, 20)]]), [prompt(9, 1, image_at=[2]), prompt(6, 2, image_at=[1])]
    suffixes = [torch.tensor([20, 21]), torch.tensor([30])]
    exact, ours = (next_token_logits(m, prompts, suffixes, [60, 7], images) for m in (tiny_model(), quantised_model()))
    assert 0 < (ours - exact).abs().max() < 0.02 * exact.abs().max() + 0.02  # rounding to 1/254 of a row's largest


def quantised_model():
    return quantise_weights(tiny_model())


def test_the_text_model_takes_a_quarter_of_float32() -> None:
    held = sum(b.nbytes for b in quantised_model().text.buffers())
    dense = sum(m.weight.nbytes for m in tiny_model().text.modules() if isinstance(m, nn.Linear))
    assert 0.25 < held / dense < 0.28  # and the scales


def test_a_quantised_model_is_neither_saved_nor_trained(tmp_path: Path) -> None:
    model = quantised_model()
    with pytest.raises(ValueError, match="only plain weights are saved"):
        save_model(model, tmp_path)
    with pytest.raises(TypeError, match="not on a Int8Linear"):
        apply_tuning(model, TuneConfig(r=2))


def test_adapters_must_be_merged_first() -> None:
    model = tiny_model()
    apply_tuning(model, TuneConfig(r=2))
    with pytest.raises(TypeError, match="not for a LoraLinear: merge adapters first"):
        quantise_weights(model)
