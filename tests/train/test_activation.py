"""Recomputing activations changes memory and time, and nothing else."""

from collections import Counter

import pytest
import torch
from torch import Tensor

from lora import TuneConfig, apply_tuning
from minimllama import MiniMllama
from tests.tools.tiny import TINY, pictures, prompt, tiny_model
from train.activation import blocks, checkpoint_blocks

TUNINGS = [TuneConfig(r=3, alpha=6, dropout=0.3), TuneConfig(method="full"), TuneConfig(method="partial")]


def loss_of(model: MiniMllama) -> Tensor:
    """Of two rows with a picture each, with the same dropout every time."""
    torch.manual_seed(5)
    tokens = torch.stack([prompt(9, 1, image_at=[2]), prompt(9, 2, image_at=[3])])
    return model(tokens, pictures([[(12, 9)], [(30, 11)]])).log_softmax(-1)[..., 7].mean()


def tuned(config: TuneConfig, *, recompute: bool) -> MiniMllama:
    model = tiny_model()
    apply_tuning(model, config)
    if recompute:
        checkpoint_blocks(model)
    return model.train()


@pytest.mark.parametrize("config", TUNINGS, ids=lambda config: config.method)
def test_loss_and_gradients_are_the_same_bits(config: TuneConfig) -> None:
    plain, recomputed = tuned(config, recompute=False), tuned(config, recompute=True)
    losses = [loss_of(model) for model in (plain, recomputed)]
    for loss in losses:
        loss.backward()
    assert torch.equal(*losses)
    pairs = zip(plain.named_parameters(), recomputed.named_parameters(), strict=True)
    for (name, ours), (other_name, theirs) in pairs:
        assert name == other_name
        assert (ours.grad is None) == (theirs.grad is None)
        if ours.grad is not None and theirs.grad is not None:
            assert torch.equal(ours.grad, theirs.grad), name


def test_every_block_of_both_towers_runs_once_more_in_the_backward_pass() -> None:
    counts: Counter[int] = Counter()
    model = tuned(TUNINGS[0], recompute=True)
    every = blocks(model)
    assert len(every) == TINY.vision.n_local_layers + TINY.vision.n_global_layers + TINY.text.n_layers
    for number, block in enumerate(every):
        block.attention.register_forward_hook(lambda *_, number=number: counts.update([number]))  # type: ignore[union-attr]
    loss = loss_of(model)
    assert set(counts.values()) == {1}
    loss.backward()
    assert set(counts.values()) == {2}
    assert len(counts) == len(every)


def test_fewer_activations_are_kept() -> None:
    def kept(*, recompute: bool) -> int:
        total = 0

        def pack(tensor: Tensor) -> Tensor:
            nonlocal total
            total += tensor.nbytes
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            loss_of(tuned(TUNINGS[0], recompute=recompute))
        return total

    assert kept(recompute=True) < 0.5 * kept(recompute=False)


def test_parameters_keep_their_names() -> None:
    names = [name for name, _ in tiny_model().named_parameters()]
    model = tiny_model()
    checkpoint_blocks(model)
    assert [name for name, _ in model.named_parameters()] == names
