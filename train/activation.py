"""What a block does with its activations, in both towers: keep, recompute (arXiv:1604.06174), or move to the host.

The block's `forward` is replaced on the instance, so no parameter changes its name.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from minimllama import MiniMllama

RECOMPUTE = ("blocks", "selective")


def blocks(model: MiniMllama) -> list[nn.Module]:
    """All layers of the vision tower and of the text model, in order."""
    return [*model.vision.local_layers, *model.vision.global_layers, *model.text.layers]


def is_attention(operation: Any) -> bool:
    """Whether an operation that PyTorch dispatches is attention itself, in whichever kernel."""
    return "scaled_dot_product" in str(operation)


def _keep_attention(context: Any, operation: Any, *arguments: Any, **options: Any) -> CheckpointPolicy:
    """Attention is dear to compute and small to keep: its scores never leave the kernel."""
    return CheckpointPolicy.MUST_SAVE if is_attention(operation) else CheckpointPolicy.PREFER_RECOMPUTE


def checkpoint_blocks(model: MiniMllama, recompute: str = "blocks") -> None:
    """Recompute every block in the backward pass. Random state is kept, so dropout repeats itself.

    Args:
        model: changed in place.
        recompute: "blocks": all of it; "selective": all but the results of attention, which are kept.

    Raises:
        ValueError: if `recompute` is neither.
    """
    if recompute not in RECOMPUTE:
        raise ValueError(f"recompute={recompute!r} is not one of {', '.join(RECOMPUTE)}")
    options: dict[str, Any] = {"use_reentrant": False}
    if recompute == "selective":
        options["context_fn"] = partial(create_selective_checkpoint_contexts, _keep_attention)
    for block in blocks(model):
        block.forward = partial(checkpoint, block.forward, **options)


class _OnHost(torch.autograd.graph.save_on_cpu):
    """What is saved for the backward pass goes to the host, except a block's weights, which stay anyway."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__(pin_memory=torch.cuda.is_available())
        weights = {p.untyped_storage()._cdata for p in block.parameters()}
        to_host, from_host = self.pack_hook, self.unpack_hook
        self.pack_hook = lambda x: x if x.untyped_storage()._cdata in weights else to_host(x)
        self.unpack_hook = lambda kept: kept if isinstance(kept, Tensor) else from_host(kept)


def _on_host(block: nn.Module, forward: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    with _OnHost(block):
        return forward(*arguments, **options)


def offload_blocks(model: MiniMllama) -> None:
    """Keep what the backward pass needs beside the weights in host memory instead of the accelerator's."""
    for block in blocks(model):
        block.forward = partial(_on_host, block, block.forward)


def prepare_blocks(model: MiniMllama, compute: Any, backend: str = "inductor") -> None:
    """Apply `compute.checkpoint_activations`, `recompute`, `offload_activations` and `compile` to every block.

    Args:
        model: changed in place.
        compute: of the recipe.
        backend: of torch.compile.
    """
    if compute.checkpoint_activations:
        checkpoint_blocks(model, compute.recompute)
    if compute.offload_activations:
        offload_blocks(model)
    if compute.compile:
        for block in blocks(model):
            block.compile(backend=backend)
