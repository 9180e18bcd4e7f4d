"""Activation checkpointing per block, in both towers: keep a block's input, recompute the rest. arXiv:1604.06174.

The block's `forward` is replaced on the instance, so no parameter changes its name.
"""

from functools import partial

from torch import nn
from torch.utils.checkpoint import checkpoint

from minimllama import MiniMllama


def blocks(model: MiniMllama) -> list[nn.Module]:
    """All layers of the vision tower and of the text model, in order."""
    return [*model.vision.local_layers, *model.vision.global_layers, *model.text.layers]


def checkpoint_blocks(model: MiniMllama) -> None:
    """Recompute every block in the backward pass. Random state is kept, so dropout repeats itself."""
    for block in blocks(model):
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)
