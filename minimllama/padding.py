"""Padding of the vision tower, computed once instead of once per copy.

All unused tile slots of an image hold the same tokens, and so do the padding tokens: the same states go in, and no
layer tells them apart. One copy that stands for m gives the same result if attention counts its keys m times, that is
if log(m) is added to their scores: m exp(s) = exp(s + log m). An image of one tile then costs 2,051 instead of 4,128
vision tokens at 448 pixels, one of two tiles 3,076; docs/performance.md.

The dropout of adapters inside the tower acts alike on the copies, because there is one; computed one by one,
each copy would lose elements of its own. Real tokens keep their own dropout.

Tile slots that an image does not use can be left out altogether, too: `drop_unused_tiles`. That is another function,
for weights that are trained with it; the published ones see those slots.

Shapes: N images, K tile slots, C of them computed, S computed sequence, H heads, E features per head, W features with
the added columns.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

COLUMNS = 8  # added to E, which fast kernels want to be a multiple of 8


def slots_to_compute(slots: Tensor, tile_positions: Tensor, n_tiles: Sequence[int]) -> int:
    """C: how many tile slots tell a whole batch apart; the last of them stands for all that follow, K if none can.

    An image of n tiles needs n + 1 slots. Whether its unused slots are in fact alike is looked at: other pixels
    than zeros, or tables that tell unused slots apart (the published ones do not), are computed slot by slot.

    Args:
        slots: what enters the local layers, [N, K, P, D].
        tile_positions: what is added before the global layers, [N, K, 1, D].
        n_tiles: tiles in use per image.
    """
    n_slots = slots.shape[1]
    last = max(n_tiles)
    if last + 1 >= n_slots or slots.device.type == "meta":
        return n_slots
    alike = all(bool((x[:, last + 1 :] == x[:, last : last + 1]).all()) for x in (slots, tile_positions))
    return last + 1 if alike else n_slots


def fold(x: Tensor, n_slots: int) -> Tensor:
    """[N, K, ...] -> [N, C, ...]: the last slot is the mean of those that it stands for.

    They are equal, so the mean is each of them; but it hands every one of them its share of the gradient.
    """
    return torch.cat([x[:, : n_slots - 1], x[:, n_slots - 1 :].mean(1, keepdim=True)], dim=1)


def unfold(x: Tensor, n_slots: int) -> Tensor:
    """[N, C, ...] -> [N, K, ...]: the last slot again as often as needed."""
    missing = n_slots - x.shape[1]
    return x if not missing else torch.cat([x, x[:, -1:].expand(-1, missing, *x.shape[2:])], dim=1)


def drop_unused_tiles(model: Any) -> None:
    """Leave the tile slots that an image does not use out of a MiniMllama, in place; its config.json will say so.

    An image of n tiles is then what a model of n tile slots computes, whatever else is in its batch: n * 1,032 vision
    tokens at 448 pixels.

    Raises:
        ValueError: under semantics whose text positions look at unused slots.
    """
    if model.leak:
        raise ValueError(f"drop_unused_tiles needs semantics='meta', not {model.semantics!r}, which looks at them")
    model.config = replace(model.config, vision=replace(model.config.vision, drop_unused_tiles=True))
    model.vision.config = model.config.vision
    for layer in (*model.vision.local_layers, *model.vision.global_layers):
        layer.attention.drop_unused_tiles = True


def keys_present(x: Tensor, n_real: int, most: int) -> Tensor:
    """Keys or values of images whose unused tiles are dropped: real tokens, and the padding tokens of their own tiles.

    Args:
        x: [N, H, S, E]; tokens of the tiles of the largest image, and then their padding tokens.
        n_real: real tokens of these images.
        most: of the largest one.
    """
    n_padding = (x.shape[2] - most) * n_real // most  # as many of each tile
    return x if n_real == most else torch.cat([x[:, :, :n_real], x[:, :, most : most + n_padding]], dim=2)


@dataclass(frozen=True, kw_only=True)
class KeyWeights:
    """How often attention counts each key, as columns beside queries and keys: no mask, so that any kernel will do.

    The query's columns are 1, the key's are log(m) times sqrt(E), in two parts, because one number of bfloat16
    would be wrong by up to 0.3 %.

    Attributes:
        q: [W - E], the same for all queries.
        k: [S, W - E].
    """

    q: Tensor
    k: Tensor

    @classmethod
    def of(cls, counts: Sequence[tuple[int, int]], head_width: int, like: Tensor) -> "KeyWeights":
        """From (number of keys, count of each) in the order of the sequence."""
        logs = [torch.full((n,), math.log(m) * math.sqrt(head_width), dtype=torch.float64) for n, m in counts]
        exact = torch.cat(logs).to(like.device)  # [S]
        high = exact.to(like.dtype)
        k = like.new_zeros(len(exact), COLUMNS)
        k[:, 0], k[:, 1] = high, (exact - high).to(like.dtype)
        q = like.new_zeros(COLUMNS)
        q[:2] = 1
        return cls(q=q, k=k)

    def beside(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """[N, H, S, E] each -> [N, H, S, W]; the values get columns of zeros."""
        more_q, more_k = (x.expand(*q.shape[:3], -1) for x in (self.q, self.k))
        return torch.cat([q, more_q], -1), torch.cat([k, more_k], -1), F.pad(v, (0, COLUMNS))
