"""Parts of a recipe that have no other home: batches, computing, saving, validating."""

from dataclasses import dataclass

from train.activation import RECOMPUTE
from train.ecg import LABEL_SETS

DTYPES = ("bfloat16", "float32")
METRICS = {"loss": False, "macro_auc": True, "macro_f1": True}  # of the validation; whether more is better


@dataclass(frozen=True, kw_only=True)
class BatchConfig:
    """How much is computed at once, by each rank.

    Attributes:
        images_per_forward: pages per forward pass.
        accumulate: forward passes per optimizer step.
    """

    images_per_forward: int = 4
    accumulate: int = 1

    def __post_init__(self) -> None:
        if self.images_per_forward < 1 or self.accumulate < 1:
            raise ValueError("batch: images_per_forward and accumulate must be positive")


@dataclass(frozen=True, kw_only=True)
class ComputeConfig:
    """How it is computed.

    Attributes:
        dtype: of the model's weights and activations; what is trained has a float32 copy.
        device: "auto" takes an accelerator if there is one.
        checkpoint_activations: recompute every block of both towers in the backward pass.
        recompute: "blocks": all of a block; "selective": all but the results of its attention.
        offload_activations: keep what the backward pass needs in the host's memory.
        compile: each block with torch.compile.
        drop_unused_tiles: leave the tile slots that a page does not use out of the vision tower. Published weights were
            trained with them; the adapter, or the model, remembers. Needs semantics = "meta".
        worst_first: before the first step, run the largest batch that the recipe allows, and forget it: too little
            memory shows in the first minute.
        threads: of PyTorch on the CPU; 0 leaves its default.
    """

    dtype: str = "bfloat16"
    device: str = "auto"
    checkpoint_activations: bool = False
    recompute: str = "blocks"
    offload_activations: bool = False
    compile: bool = False
    drop_unused_tiles: bool = False
    worst_first: bool = False
    threads: int = 0

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise ValueError(f"compute.dtype={self.dtype!r} is not one of {', '.join(DTYPES)}")
        if self.recompute not in RECOMPUTE:
            raise ValueError(f"compute.recompute={self.recompute!r} is not one of {', '.join(RECOMPUTE)}")
        if self.recompute != "blocks" and not self.checkpoint_activations:
            raise ValueError(f"compute.recompute={self.recompute!r} needs checkpoint_activations = true")
        if self.threads < 0:
            raise ValueError(f"compute.threads={self.threads} must not be negative")


@dataclass(frozen=True, kw_only=True)
class SaveConfig:
    """What is kept.

    Attributes:
        every: steps between checkpoints; 0 saves at the end only.
        keep: newest checkpoints to keep, beside the best.
        background: write a copy of the state while the run goes on; the last checkpoint is waited for.
        tensorboard: write the log for TensorBoard, too; it must be installed (extra "tensorboard").
    """

    every: int = 500
    keep: int = 2
    background: bool = False
    tensorboard: bool = False

    def __post_init__(self) -> None:
        if self.every < 0 or self.keep < 1:
            raise ValueError("save: every must not be negative, keep must be positive")


@dataclass(frozen=True, kw_only=True)
class ValidateConfig:
    """Loss and label scores on a fixed part of the validation split, while the run goes on.

    Attributes:
        every: steps between validations; 0: never.
        n: records.
        labels: of LABEL_SETS, to score; the first component's if empty.
        metric: of METRICS; its best checkpoint is kept, and `best` points at it.
        patience: end the run after this many validations without a new best; 0: never.
    """

    every: int = 0
    n: int = 64
    labels: str = ""
    metric: str = "macro_auc"
    patience: int = 0

    def __post_init__(self) -> None:
        if self.metric not in METRICS:
            raise ValueError(f"validate.metric={self.metric!r} is not one of {', '.join(METRICS)}")
        if self.labels and self.labels not in LABEL_SETS:
            raise ValueError(f"validate.labels={self.labels!r} is not one of {', '.join(LABEL_SETS)}")
        if self.every < 0 or self.n < 1 or self.patience < 0:
            raise ValueError("validate: every and patience must not be negative, n must be positive")
        if self.patience and not self.every:
            raise ValueError(f"validate.patience={self.patience} needs validate.every")
