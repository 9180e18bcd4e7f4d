"""Plain weights again: W + s B A."""

import torch

from lora.layers import LoraLinear
from lora.tuning import replace_module
from minimllama import MiniMllama


@torch.no_grad()
def merge_adapters(model: MiniMllama) -> MiniMllama:
    """Replace every adapted layer by a plain one with the update added, in place.

    Raises:
        ValueError: if there are no adapters, so that a merge that does nothing cannot pass unseen.
    """
    adapted = {name: module for name, module in model.named_modules() if isinstance(module, LoraLinear)}
    if not adapted:
        raise ValueError("the model has no adapters to merge")
    for name, module in adapted.items():
        replace_module(model, name, module.merged().train(module.training))
    return model
