"""The vision tower: pixels of up to K tiles per image -> 7680 features per vision token.

Source: llama-models, models/llama3/multimodal/model.py (VisionEncoder, ImageTransformer) and
    encoder_utils.py.

All tiles of an image form ONE sequence. It is laid out here as [tokens of tile 0, ..., tokens of tile K-1,
padding tokens of tile 0, ..., of tile K-1] instead of Meta's tile-by-tile padding: attention has no order,
and so the real tokens of an image with n tiles are simply the first n * P ones. Of slots and padding tokens
that are equal only one is computed (padding.py).

Shapes: N images, K tile slots, C of them computed, P tokens per tile, Q padding tokens per tile, S sequence
(K * (P + Q) if nothing is left out), D width, H heads, E features per head, R grids (aspect ratio ids), U
patches per tile, A pixel values per patch, L real tokens, J taps.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minimllama.config import VisionConfig, aspect_ratios
from minimllama.layers import GeluMLP, attend, join_heads, project, split_heads
from minimllama.padding import KeyWeights, fold, keys_present, slots_to_compute, unfold


class PatchEmbedding(nn.Module):
    """A convolution whose stride is its size, written as one matrix product. arXiv:2010.11929, sec. 3.1."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.patch = config.patch_size
        self.weight = nn.Parameter(torch.empty(config.width, 3, self.patch, self.patch))

    def forward(self, pixels: Tensor) -> Tensor:
        """pixels: [N, K, 3, side, side] -> [N, K, U, D], patches row by row."""
        n, k, channels, side, _ = pixels.shape
        grid, patch = side // self.patch, self.patch
        cut = pixels.view(n, k, channels, grid, patch, grid, patch).permute(0, 1, 3, 5, 2, 4, 6)
        patches = cut.reshape(n, k, grid * grid, -1)  # [N, K, U, A]
        return F.linear(patches, self.weight.flatten(1))  # [N, K, U, D]


class TilePosition(nn.Module):
    """tanh(gate) * table[aspect ratio]: one vector per tile slot, the same for all its tokens."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        n_ids = len(aspect_ratios(config.max_tiles)) + 1
        self.n_slots = config.max_tiles
        self.table = nn.Parameter(torch.empty(n_ids, config.max_tiles * config.width))
        self.gate = nn.Parameter(torch.zeros(1))

    def forward(self, aspect_ratio_ids: Tensor) -> Tensor:
        """aspect_ratio_ids: int [N] -> [N, K, 1, D]."""
        rows = self.table[aspect_ratio_ids].unflatten(-1, (self.n_slots, 1, -1))  # [N, K, 1, D]
        return self.gate.tanh() * rows


class TokenPosition(nn.Module):
    """(1 - tanh(gate)) * position + tanh(gate) * table[aspect ratio]: one vector per token of every tile slot."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        n_ids, n_tokens = len(aspect_ratios(config.max_tiles)) + 1, config.tokens_per_tile
        self.shape = (config.max_tiles, n_tokens, config.width)
        self.embedding = nn.Parameter(torch.empty(n_tokens, config.width))
        self.table = nn.Parameter(torch.empty(n_ids, config.max_tiles * n_tokens * config.width))
        self.gate = nn.Parameter(torch.zeros(1))

    def forward(self, aspect_ratio_ids: Tensor) -> Tensor:
        """aspect_ratio_ids: int [N] -> [N, K, P, D]."""
        gate = self.gate.tanh()
        rows = self.table[aspect_ratio_ids].unflatten(-1, self.shape)  # [N, K, P, D]
        return (1 - gate) * self.embedding + gate * rows


class VisionAttention(nn.Module):
    """Attention in which padding queries do not see padding keys, and everything else is visible.

    Real queries see all keys, padding queries see the real keys: two calls without a mask give the same
    numbers as Meta's [S, S] mask (encoder_utils.py, build_encoder_attention_mask) and let fast kernels run.
    """

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.n_heads, self.drop_unused_tiles = config.n_heads, config.drop_unused_tiles
        self.q_proj = nn.Linear(config.width, config.width, bias=False)
        self.k_proj = nn.Linear(config.width, config.width, bias=False)
        self.v_proj = nn.Linear(config.width, config.width, bias=False)
        self.o_proj = nn.Linear(config.width, config.width, bias=False)

    def forward(self, x: Tensor, n_real: Sequence[int], weights: KeyWeights | None = None) -> Tensor:
        """Mix tokens.

        Args:
            x: [N, S, D].
            n_real: how many leading tokens of each image are real; if unused tiles are dropped, an image with fewer
                than another neither sees the tokens between nor the padding tokens of those tiles.
            weights: how often each key counts; once if None.

        Returns:
            [N, S, D].
        """
        q, k, v = (split_heads(y, self.n_heads) for y in project(x, self.q_proj, self.k_proj, self.v_proj))
        width, how = q.shape[-1], {}
        if weights is not None:
            q, k, v = weights.beside(q, k, v)
            how = {"scale": width**-0.5}
        if len(set(n_real)) == 1:
            mixed = attend_around_padding(q, k, v, n_real[0], **how)  # [N, H, S, E]
        else:
            mixed = self._mix_by_size(q, k, v, n_real, **how)
        return self.o_proj(join_heads(mixed[..., :width]))  # [N, S, D]

    def _mix_by_size(self, q: Tensor, k: Tensor, v: Tensor, n_real: Sequence[int], **how: float) -> Tensor:
        """Images of one size at a time: [N, H, S, E] each -> [N, H, S, E].

        Rows are taken apart and stacked: a list of their numbers would go to an accelerator, and wait, in every layer.
        """
        each, mixed = [x.unbind() for x in (q, k, v)], list(q)  # [H, S, E] each
        for count in sorted(set(n_real)):
            rows = [i for i, n in enumerate(n_real) if n == count]
            queries, keys, values = (torch.stack([x[i] for i in rows]) for x in each)
            if self.drop_unused_tiles:
                keys, values = (keys_present(y, count, max(n_real)) for y in (keys, values))
            for i, row in zip(rows, attend_around_padding(queries, keys, values, count, **how), strict=True):
                mixed[i] = row
        return torch.stack(mixed)  # [N, H, S, E]


def attend_around_padding(q: Tensor, k: Tensor, v: Tensor, n_real: int, scale: float | None = None) -> Tensor:
    """Real queries over all keys, padding queries over the real keys. q, k, v: [N, H, S, E] -> [N, H, S, E]."""
    real = attend(q[:, :, :n_real], k, v, scale=scale)  # [N, H, L, E]
    padding = attend(q[:, :, n_real:], k[:, :, :n_real], v[:, :, :n_real], scale=scale)  # [N, H, S-L, E]
    return torch.cat([real, padding], dim=2)  # [N, H, S, E]


class VisionLayer(nn.Module):
    """x + a Attention(LN(x)), then x + f MLP(LN(x)); a = f = 1 if local, tanh of gates if global."""

    def __init__(self, config: VisionConfig, *, gated: bool) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.attention = VisionAttention(config)
        self.mlp_norm = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.mlp = GeluMLP(config.width, config.mlp_width)
        self.attention_gate = nn.Parameter(torch.zeros(1)) if gated else None
        self.mlp_gate = nn.Parameter(torch.zeros(1)) if gated else None

    def forward(self, x: Tensor, n_real: Sequence[int], weights: KeyWeights | None = None) -> Tensor:
        """x: [N, S, D] -> [N, S, D]."""
        update = self.attention(self.attention_norm(x), n_real, weights)  # [N, S, D]
        x = x + (update if self.attention_gate is None else self.attention_gate.tanh() * update)  # [N, S, D]
        update = self.mlp(self.mlp_norm(x))  # [N, S, D]
        return x + (update if self.mlp_gate is None else self.mlp_gate.tanh() * update)  # [N, S, D]


class VisionEncoder(nn.Module):
    """Patches, positions, local layers with taps, global layers, all features side by side.

    `tap` says which state a tap index means: "input" is the state that enters local layer i (Meta, torchtune,
    transformers up to 4.54), "output" the one that leaves it (transformers from 4.56 on). docs/quirks.md,
    "taps".

    `share_padding` computes unused tile slots and padding tokens once (padding.py); set it to False for one by one.
    """

    def __init__(self, config: VisionConfig, tap: str = "input") -> None:
        super().__init__()
        self.config, self.tap, self.share_padding = config, tap, True
        self.patches = PatchEmbedding(config)
        self.class_embedding = nn.Parameter(torch.empty(config.width))
        self.pre_tile = TilePosition(config)
        self.positions = TokenPosition(config)
        self.post_tile = TilePosition(config)
        self.norm_pre = nn.LayerNorm(config.width)  # torch's 1e-5 in both references, whatever norm_eps says
        self.norm_post = nn.LayerNorm(config.width)
        self.local_layers = nn.ModuleList(VisionLayer(config, gated=False) for _ in range(config.n_local_layers))
        self.global_layers = nn.ModuleList(VisionLayer(config, gated=True) for _ in range(config.n_global_layers))

    def embed(self, pixels: Tensor, aspect_ratio_ids: Tensor) -> Tensor:
        """Pixels [N, K, 3, side, side] and grids [N] -> the sequence [N, S, D] that enters the first layer.

        The first slots alone will do, too: pixels [N, C, ...].
        """
        n, k = pixels.shape[:2]
        patches = self.patches(pixels) + self.pre_tile(aspect_ratio_ids)[:, :k]  # [N, K, U, D]
        class_token = self.class_embedding.to(patches.dtype).expand(n, k, 1, -1)  # [N, K, 1, D]
        tokens = torch.cat([class_token, patches], dim=2)  # [N, K, P, D]
        tokens = self.norm_pre(tokens + self.positions(aspect_ratio_ids)[:, :k])  # [N, K, P, D]
        padding = tokens.new_zeros(n, k * self.config.padding_per_tile, self.config.width)  # [N, K*Q, D]
        return torch.cat([tokens.flatten(1, 2), padding], dim=1)  # [N, S, D]

    def fold(self, x: Tensor, tile_positions: Tensor, n_tiles: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Leave out what is there several times.

        Args:
            x: the whole sequence, [N, S, D].
            tile_positions: [N, K, 1, D].
            n_tiles: tiles in use per image.

        Returns:
            Tokens of C slots and then of the padding [N, S, D]; positions of C slots [N, C, 1, D]. C = K and the
            sequence is as it was if nothing can be left out, or `share_padding` is off.
        """
        k, p = self.config.max_tiles, self.config.tokens_per_tile
        slots = x[:, : k * p].unflatten(1, (k, p))  # [N, K, P, D]
        c = slots_to_compute(slots, tile_positions, n_tiles) if self.share_padding else k
        if c == k:
            return x, tile_positions
        x = torch.cat([fold(slots, c).flatten(1, 2), x[:, k * p : k * p + 1]], dim=1)
        return x, fold(tile_positions, c)

    def key_weights(self, n_slots: int, *, is_local: bool, like: Tensor) -> KeyWeights | None:
        """How often each token of `fold`'s sequence counts; None if each counts once.

        There is one padding token in the local layers, and one per slot in the global ones, where the slots'
        positions tell them apart.
        """
        k, p, q = self.config.max_tiles, self.config.tokens_per_tile, self.config.padding_per_tile
        if n_slots == k or self.config.drop_unused_tiles:
            return None
        copies = k - n_slots + 1
        counts = [((n_slots - 1) * p, 1), (p, copies)]
        counts += [(1, k * q)] if is_local else [(n_slots - 1, q), (1, copies * q)]
        return KeyWeights.of([c for c in counts if c[1]], self.config.width // self.config.n_heads, like)

    def add_tile_positions(self, x: Tensor, tile_positions: Tensor) -> Tensor:
        """The tile's vector on each of its tokens, padding tokens too: [N, S, D] and [N, C, 1, D] -> [N, S, D].

        A padding token that stands for all tiles becomes one per tile.
        """
        c, p = tile_positions.shape[1], self.config.tokens_per_tile
        tokens = x[:, : c * p].unflatten(1, (c, p)) + tile_positions  # [N, C, P, D]
        padding = x[:, c * p :]
        padding = padding.unflatten(1, (c, -1)) if padding.shape[1] != 1 else padding[:, None]
        return torch.cat([tokens.flatten(1, 2), (padding + tile_positions).flatten(1, 2)], dim=1)  # [N, S, D]

    def forward(
        self, pixels: Tensor, aspect_ratio_ids: Tensor, n_tiles: Sequence[int], *, all_slots: bool = True
    ) -> Tensor:
        """Encode N images.

        Args:
            pixels: normalised [N, K, 3, side, side], zeros in unused tile slots.
            aspect_ratio_ids: int [N], 0 for an empty image slot.
            n_tiles: tiles in use per image, 1..K each (1 for an empty slot).
            all_slots: return K slots; otherwise C of them, the last of which stands for all that follow. If unused
                tiles are dropped, C is the most tiles of an image, and slots that an image does not use mean nothing.

        Returns:
            [N, K, P, D * (1 + J)]; the last state first, then the taps, interleaved feature by feature.
        """
        n_real = [n * self.config.tokens_per_tile for n in n_tiles]
        tile_positions = self.post_tile(aspect_ratio_ids)  # [N, K, 1, D]
        if self.config.drop_unused_tiles:
            c = max(n_tiles)
            x, tile_positions = self.embed(pixels[:, :c], aspect_ratio_ids), tile_positions[:, :c]
        else:
            x, tile_positions = self.fold(self.embed(pixels, aspect_ratio_ids), tile_positions, n_tiles)
            c = tile_positions.shape[1]
        kept = slice(c * self.config.tokens_per_tile)
        taps = []
        weights = self.key_weights(c, is_local=True, like=x)
        for i, layer in enumerate(self.local_layers):
            entering, x = x, layer(x, n_real, weights)
            if i in self.config.taps:
                taps.append((entering if self.tap == "input" else x)[:, kept])
        x = self.add_tile_positions(self.norm_post(x), tile_positions)  # [N, S, D]
        weights = self.key_weights(c, is_local=False, like=x)
        for layer in self.global_layers:
            x = layer(x, n_real, weights)  # [N, S, D]
        tapped = torch.stack(taps, dim=-1).flatten(-2)  # [N, C*P, D*J]
        features = torch.cat([x[:, kept], tapped], dim=-1).unflatten(1, (c, -1))  # [N, C, P, D*(1+J)]
        return unfold(features, self.config.max_tiles) if all_slots else features
