"""Every idea's switch: without it, the same numbers by another way."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.ideas import IDEAS, SWITCHES, FusedKernel, chosen
from lora import TuneConfig, apply_tuning
from lora.layers import draw_dropped
from lora.peft_format import adapted_layers
from minimllama import image_visibility
from minimllama.blocked import BlockedAttention
from minimllama.weights import WEIGHTS
from tests.tools.tiny import clear_unused_rows, pictures, prompt, tiny_model
from train.loss import answer_loss


def tiny_job() -> Any:
    """What a switch is given: a model with adapters, and its loss."""
    model = clear_unused_rows(tiny_model())
    apply_tuning(model, TuneConfig(r=3, alpha=6, dropout=0.0))
    for layer in adapted_layers(model).values():
        torch.nn.init.normal_(layer.lora_B, std=0.1)
    return SimpleNamespace(model=model.train(), answer_loss=answer_loss)


def numbers(job: Any) -> list[Tensor]:
    """Loss of three answer tokens to a page of one tile, and the gradient of every adapter."""
    tokens, images = prompt(9, 1, image_at=[2])[None], pictures([[(12, 12)]])
    labels = torch.full_like(tokens, -100)
    labels[0, -3:] = torch.tensor([11, 12, 13])
    visible = image_visibility(tokens, images.n_tiles, job.model.config.image_token_id)
    loss = job.answer_loss(job.model.text.lm_head, job.model(tokens, images, visible, hidden=True), labels, 3)
    return [loss, *torch.autograd.grad(loss, [p for p in job.model.parameters() if p.requires_grad])]


@pytest.mark.parametrize("name", [name for name in SWITCHES if name != "huge pages"])  # that one: test_files.py
def test_without_an_idea_the_numbers_are_the_same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    job = tiny_job()
    with_it = numbers(job)
    monkeypatch.setattr(*SWITCHES[name](job))
    for ours, theirs in zip(with_it, numbers(job), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0.0, atol=1e-4 * theirs.abs().max().item() + 1e-6)


def test_the_kernel_in_the_place_of_the_blocks_does_the_same() -> None:
    q, k, v = (torch.randn(2, heads, n, 6) for heads, n in ((4, 9), (2, 11), (2, 11)))
    torch.testing.assert_close(BlockedAttention.apply(q, k, v, 0.3, 25), FusedKernel.apply(q, k, v, 0.3))


def test_without_gaps_a_mask_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    shape = torch.Size([300, 40])
    assert draw_dropped(shape, 0.1, torch.device("cpu")).dtype == torch.int32
    monkeypatch.setattr(*SWITCHES["gaps"](None))
    assert draw_dropped(shape, 0.1, torch.device("cpu")).dtype == torch.bool


def test_every_idea_is_measured_against_something() -> None:
    assert {idea.off["without"] for idea in IDEAS if "without" in idea.off} == SWITCHES.keys()
    assert {idea.on["weights"] for idea in IDEAS if "weights" in idea.on} == WEIGHTS.keys() - {"plain"}
    assert all(idea.on != idea.off for idea in IDEAS)
    assert [idea.name for idea in chosen(["no mask"])] == ["no mask in the vision tower, 4 tiles"]
    with pytest.raises(ValueError, match="no idea has magic in its name; there are padding computed once"):
        chosen(["magic"])
