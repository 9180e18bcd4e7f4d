"""Fixed-size caches of keys and values for decoding.

Self-attention: one slot per position, written at each row's own position, so ragged prompts decode in one
batch. Cross-attention: the keys and values of all vision tokens, computed once. Heads are stored ungrouped (G
of them), a quarter of what Meta's reference stores. llama-models, multimodal/model.py, setup_cache and
compute_xattn_kv_cache.

Shapes: R rows, B samples with images, G key/value heads, C slots, T new positions, E features per head, V
    vision tokens.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from minimllama.config import TextConfig
from minimllama.rope import rope_frequencies


@dataclass(frozen=True)
class TextCache:
    """Keys and values of one self-attention layer, [R, G, C, E] each."""

    k: Tensor
    v: Tensor

    def write(self, positions: Tensor, k: Tensor, v: Tensor) -> None:
        """Store k, v: [R, G, T, E] at positions: int [R, T]."""
        rows = torch.arange(k.shape[0], device=k.device)[:, None, None]
        heads = torch.arange(k.shape[1], device=k.device)[:, None]
        where = rows, heads, positions[:, None]
        self.k.index_put_(where, k.to(self.k.dtype))  # not scatter_: torch.compile would copy the whole cache, twice
        self.v.index_put_(where, v.to(self.v.dtype))


@dataclass
class ImageCache:
    """Keys and values of one cross-attention layer, [B, G, V, E] each; None until the images are first seen."""

    pair: tuple[Tensor, Tensor] | None = None


@dataclass(frozen=True)
class KvCache:
    """The caches of all layers.

    Attributes:
        text: by layer number, of the self-attention layers.
        image: by layer number, of the cross-attention layers.
        n_slots: C.
        frequencies: rotary ones, [E / 2], where the caches are: a step recorded as a CUDA graph may not fetch them.
    """

    text: dict[int, TextCache]
    image: dict[int, ImageCache]
    n_slots: int
    frequencies: Tensor

    @classmethod
    def empty(
        cls, config: TextConfig, n_rows: int, n_slots: int, dtype: torch.dtype, device: torch.device | str
    ) -> "KvCache":
        """Room for n_slots positions of n_rows rows."""
        shape = (n_rows, config.n_kv_heads, n_slots, config.head_width)

        def room() -> TextCache:
            return TextCache(*(torch.zeros(shape, dtype=dtype, device=device) for _ in range(2)))

        text = {i: room() for i in range(config.n_layers) if i not in config.cross_layers}
        return cls(
            text=text,
            image={i: ImageCache() for i in config.cross_layers},
            n_slots=n_slots,
            frequencies=rope_frequencies(config.rope, config.head_width).to(device),
        )

    def branch(self, n_branches: int, n_used: int, n_slots: int) -> "KvCache":
        """Every row n_branches times, with its first n_used slots kept and n_slots in all: continuations of a prefix.

        The images' keys and values are shared, not copied.
        """

        def grow(x: Tensor) -> Tensor:
            out = x.new_zeros(x.shape[0] * n_branches, x.shape[1], n_slots, x.shape[3])
            out[:, :, :n_used] = x[:, :, :n_used].repeat_interleave(n_branches, dim=0)
            return out

        text = {i: TextCache(grow(layer.k), grow(layer.v)) for i, layer in self.text.items()}
        return replace(self, text=text, n_slots=n_slots)
