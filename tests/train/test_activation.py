"""Recomputing activations changes memory and time, and nothing else."""

import shutil
from collections import Counter
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from lora import TuneConfig, apply_tuning
from minimllama import MiniMllama
from tests.tools.tiny import TINY, pictures, prompt, tiny_model, with_text, with_vision
from train.activation import blocks, checkpoint_blocks, offload_blocks, prepare_blocks
from train.settings import ComputeConfig

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


def with_settings(**settings: bool | str) -> MiniMllama:
    model = tiny_model()
    apply_tuning(model, TUNINGS[0])
    prepare_blocks(model, ComputeConfig(dtype="float32", **settings))  # type: ignore[arg-type]
    return model.train()


@pytest.mark.parametrize(
    "settings",
    [{"checkpoint_activations": True, "recompute": "selective"}, {"offload_activations": True},
     {"checkpoint_activations": True, "offload_activations": True}],
    ids=str,
)  # fmt: skip
def test_keeping_attention_and_the_hosts_memory_change_no_bit(settings: dict[str, bool | str]) -> None:
    plain, other = with_settings(), with_settings(**settings)
    losses = [loss_of(model) for model in (plain, other)]
    for loss in losses:
        loss.backward()
    assert torch.equal(*losses)
    for ours, theirs in zip(plain.parameters(), other.parameters(), strict=True):
        assert (ours.grad is None and theirs.grad is None) or torch.equal(ours.grad, theirs.grad)  # type: ignore[arg-type]


def test_offloading_leaves_the_weights_where_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    model, moved = with_settings(), []
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    inner = torch.autograd.graph.save_on_cpu.__init__

    def watched(self: torch.autograd.graph.save_on_cpu, *, pin_memory: bool) -> None:
        inner(self, pin_memory)
        to_host = self.pack_hook
        self.pack_hook = lambda x: (moved.append(x.untyped_storage().data_ptr()), to_host(x))[1]

    monkeypatch.setattr(torch.autograd.graph.save_on_cpu, "__init__", watched)
    offload_blocks(model)
    loss_of(model)
    assert len(moved) > 100
    assert not weights & set(moved)


def test_under_selective_recomputation_attention_runs_once_and_the_rest_twice() -> None:
    def calls(recompute: str) -> Counter[str]:
        counts: Counter[str] = Counter()

        class Count(TorchDispatchMode):
            def __torch_dispatch__(self, func, types, args=(), kwargs=None):
                counts[
                    "attention" if "scaled_dot_product" in str(func) and "backward" not in str(func) else str(func)
                ] += 1
                return func(*args, **(kwargs or {}))

        model = with_settings(checkpoint_activations=True, recompute=recompute)
        with Count():
            loss_of(model).backward()
        return counts

    all_of_it, selective = calls("blocks"), calls("selective")
    assert all_of_it["attention"] == 2 * selective["attention"] > 0
    assert selective["aten.silu.default"] == all_of_it["aten.silu.default"] > 0


def test_every_adapter_of_the_vision_tower_gets_a_gradient_through_recomputed_blocks() -> None:
    """A and B of every layer; with a B that is not zero, or A has no gradient."""
    model = with_settings(checkpoint_activations=True)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if ".lora_B" in name:
                p.fill_(0.01)
    loss_of(model).backward()
    found = {name: p.grad for name, p in model.named_parameters() if name.startswith("vision.") and ".lora_" in name}
    assert len(found) == 2 * 6 * (TINY.vision.n_local_layers + TINY.vision.n_global_layers)
    assert all(grad is not None and bool(grad.any()) for grad in found.values())


def test_compiled_blocks_give_the_same_loss_and_gradients() -> None:
    """Captured graphs of all kinds of block, run operation by operation: writing C++ for each takes minutes.

    1e-5 of the loss, 1e-4 of a gradient's largest element.
    """
    vision = with_vision(TINY, n_local_layers=1, n_global_layers=1, taps=(0,))
    config = with_text(vision, n_layers=2, cross_layers=(0,))
    losses, gradients = [], []
    for compiled in (False, True):
        model = tiny_model(config=config)
        apply_tuning(model, TuneConfig(r=3, alpha=6, dropout=0.0))
        prepare_blocks(model, ComputeConfig(dtype="float32", compile=compiled), backend="aot_eager")
        loss = loss_of(model.train())
        loss.backward()
        losses.append(float(loss.detach()))
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=0, atol=1e-4 * float(gradient.abs().max()) + 1e-9)


@pytest.mark.skipif(shutil.which("g++") is None, reason="the inductor needs a C++ compiler; there is no g++")
def test_blocks_that_the_inductor_has_compiled_give_the_same_loss_and_gradients(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The default backend, C++ and all: one self-attention block, as a text without a picture runs no other.

    1e-5 of the loss, 1e-4 of a gradient's largest element.
    """
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))  # nothing is ready
    monkeypatch.setattr("torch._inductor.config.compile_threads", 1)  # no processes of its own
    monkeypatch.setattr("torch._inductor.config.cpp.vec_isa_ok", True)  # no trial programs for the processor
    config = with_text(with_vision(TINY, n_local_layers=1, n_global_layers=1, taps=(0,)), n_layers=2, cross_layers=(0,))
    tokens = torch.stack([prompt(9, 1), prompt(9, 2)])
    losses, gradients = [], []
    for compiled in (False, True):
        model = tiny_model(config=config)
        apply_tuning(model, TuneConfig(r=3, alpha=6, dropout=0.0, targets=("text.layers.*.down_proj",)))
        with torch.no_grad():
            model.get_parameter("text.layers.1.mlp.down_proj.lora_B").fill_(0.01)  # otherwise A has no gradient
        prepare_blocks(model, ComputeConfig(dtype="float32", compile=compiled))
        loss = model.train()(tokens).log_softmax(-1)[..., 7].mean()
        loss.backward()
        losses.append(float(loss.detach()))
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    assert list(tmp_path.rglob("*.so"))  # of compiled C++
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        assert gradient.any()
        torch.testing.assert_close(gradients[1][name], gradient, rtol=0, atol=1e-4 * float(gradient.abs().max()))


def test_a_batch_of_a_known_shape_compiles_nothing_new() -> None:
    """Lengths are rounded up (train/dataset.py): batches of one bucket have one shape. Another one is a new graph."""
    vision = with_vision(TINY, n_local_layers=1, n_global_layers=1, taps=(0,))
    model = tiny_model(config=with_text(vision, n_layers=2, cross_layers=(0,)))
    apply_tuning(model, TuneConfig(r=3, alpha=6, dropout=0.0))
    torch._dynamo.reset()
    counters = torch._dynamo.utils.counters
    prepare_blocks(model, ComputeConfig(dtype="float32", compile=True), backend="eager")

    def graphs_after(length: int, seed: int, image_at: int) -> int:
        model.train()(prompt(length, seed, image_at=[image_at])[None], pictures([[(12, 9)]])).mean().backward()
        return counters["stats"]["unique_graphs"]

    counters.clear()
    first = graphs_after(16, 1, 2)
    assert first >= 4  # one for each block at least
    assert graphs_after(16, 2, 5) == first
    assert graphs_after(16, 3, 1) == first
    assert graphs_after(24, 1, 2) > first


def test_parameters_keep_their_names() -> None:
    names = [name for name, _ in tiny_model().named_parameters()]
    model = tiny_model()
    checkpoint_blocks(model)
    assert [name for name, _ in model.named_parameters()] == names
