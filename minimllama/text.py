"""The text model: Llama 3.1 layers, with gated cross-attention layers at 3, 8, ..., 38 that look at the image.

Source: llama-models, models/llama3/multimodal/model.py (CrossAttentionTextModel) and models/llama3/model.py.

Shapes: R rows of text, T positions, D width, H query heads, G key/value heads, E features per head, Z keys,
B samples with images, N rows per sample, V vision tokens per sample, C cache slots.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from minimllama.config import TextConfig
from minimllama.kv_cache import ImageCache, KvCache, TextCache
from minimllama.layers import RMSNorm, SwiGLU, attend, join_heads, project, split_heads
from minimllama.rope import apply_rope, rope_cos_sin, rope_frequencies
from minimllama.visibility import Sight


@dataclass(frozen=True, kw_only=True)
class Span:
    """Where the tokens of a call stand in their rows.

    Attributes:
        cos, sin: rotary angles, float32 [R, 1, T, E / 2].
        positions: int [R, T].
        n_cached: Z, how many leading cache slots the tokens look at; 0: they start their rows and see each
            other only.
        mask: bool [R, 1, T, Z], which of the Z slots each token sees; None: all of them.
    """

    cos: Tensor
    sin: Tensor
    positions: Tensor
    n_cached: int = 0
    mask: Tensor | None = None


class SelfAttention(nn.Module):
    """Causal attention with rotary positions. arXiv:2407.21783, sec. 3.2."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.n_heads, self.n_kv_heads = config.n_heads, config.n_kv_heads
        kv_width = config.n_kv_heads * config.head_width
        self.q_proj = nn.Linear(config.width, config.width, bias=False)
        self.k_proj = nn.Linear(config.width, kv_width, bias=False)
        self.v_proj = nn.Linear(config.width, kv_width, bias=False)
        self.o_proj = nn.Linear(config.width, config.width, bias=False)

    def forward(self, x: Tensor, span: Span, cache: TextCache | None = None) -> Tensor:
        """x: [R, T, D] -> [R, T, D]; writes the new keys and values into the cache if there is one."""
        q, k, v = project(x, self.q_proj, self.k_proj, self.v_proj)
        q = apply_rope(split_heads(q, self.n_heads), span.cos, span.sin)  # [R, H, T, E]
        k = apply_rope(split_heads(k, self.n_kv_heads), span.cos, span.sin)  # [R, G, T, E]
        v = split_heads(v, self.n_kv_heads)  # [R, G, T, E]
        if cache is not None:
            cache.write(span.positions, k, v)
        if cache is None or not span.n_cached:
            mixed = attend(q, k, v, causal=True)  # [R, H, T, E]
        else:
            k, v = cache.k[:, :, : span.n_cached], cache.v[:, :, : span.n_cached]
            mixed = attend(q, k, v, mask=span.mask)  # [R, H, T, E]
        return self.o_proj(join_heads(mixed))  # [R, T, D]


class CrossAttention(nn.Module):
    """Text queries over vision keys: normalised per head, no positions, not causal. arXiv:2407.21783, sec. 7.

    Because nothing here depends on order, the queries of all rows about one sample form one call over its
    keys.
    """

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.n_heads, self.n_kv_heads = config.n_heads, config.n_kv_heads
        kv_width = config.n_kv_heads * config.head_width
        self.q_proj = nn.Linear(config.width, config.width, bias=False)
        self.k_proj = nn.Linear(config.width, kv_width, bias=False)
        self.v_proj = nn.Linear(config.width, kv_width, bias=False)
        self.o_proj = nn.Linear(config.width, config.width, bias=False)
        self.q_norm = RMSNorm(config.head_width, config.norm_eps)
        self.k_norm = RMSNorm(config.head_width, config.norm_eps)

    def keys_values(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """states: [B, V, D] -> keys and values [B, G, V, E]."""
        k, v = (split_heads(y, self.n_kv_heads) for y in project(states, self.k_proj, self.v_proj))  # [B, G, V, E]
        return self.k_norm(k), v

    def forward(self, x: Tensor, sight: Sight, states: Tensor | None, cache: ImageCache | None = None) -> Tensor:
        """x: [R, T, D], states: [B, V, D] or None when the cache has their keys and values -> [R, T, D].

        Positions that see nothing get numbers without meaning; the caller drops them.
        """
        if cache is not None and cache.pair is not None:
            k, v = cache.pair
        else:
            assert states is not None, "no vision states and none in the cache"
            k, v = self.keys_values(states[:, : sight.n_keys])
            if cache is not None:
                cache.pair = (k, v)
        q = self.q_norm(split_heads(sight.groups.gather(self.q_proj(x)), self.n_heads))  # [B, H, N*T, E]
        mixed = join_heads(attend(q, k, v, mask=sight.mask))  # [B, N*T, D]
        return self.o_proj(sight.groups.place(mixed, x.shape[1]))  # [R, T, D]


class SelfLayer(nn.Module):
    """x + Attention(norm(x)), then x + MLP(norm(x))."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(config.width, config.norm_eps)
        self.attention = SelfAttention(config)
        self.mlp_norm = RMSNorm(config.width, config.norm_eps)
        self.mlp = SwiGLU(config.width, config.mlp_width)

    def forward(self, x: Tensor, span: Span, cache: TextCache | None = None) -> Tensor:
        """x: [R, T, D] -> [R, T, D]."""
        x = x + self.attention(self.attention_norm(x), span, cache)  # [R, T, D]
        return x + self.mlp(self.mlp_norm(x))  # [R, T, D]


class CrossLayer(nn.Module):
    """x + tanh(a) r Attention(norm(x), image), then x + tanh(m) r MLP(norm(x)). Flamingo, sec. 2.2 (arXiv:2204.14198).

    r is 0 for positions that see no image: the layer is the identity for them (Meta). With `leak` the
    attention's r is 1, as in transformers; docs/quirks.md, "rows that see nothing".
    """

    def __init__(self, config: TextConfig, *, leak: bool) -> None:
        super().__init__()
        self.leak = leak
        self.attention_norm = RMSNorm(config.width, config.norm_eps)
        self.attention = CrossAttention(config)
        self.attention_gate = nn.Parameter(torch.zeros(1))
        self.mlp_norm = RMSNorm(config.width, config.norm_eps)
        self.mlp = SwiGLU(config.width, config.mlp_width)
        self.mlp_gate = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor, sight: Sight, states: Tensor | None, cache: ImageCache | None = None) -> Tensor:
        """x: [R, T, D] -> [R, T, D]."""
        sees = sight.sees.to(x.dtype)  # [R, T, 1]
        update = self.attention_gate.tanh() * self.attention(self.attention_norm(x), sight, states, cache)  # [R, T, D]
        x = x + (update if self.leak else sees * update)  # [R, T, D]
        update = self.mlp_gate.tanh() * self.mlp(self.mlp_norm(x))  # [R, T, D]
        return x + sees * update  # [R, T, D]


class TextDecoder(nn.Module):
    """Token ids and projected vision tokens -> normalised hidden states; `lm_head` turns those into logits."""

    def __init__(self, config: TextConfig, *, leak: bool = False) -> None:
        super().__init__()
        self.config = config
        table = torch.empty(config.vocab_size + config.n_extra_embeddings, config.width)
        # given, not drawn: nn.Embedding would draw it, and on the meta device that imports torch.compile for a second
        self.embed_tokens = nn.Embedding.from_pretrained(table, freeze=False)
        self.layers = nn.ModuleList(
            CrossLayer(config, leak=leak) if i in config.cross_layers else SelfLayer(config)
            for i in range(config.n_layers)
        )
        self.norm = RMSNorm(config.width, config.norm_eps)
        self.lm_head = nn.Linear(config.width, config.vocab_size, bias=False)

    def span(self, positions: Tensor, n_cached: int, cache: KvCache | None = None, *, ragged: bool) -> Span:
        """Angles of tokens at `positions` [R, T], and which of the first n_cached slots they see.

        Not ragged: there is one token per row, and it stands in slot n_cached - 1 of every row.
        """
        if cache is None:
            ours = rope_frequencies(self.config.rope, self.config.head_width)
            frequencies = ours.to(positions.device, non_blocking=True)  # [E / 2]
        else:
            frequencies = cache.frequencies
        cos, sin = rope_cos_sin(positions, frequencies)
        mask = None
        if n_cached and ragged:
            slots = torch.arange(n_cached, device=positions.device)
            mask = (slots <= positions[..., None]).unsqueeze(1)  # [R, 1, T, Z]
        return Span(cos=cos, sin=sin, positions=positions, n_cached=n_cached, mask=mask)

    def forward(
        self,
        tokens: Tensor,
        states: Tensor | None = None,
        sight: Sight | None = None,
        cache: KvCache | None = None,
        positions: Tensor | None = None,
        n_cached: int = 0,
        *,
        ragged: bool = True,
        run: Callable[..., Tensor] = nn.Module.__call__,
    ) -> Tensor:
        """Run all layers.

        Args:
            tokens: int [R, T], padded on the right.
            states: projected vision tokens [B, V, D]; None without images or when the cache holds their keys.
            sight: who sees what; None skips the cross-attention layers (text only).
            cache: written to, and read from if n_cached is given.
            positions: int [R, T], where the tokens stand in their rows; 0..T-1 if None.
            n_cached: number of leading cache slots that these tokens may look at, their own included; 0 when
                they start their rows.
            ragged: False promises one token per row, all in slot n_cached - 1.
            run: calls a layer with its arguments; compilers have their own way.

        Returns:
            [R, T, D], after the final norm.
        """
        x = self.embed_tokens(tokens)  # [R, T, D]
        if positions is None:
            positions = torch.arange(tokens.shape[1], device=tokens.device).expand_as(tokens)
        span = self.span(positions, n_cached, cache, ragged=ragged)
        for i, layer in enumerate(self.layers):
            if isinstance(layer, SelfLayer):
                x = run(layer, x, span, None if cache is None else cache.text[i])  # [R, T, D]
            elif sight is not None:
                x = run(layer, x, sight, states, None if cache is None else cache.image[i])  # [R, T, D]
        return self.norm(x)
