"""Learning rate, clipping, AdamW with float32 masters."""

import math

import pytest
import torch
from torch import nn

from train.optim import MasterAdamW, OptimConfig, learning_rate


def layers(dtype: torch.dtype = torch.float32) -> nn.Sequential:
    """Two layers with biases, and one that is frozen."""
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2), nn.Linear(2, 2)).to(dtype)
    model[2].requires_grad_(False)
    return model


def fill_gradients(model: nn.Module, seed: int, size: float = 1.0) -> None:
    generator = torch.Generator().manual_seed(seed)
    for p in model.parameters():
        if p.requires_grad:
            p.grad = (size * torch.randn(p.shape, generator=generator)).to(p.dtype)


# equation


@pytest.mark.parametrize(
    ("step", "share"),
    [
        (0, 1 / 4),  # four steps of warm-up
        (3, 1.0),
        (4, 1.0),
        (12, 0.1 + 0.9 * 0.5),  # half of the sixteen steps after it
        (16, 0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * 12 / 16))),
        (19, 0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * 15 / 16))),
    ],
)
def test_the_learning_rate_rises_linearly_and_falls_with_half_a_cosine(step: int, share: float) -> None:
    config = OptimConfig(peak_lr=0.3, warmup=0.2, final=0.1)
    assert learning_rate(step, 20, config) == pytest.approx(0.3 * share, rel=1e-12)


def test_without_warm_up_the_first_step_has_the_peak() -> None:
    assert learning_rate(0, 5, OptimConfig(peak_lr=0.3, warmup=0.0)) == 0.3


def test_a_run_of_one_step_has_a_learning_rate() -> None:
    assert learning_rate(0, 1, OptimConfig(peak_lr=0.3, warmup=0.5)) == 0.3


def test_the_first_step_of_adamw_by_hand() -> None:
    model = nn.Linear(2, 1, bias=False)
    model.weight.data = torch.tensor([[1.0, -2.0]])
    optimizer = MasterAdamW(model, OptimConfig(weight_decay=0.1, eps=1e-8, clip=100.0))
    model.weight.grad = torch.tensor([[0.5, 3.0]])
    optimizer.step(optimizer.gradient_norm(), lr=0.01)
    # bias-corrected moments are g and g^2: the step is lr * sign(g); decay takes lr * 0.1 of the weight first
    assert model.weight[0].tolist() == pytest.approx([1 - 0.001 - 0.01, -2 + 0.002 - 0.01], abs=1e-6)


@pytest.mark.parametrize(("size", "share"), [(1.0, 0.1), (0.01, 1.0)])
def test_gradients_are_shrunk_to_the_clip_and_never_enlarged(size: float, share: float) -> None:
    model = layers()
    optimizer = MasterAdamW(model, OptimConfig(clip=0.1 * 5.0))
    fill_gradients(model, 1, 1.0)
    scale = 5.0 * size / float(optimizer.gradient_norm())  # a norm of 5 * size
    for p in model.parameters():
        if p.grad is not None:
            p.grad *= scale
    before = [p.grad.clone() for p in optimizer.masters.values()]
    norm = optimizer.gradient_norm()
    assert float(norm) == pytest.approx(5.0 * size, rel=1e-5)
    optimizer.step(norm, lr=0.0)
    moments = [state["exp_avg"] / 0.1 for state in optimizer.adamw.state.values()]  # (1 - beta1) g
    for moment, gradient in zip(moments, sorted_like(optimizer, before), strict=True):
        torch.testing.assert_close(moment, share * gradient, rtol=1e-4, atol=1e-8)


def sorted_like(optimizer: MasterAdamW, values: list[torch.Tensor]) -> list[torch.Tensor]:
    """Values in the order of the masters -> in the order of AdamW's groups."""
    of = {id(p): value for p, value in zip(optimizer.masters.values(), values, strict=True)}
    return [of[id(p)] for group in optimizer.adamw.param_groups for p in group["params"]]


# parity


def test_in_float32_it_is_torchs_adamw() -> None:
    ours, theirs = layers(), layers()
    theirs.load_state_dict(ours.state_dict())
    optimizer = MasterAdamW(ours, OptimConfig(clip=1e9, weight_decay=0.1, beta2=0.95))
    trained = [p for p in theirs.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.dim() > 1], "weight_decay": 0.1},
        {"params": [p for p in trained if p.dim() == 1], "weight_decay": 0.0},
    ]
    reference = torch.optim.AdamW(groups, lr=0.02, betas=(0.9, 0.95), eps=1e-8)
    for seed in range(5):
        fill_gradients(ours, seed)
        fill_gradients(theirs, seed)
        optimizer.step(optimizer.gradient_norm(), lr=0.02)
        reference.step()
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))


# property


def test_bfloat16_weights_follow_float32_masters() -> None:
    """Steps of 1e-4 vanish in bfloat16 beside a weight of 1; the master adds them up."""
    model = nn.Linear(1, 1, bias=False).bfloat16()
    model.weight.data.fill_(1.0)
    optimizer = MasterAdamW(model, OptimConfig(clip=1e9))
    for _ in range(100):
        model.weight.grad = torch.ones_like(model.weight)
        optimizer.step(optimizer.gradient_norm(), lr=1e-4)
    master = next(iter(optimizer.masters.values()))
    assert master.dtype == torch.float32
    assert master.item() == pytest.approx(0.99, abs=1e-5)
    assert model.weight.dtype == torch.bfloat16
    assert model.weight.item() == torch.tensor(master.item()).bfloat16().item()


def test_biases_and_norms_do_not_decay() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3))
    before = {name: p.clone() for name, p in model.named_parameters()}
    optimizer = MasterAdamW(model, OptimConfig(weight_decay=0.5))
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step(optimizer.gradient_norm(), lr=0.1)
    changed = [name for name, p in model.named_parameters() if not torch.equal(p, before[name])]
    assert changed == ["0.weight"]


def test_frozen_parameters_are_not_known_to_it() -> None:
    model = layers()
    assert list(MasterAdamW(model, OptimConfig()).masters) == ["0.weight", "0.bias", "1.weight", "1.bias"]


def test_the_norm_is_over_all_parameters_and_a_step_forgets_the_gradients() -> None:
    for dtype in (torch.float32, torch.bfloat16):
        model = layers(dtype)
        optimizer = MasterAdamW(model, OptimConfig())
        fill_gradients(model, 3)
        squares = sum(float(p.grad.double().square().sum()) for p in model.parameters() if p.grad is not None)
        norm = optimizer.gradient_norm()
        assert float(norm) == pytest.approx(math.sqrt(squares), rel=1e-6)
        optimizer.step(norm, 0.1)
        assert all(p.grad is None for p in (*model.parameters(), *optimizer.masters.values()))


def test_gradients_of_micro_batches_add_up_in_float32() -> None:
    """257 has no bfloat16."""
    model = nn.Linear(1, 1, bias=False).bfloat16()
    optimizer = MasterAdamW(model, OptimConfig())
    for value in (256.0, 1.0):
        model.weight.grad = torch.full_like(model.weight, value)
        optimizer.collect()
    assert model.weight.grad is None
    assert float(optimizer.gradient_norm()) == 257.0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_its_state_goes_on_where_it_stopped(dtype: torch.dtype) -> None:
    def steps(model: nn.Module, optimizer: MasterAdamW, seeds: range) -> None:
        for seed in seeds:
            fill_gradients(model, seed)
            optimizer.step(optimizer.gradient_norm(), lr=0.03)

    straight = layers(dtype)
    resumed = layers(dtype)
    resumed.load_state_dict(straight.state_dict())
    first = MasterAdamW(straight, OptimConfig())
    steps(straight, first, range(3))
    second = MasterAdamW(resumed, OptimConfig())
    saved, restored = first.tensors(), second.tensors()
    assert saved.keys() == restored.keys()
    with torch.no_grad():
        for name, value in restored.items():  # as a checkpoint is read
            value.copy_(saved[name])
    second.adopt()
    steps(resumed, second, range(3, 6))
    steps(straight, first, range(3, 6))
    assert all(torch.equal(a, b) for a, b in zip(straight.parameters(), resumed.parameters(), strict=True))


# refusal


def test_a_model_without_anything_to_train_is_refused() -> None:
    with pytest.raises(ValueError, match="no parameter has requires_grad"):
        MasterAdamW(nn.Linear(2, 2).requires_grad_(False), OptimConfig())


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"peak_lr": 0.0}, "peak_lr, clip and epochs must be positive"),
        ({"clip": 0.0}, "peak_lr, clip and epochs must be positive"),
        ({"epochs": -1.0}, "must be positive"),
        ({"steps": -1}, "steps must not be negative"),
        ({"warmup": 1.0}, r"optim.warmup=1.0 must lie in \[0, 1\)"),
    ],
)
def test_a_contradiction_is_refused(fields: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        OptimConfig(**fields)
