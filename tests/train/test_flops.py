"""Operations of a step: against counts made on the published model, and against torch's own counter."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from lora import TuneConfig, apply_tuning
from minimllama import PRESETS, MiniMllama
from tests.tools.tiny import pictures, prompt, tiny_model
from train.flops import Work, peak_flops, step_flops


@pytest.mark.parametrize(
    ("preset", "length", "forward", "both"),
    [("11b", 256, 16.31, 36.92), ("11b", 512, 21.36, 47.36), ("11b-instruct", 1024, 41.33, 93.79)],
)
def test_the_published_model_with_the_papers_adapters(preset: str, length: int, forward: float, both: float) -> None:
    """TFLOP of one page and one dialog whose whole vocabulary is computed; two decimals."""
    with torch.device("meta"):
        model = MiniMllama(PRESETS[preset])
        apply_tuning(model, TuneConfig(r=64))
    counted = step_flops(model, Work(pages=1, rows=1, length=length, answers=length))
    assert [value / 1e12 for value in counted] == pytest.approx([forward, both], rel=1.5e-3)


@pytest.mark.parametrize("method", ["partial", "full"])
def test_torchs_counter_counts_the_same(method: str) -> None:
    """On the meta device, where attention is matrix products. First layers, and layers before any trained one: 3 %."""
    model = tiny_model().to("meta")
    apply_tuning(model, TuneConfig(method=method))
    tokens, images = prompt(24, 1, image_at=[2])[None], pictures([[(24, 24)]])
    sight = model.see(tokens, images)
    with FlopCounterMode(display=False) as counter:
        model(tokens.to("meta"), images.to("meta"), sight.to("meta")).sum().backward()
    counted = step_flops(model, Work(pages=1, rows=1, length=24, answers=24))[1]
    assert counted == pytest.approx(counter.get_total_flops(), rel=0.03)


def test_cards_are_known_by_a_part_of_their_name() -> None:
    assert peak_flops("NVIDIA H100 80GB HBM3") == 989e12
    assert peak_flops("NVIDIA A100-SXM4-80GB") == 312e12
    assert peak_flops("another") is None
