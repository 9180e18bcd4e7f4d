"""Which text positions see which tiles, and the cheapest exact way to tell the cross-attention.

Source: llama-models, chat_format.py, create_vision_mask, and multimodal/model.py, _pad_masks and
_get_full_row_masked_out_mask; transformers, processing_mllama.py, get_cross_attention_token_mask. Where they
differ: docs/quirks.md, "rows that see nothing".

Shapes: B samples (with images), R rows of text (questions; R = B unless several ask about one sample), T
positions, I image slots, K tile slots, P tokens per tile, V = I * K * P vision tokens, N most rows of one
sample.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from minimllama.config import ModelConfig


def image_intervals(tokens: Sequence[int], image_token_id: int) -> list[tuple[int, int]]:
    """For each image token the positions [start, end) that see its image.

    An image is seen from its token to the next image token; images in a row share the text that follows the
    last.
    """
    starts = [i for i, token in enumerate(tokens) if token == image_token_id]
    ends = [*starts, len(tokens)][1:]
    for i in range(len(starts) - 2, -1, -1):
        if ends[i] == starts[i] + 1:
            ends[i] = ends[i + 1]
    return list(zip(starts, ends, strict=True))


def image_visibility(
    tokens: Tensor,
    n_tiles: Sequence[Sequence[int]],
    image_token_id: int = 128256,
    max_tiles: int = 4,
    n_slots: int | None = None,
) -> Tensor:
    """Which tiles each position may attend to.

    Args:
        tokens: int [B, T], padded on the right.
        n_tiles: tiles of each image, one list per sample.
        image_token_id: the token that stands for an image.
        max_tiles: K.
        n_slots: I; the largest number of images of a sample by default.

    Returns:
        bool [B, T, I, K].

    Raises:
        ValueError: if a row has not as many image tokens as its sample has images.
    """
    if len(tokens) != len(n_tiles):
        raise ValueError(f"{len(tokens)} rows of tokens, but n_tiles has {len(n_tiles)} samples")
    slots = n_slots if n_slots is not None else max(map(len, n_tiles), default=0)
    visible = torch.zeros(*tokens.shape, slots, max_tiles, dtype=torch.bool)  # [B, T, I, K]
    for row, (ids, counts) in enumerate(zip(tokens.tolist(), n_tiles, strict=True)):
        intervals = image_intervals(ids, image_token_id)
        if len(intervals) != len(counts):
            raise ValueError(f"row {row} has {len(intervals)} image tokens but its sample has {len(counts)} images")
        for slot, ((start, end), count) in enumerate(zip(intervals, counts, strict=True)):
            visible[row, start:end, slot, :count] = True
    return visible.to(tokens.device)


@dataclass(frozen=True, kw_only=True)
class RowGroups:
    """Text rows gathered by the sample whose images they see, so that one attention call serves all of a sample's rows.

    Attributes:
        n_rows: R.
        index: int [B, N] row numbers per sample, or None when every sample has N consecutive rows.
            Missing rows repeat row 0; `place` ignores what they computed.
        n_samples: B.
    """

    n_rows: int
    n_samples: int
    index: Tensor | None = None
    flat: Tensor | None = None  # int [R]: where row r stands in index.flatten()

    @classmethod
    def of(cls, sample_of_row: Sequence[int], n_samples: int) -> "RowGroups":
        """Group rows by sample.

        Raises:
            ValueError: if a row names a sample that does not exist.
        """
        members: list[list[int]] = [[] for _ in range(n_samples)]
        for row, sample in enumerate(sample_of_row):
            if not 0 <= sample < n_samples:
                raise ValueError(f"row {row} refers to sample {sample}, but there are {n_samples}")
            members[sample].append(row)
        n_rows, most = len(sample_of_row), max(map(len, members))
        if [row for rows in members for row in rows] == list(range(n_rows)) and n_rows == most * n_samples:
            return cls(n_rows=n_rows, n_samples=n_samples)
        index = torch.tensor([rows + [0] * (most - len(rows)) for rows in members])  # [B, N]
        place = {row: b * most + n for b, rows in enumerate(members) for n, row in enumerate(rows)}
        flat = torch.tensor([place[row] for row in range(n_rows)])  # [R]
        return cls(n_rows=n_rows, n_samples=n_samples, index=index, flat=flat)

    def to(self, device: torch.device | str) -> "RowGroups":
        """The same on another device."""
        if self.index is None or self.flat is None:
            return self
        index, flat = (x.to(device, non_blocking=True) for x in (self.index, self.flat))
        return replace(self, index=index, flat=flat)

    def gather(self, x: Tensor) -> Tensor:
        """[R, T, ...] -> [B, N * T, ...]."""
        if self.index is None:
            return x.reshape(self.n_samples, -1, *x.shape[2:])
        return x[self.index.to(x.device)].flatten(1, 2)

    def place(self, x: Tensor, length: int) -> Tensor:
        """[B, N * T, ...] -> [R, T, ...], T = length."""
        rows = x.reshape(-1, length, *x.shape[2:])
        return rows if self.flat is None else rows[self.flat.to(x.device)]


@dataclass(frozen=True, kw_only=True)
class Sight:
    """What the cross-attention layers need to know about a batch.

    Attributes:
        sees: bool [R, T, 1]; False where a position may attend to nothing.
        n_keys: only the first n_keys vision tokens of each sample are ever seen.
        mask: bool, broadcastable to [B, 1, N * T, n_keys], or None when all n_keys are seen by every seeing
            position.
        groups: which rows belong to which sample.
    """

    sees: Tensor
    n_keys: int
    mask: Tensor | None
    groups: RowGroups

    def to(self, device: torch.device | str) -> "Sight":
        """The same on another device."""
        mask = None if self.mask is None else self.mask.to(device, non_blocking=True)
        sees = self.sees.to(device, non_blocking=True)
        return replace(self, sees=sees, mask=mask, groups=self.groups.to(device))


def look(visible: Tensor, groups: RowGroups, tokens_per_tile: int, *, leak: bool = False) -> Sight:
    """Find the cheapest exact description of `visible`.

    With one image slot and positions that see either nothing or all tiles of their image, unused tiles become
    a key mask, or vanish when all samples have the same number of tiles. Otherwise the mask is written out.

    Args:
        visible: bool [R, T, I, K].
        groups: rows of each sample.
        tokens_per_tile: P.
        leak: let positions that see nothing attend to everything, as transformers does.
    """
    slots, tiles = visible.shape[2:]
    n_vision = slots * tiles * tokens_per_tile
    sees = visible.flatten(2).any(-1, keepdim=True)  # [R, T, 1]
    full = groups.gather(visible).flatten(2)  # [B, N*T, I*K]
    if leak:
        full = full | ~full.any(-1, keepdim=True)  # [B, N*T, I*K]
    else:
        seen = full.any(1, keepdim=True)  # [B, 1, I*K]
        if slots == 1 and bool((full == (seen & full.any(-1, keepdim=True))).all()):
            used = seen[seen.any(-1).squeeze(1)].squeeze(1)
            n_used = used.sum(-1)
            if len(used) == 0 or bool((n_used == n_used[0]).all() & used[:, : int(n_used[0])].all()):
                n_keys = int(n_used[0]) * tokens_per_tile if len(used) else n_vision
                return Sight(sees=sees, n_keys=n_keys, mask=None, groups=groups)
            full = seen | ~seen.any(-1, keepdim=True)  # [B, 1, I*K]
        else:
            full = full | ~full.any(-1, keepdim=True)  # [B, N*T, I*K]
    if bool(full.all()):
        return Sight(sees=sees, n_keys=n_vision, mask=None, groups=groups)
    mask = full.repeat_interleave(tokens_per_tile, dim=-1).unsqueeze(1)
    return Sight(sees=sees, n_keys=n_vision, mask=mask, groups=groups)


def see(
    tokens: Tensor,
    n_tiles: Sequence[Sequence[int]],
    config: ModelConfig,
    *,
    n_slots: int | None = None,
    visible: Tensor | None = None,
    sample_of_row: Sequence[int] | None = None,
    leak: bool = False,
) -> Sight:
    """Prepare what the cross-attention needs; on the CPU, before a batch moves to an accelerator.

    Args:
        tokens: int [R, T].
        n_tiles: tiles of each image, one list for each of B samples.
        config: of the model.
        n_slots: I; the largest number of images of a sample by default.
        visible: bool [R, T, I, K]; derived from the image tokens if None.
        sample_of_row: which sample's images each row sees; row r sees sample r's if None.
        leak: see `look`.

    Raises:
        ValueError: if rows, samples and image tokens do not fit together.
    """
    slots = max(map(len, n_tiles)) if n_slots is None else n_slots
    rows = range(len(n_tiles)) if sample_of_row is None else sample_of_row
    if len(rows) != len(tokens):
        raise ValueError(f"{len(tokens)} rows of tokens but {len(rows)} of them have a sample")
    groups = RowGroups.of(rows, len(n_tiles))
    tiles = config.vision.max_tiles
    if visible is None:
        per_row = [n_tiles[sample] for sample in rows]
        visible = image_visibility(tokens, per_row, config.image_token_id, tiles, slots)
    if visible.shape != (*tokens.shape, slots, tiles):
        raise ValueError(f"visible is {list(visible.shape)}, not [R, T, I, K] = {[*tokens.shape, slots, tiles]}")
    return look(visible, groups, config.vision.tokens_per_tile, leak=leak)
