"""Random weights for training from scratch, and for models that tests and benchmarks make themselves.

The published checkpoints never need this. Widths follow GPT-2 (Radford et al. 2019, sec. 2.3): projections into the
residual stream are scaled down by the square root of their number.
"""

import math

import torch
from torch import nn

from minimllama.model import MiniMllama

RESIDUAL = ("o_proj.weight", "down_proj.weight", "fc2.weight")
GATE = 1.0  # a gate of 0 would keep a new branch silent; published ones are learned, here they start open


@torch.no_grad()
def initialise(model: MiniMllama, generator: torch.Generator) -> MiniMllama:
    """Fill every parameter in place, in the order of their names.

    Norms start as the identity, biases at 0, gates at tanh(1), embeddings with deviation 0.02, matrices with
    1 / sqrt(inputs).

    Args:
        model: on a real device.
        generator: on that device.

    Returns:
        The model.
    """
    vision, text = model.config.vision, model.config.text
    depth = {"vision": vision.n_local_layers + vision.n_global_layers, "text": text.n_layers}
    for name, p in sorted(model.named_parameters()):
        tower, leaf = name.split(".")[0], name.split(".")[-1]
        if "gate" in leaf:
            p.fill_(GATE)
        elif "norm" in name:
            p.fill_(0.0 if leaf == "bias" else 1.0)
        elif leaf == "bias":
            p.zero_()
        elif leaf in ("embedding", "table", "class_embedding") or "embed_tokens" in name:
            nn.init.normal_(p, std=0.02, generator=generator)
        else:
            std = 1 / math.sqrt(p[0].numel())
            if name.endswith(RESIDUAL):
                std /= math.sqrt(2 * depth[tower])
            nn.init.normal_(p, std=std, generator=generator)
    return model
