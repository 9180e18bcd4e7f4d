"""AdamW in float32 whatever the model's dtype, warm-up and cosine, clipping.

Loshchilov & Hutter 2019, Alg. 2 (arXiv:1711.05101) and 2017 (arXiv:1608.03983); the paper, section IV.C.
"""

import math
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """How weights are updated.

    Attributes:
        peak_lr: after warm-up.
        warmup: share of all steps.
        final: last learning rate / peak.
        epochs: passes over the mixture.
        steps: optimizer steps; 0: as many as the epochs need.
        beta1, beta2, eps, weight_decay: of AdamW; decay applies to matrices only.
        clip: largest gradient norm.
        nonfinite: this many steps in a row whose loss or gradient is not finite end the run; they are never applied.
    """

    peak_lr: float = 2e-4
    warmup: float = 0.03
    final: float = 0.0
    epochs: float = 3.0
    steps: int = 0
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.0
    clip: float = 1.0
    nonfinite: int = 3

    def __post_init__(self) -> None:
        if not (self.peak_lr > 0 and self.clip > 0 and self.epochs > 0 and self.steps >= 0):
            raise ValueError("optim: peak_lr, clip and epochs must be positive, steps must not be negative")
        if self.nonfinite < 1:
            raise ValueError(f"optim.nonfinite={self.nonfinite} must be positive")
        if not 0 <= self.warmup < 1:
            raise ValueError(f"optim.warmup={self.warmup} must lie in [0, 1)")
        if not 0 <= self.final <= 1:
            raise ValueError(f"optim.final={self.final} must lie in [0, 1]: it is a share of peak_lr")


def learning_rate(step: int, n_steps: int, config: OptimConfig) -> float:
    """Of step 0..n_steps - 1: a linear rise over the warm-up, then half a cosine down to `final`."""
    n_warmup = math.ceil(config.warmup * n_steps)
    if step < n_warmup:
        return config.peak_lr * (step + 1) / n_warmup
    progress = (step - n_warmup) / max(n_steps - n_warmup, 1)
    return config.peak_lr * (config.final + (1 - config.final) * 0.5 * (1 + math.cos(math.pi * progress)))


def local(tensor: Tensor) -> Tensor:
    """The part of a tensor that this rank holds: all of it, unless it is spread over ranks."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def _master(p: Tensor) -> Tensor:
    """A float32 parameter itself (or this rank's part of it, in the same memory); a float32 copy of any other."""
    if p.dtype != torch.float32:
        return p.detach().float().requires_grad_()
    return p.to_local().detach().requires_grad_() if isinstance(p, DTensor) else p


def spread_like(value: Tensor, p: Tensor) -> Tensor:
    """This rank's part of something of p's shape -> the whole, spread like p."""
    if not isinstance(p, DTensor):
        return value
    return DTensor.from_local(value, p.device_mesh, p.placements, run_check=False, shape=p.shape, stride=p.stride())


class MasterAdamW:
    """AdamW over float32 copies of the trainable parameters; a float32 parameter is its own copy.

    Of a model that is spread over ranks (before this is made) each rank updates its own part.

    Args:
        model: its parameters with requires_grad are updated.
        config: of the optimizer.
    """

    def __init__(self, model: nn.Module, config: OptimConfig) -> None:
        self.config = config
        self.trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        if not self.trained:
            raise ValueError("nothing to train: no parameter has requires_grad")
        self.masters = {name: _master(p) for name, p in self.trained.items()}
        groups = [
            {
                "params": [p for p in self.masters.values() if p.dim() > 1],
                "weight_decay": config.weight_decay,
            },
            {"params": [p for p in self.masters.values() if p.dim() <= 1], "weight_decay": 0.0},
        ]
        self.adamw = torch.optim.AdamW(
            [group for group in groups if group["params"]],
            lr=config.peak_lr,
            betas=(config.beta1, config.beta2),
            eps=config.eps,
        )

    @torch.no_grad()
    def collect(self) -> None:
        """Add the gradients to the masters', in float32; called after every backward pass, sums are float32 too."""
        for name, p in self.trained.items():
            master = self.masters[name]
            if master is not p and p.grad is not None:
                gradient = local(p.grad).float()
                master.grad = gradient if master.grad is None else master.grad.add_(gradient)
                p.grad = None

    def gradient_norm(self) -> Tensor:
        """Euclidean norm over all trained parameters, of all ranks, float32; collects the gradients."""
        self.collect()
        norms = [p.grad.norm() for p in self.masters.values() if p.grad is not None]
        norm = torch.stack(norms).norm() if norms else torch.zeros(())
        first = next(iter(self.trained.values()))
        if isinstance(first, DTensor):  # the other dimension of a mesh holds copies
            squares = norm.square()
            dist.all_reduce(squares, group=first.device_mesh.get_group("shard"))
            norm = squares.sqrt()
        return norm

    @torch.no_grad()
    def step(self, norm: Tensor, lr: float) -> None:
        """Clip to the configured norm, update, copy back, and forget the gradients."""
        shrink = (self.config.clip / (norm + 1e-6)).clamp(max=1.0)
        for p in self.masters.values():
            if p.grad is not None:
                p.grad.mul_(shrink)
        for group in self.adamw.param_groups:
            group["lr"] = lr
        self.adamw.step()
        self.adopt()
        self.forget()

    def forget(self) -> None:
        """Drop all gradients."""
        for p in (*self.trained.values(), *self.masters.values()):
            p.grad = None

    @torch.no_grad()
    def tensors(self) -> dict[str, Tensor]:
        """All state by flat names, spread like the parameters; writing into them changes it.

        Call `adopt` afterwards. Moments that do not exist yet are made, as zeros.
        """
        found: dict[str, Tensor] = {}
        for name, master in self.masters.items():
            state, like = self.adamw.state[master], self.trained[name]
            if not state:
                state["step"] = torch.zeros((), dtype=torch.float32)
                state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(master), torch.zeros_like(master)
            found[f"master.{name}"] = spread_like(master.detach(), like)
            found[f"step.{name}"] = state["step"]
            for moment in ("exp_avg", "exp_avg_sq"):
                found[f"{moment}.{name}"] = spread_like(state[moment], like)
        return found

    @torch.no_grad()
    def adopt(self) -> None:
        """Give the model the masters' values."""
        for name, p in self.trained.items():
            if p.dtype != torch.float32:
                local(p).copy_(self.masters[name])
