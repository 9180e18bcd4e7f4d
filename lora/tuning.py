"""Three ways to fine-tune, one word in a recipe: "lora", "partial" (projector and cross-attention), "full".

The paper, sections IV.B (LoRA on every linear layer but lm_head and the embedding) and V.B.3 (partial
tuning).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from lora.layers import LoraLinear
from lora.targets import find_targets, is_in_cross_layer
from minimllama import MiniMllama


@dataclass(frozen=True, kw_only=True)
class TuneConfig:
    """What is trainable.

    Attributes:
        method: of METHODS.
        r, alpha, dropout, targets, rslora: of the adapters, for method "lora"; see `LoraLinear` and
            `find_targets`.
        seed: of the adapters' first values.
    """

    method: str = "lora"
    r: int = 64
    alpha: float = 128.0
    dropout: float = 0.05
    targets: str | tuple[str, ...] = "all-linear"
    rslora: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ValueError(f"tuning.method={self.method!r} is not one of {', '.join(METHODS)}")
        if self.r < 1 or self.alpha <= 0:
            raise ValueError(f"tuning.r={self.r} and alpha={self.alpha} must be positive")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"tuning.dropout={self.dropout} must lie in [0, 1)")


@dataclass(frozen=True, kw_only=True)
class TuneReport:
    """What `apply_tuning` made trainable.

    Attributes:
        n_trainable, n_total: parameters; n_total includes adapters.
        n_modules: adapted layers (lora), or modules that own a trainable parameter.
    """

    method: str
    n_trainable: int
    n_total: int
    n_modules: int

    def __str__(self) -> str:
        share = 100 * self.n_trainable / self.n_total
        counts = f"{self.n_trainable:,} of {self.n_total:,} parameters ({share:.2f} %)"
        return f"{self.method}: {counts} in {self.n_modules} modules"


def replace_module(model: MiniMllama, name: str, new: torch.nn.Module) -> None:
    """Put `new` at a path of the model."""
    parent, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(parent), leaf, new)


def refuse_adapters(model: MiniMllama) -> None:
    """Raise ValueError if the model has adapters."""
    if any(isinstance(module, LoraLinear) for module in model.modules()):
        raise ValueError("the model has adapters already: merge_adapters first")


def add_adapters(model: MiniMllama, names: Sequence[str], config: TuneConfig) -> None:
    """Freeze the model and put adapters on these layers.

    Raises:
        ValueError: if the model has adapters already.
    """
    refuse_adapters(model)
    model.requires_grad_(False)
    generator = torch.Generator().manual_seed(config.seed)  # its own: a GPU's may be seeded for this rank's dropout
    for name in names:
        base = model.get_submodule(name)
        assert isinstance(base, torch.nn.Linear)
        adapted = LoraLinear(base, config.r, config.alpha, config.dropout, rslora=config.rslora, generator=generator)
        replace_module(model, name, adapted.train(base.training))


def _lora(model: MiniMllama, config: TuneConfig) -> None:
    add_adapters(model, find_targets(model, config.targets), config)


def _partial(model: MiniMllama, config: TuneConfig) -> None:
    for name, p in model.named_parameters():
        p.requires_grad_(name.startswith("projector.") or is_in_cross_layer(name, model))


def _full(model: MiniMllama, config: TuneConfig) -> None:
    model.requires_grad_(True)


METHODS: dict[str, Callable[[MiniMllama, TuneConfig], None]] = {
    "lora": _lora,
    "partial": _partial,
    "full": _full,
}


def apply_tuning(model: MiniMllama, config: TuneConfig) -> TuneReport:
    """Make the model trainable as configured.

    Args:
        model: changed in place; under "lora" its own parameters are frozen and keep their bytes.
        config: method and, for "lora", the adapters.

    Raises:
        ValueError: if a target matches nothing, or the model has adapters already.
    """
    refuse_adapters(model)
    METHODS[config.method](model, config)
    trainable = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    return TuneReport(
        method=config.method,
        n_trainable=sum(p.numel() for _, p in trainable),
        n_total=model.n_parameters(),
        n_modules=len({name.rpartition(".")[0] for name, _ in trainable}),
    )
