"""Random weights for training from scratch, and for models that tests and benchmarks make themselves.

The published checkpoints never need this. Matrices have deviation 1 / sqrt(inputs); projections into the
residual stream are scaled down by the square root of their number (GPT-2, Radford et al. 2019, sec. 2.3).
Patch filters sum to zero, so that blank paper gives nothing, and token positions start as two-dimensional
sines and cosines of the size of a patch's signal: with the usual small random ones the text took ten times as
many pages to find a lead (docs/runs).

Shapes: P tokens per tile, D width, G patches per side.
"""

import math

import torch
from torch import Tensor, nn

from minimllama.model import MiniMllama

RESIDUAL = ("o_proj.weight", "down_proj.weight", "fc2.weight")
GATE = 1.0  # a gate of 0 would keep a new branch silent; published ones are learned, here they start open


def sine_positions(grid: int, width: int) -> Tensor:
    """Positions of a class token (zeros) and of grid x grid patches, row by row: [P, D].

    A quarter of the features each for sine and cosine of row and column. Vaswani et al. 2017, sec. 3.5, in
    two dimensions.
    """
    n = width // 4
    rates = 100.0 ** -(torch.arange(n) / n)
    angles = torch.arange(grid)[:, None] * rates  # [G, D//4]
    line = torch.cat([angles.sin(), angles.cos()], dim=1)  # [G, D//2]
    rows = line[:, None].expand(-1, grid, -1)
    columns = line[None].expand(grid, -1, -1)
    patches = torch.cat([rows, columns], dim=-1).flatten(0, 1)
    out = torch.zeros(1 + grid * grid, width)
    out[1:, : patches.shape[1]] = patches
    return out


@torch.no_grad()
def initialise(model: MiniMllama, generator: torch.Generator) -> MiniMllama:
    """Fill every parameter in place, in the order of their names.

    Norms start as the identity, biases at 0, gates at 1, text embeddings with deviation 1, the class token and
    the tables of tiles with 0.5, matrices with 1 / sqrt(inputs).

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
        elif leaf in ("table", "embedding", "class_embedding"):
            nn.init.normal_(p, std=0.5, generator=generator)
        elif "embed_tokens" in name:
            nn.init.normal_(p, std=1.0, generator=generator)
        else:
            std = 1 / math.sqrt(p[0].numel())
            if name.endswith(RESIDUAL):
                std /= math.sqrt(2 * depth[tower])
            nn.init.normal_(p, std=std, generator=generator)
    filters = model.vision.patches.weight
    filters -= filters.mean(dim=(1, 2, 3), keepdim=True)
    grid = vision.tile_size // vision.patch_size
    # (1 - tanh(gate)) multiplies them
    model.vision.positions.embedding.copy_(sine_positions(grid, vision.width) / (1 - math.tanh(GATE)))
    return model
