"""The text model: causal self-attention, gated cross-attention, rows that see nothing.

Equality with transformers and Meta's numbers is in test_parity.py and test_transformers.py.
"""

import pytest
import torch
from torch import Tensor

from minimllama.kv_cache import KvCache
from minimllama.layers import RMSNorm, attend, join_heads, split_heads
from minimllama.text import CrossAttention, CrossLayer, SelfAttention, SelfLayer, TextDecoder
from minimllama.visibility import RowGroups, Sight, look
from tests.tools.tiny import TINY, tiny_model

SIZES = TINY.text
N_VISION = 4 * TINY.vision.tokens_per_tile


def decoder(leak: bool = False) -> TextDecoder:
    return tiny_model(semantics="hf445" if leak else "meta").text


def sees_after(row: int, n_rows: int = 1, length: int = 6, n_tiles: int = 4, leak: bool = False) -> Sight:
    """The positions from `row` on see the first n_tiles tiles of one image."""
    visible = torch.zeros(n_rows, length, 1, 4, dtype=torch.bool)
    visible[:, row:, :, :n_tiles] = True
    groups = RowGroups(n_rows=n_rows, n_samples=n_rows)
    return look(visible, groups, TINY.vision.tokens_per_tile, leak=leak)


def cross_layer(leak: bool = False) -> CrossLayer:
    layer = decoder(leak).layers[SIZES.cross_layers[0]]
    assert isinstance(layer, CrossLayer)
    return layer


# equation


def test_a_self_layer_is_two_residual_steps() -> None:
    text = decoder()
    layer, x = text.layers[0], torch.randn(2, 5, SIZES.width)
    span = text.span(torch.arange(5).expand(2, 5), 0, ragged=True)
    middle = x + layer.attention(layer.attention_norm(x), span)
    torch.testing.assert_close(layer(x, span), middle + layer.mlp(layer.mlp_norm(middle)))


def test_a_cross_layer_is_two_gated_residual_steps() -> None:
    layer, sight = cross_layer(), sees_after(0)
    x, states = torch.randn(1, 6, SIZES.width), torch.randn(1, N_VISION, SIZES.width)
    middle = x + layer.attention_gate.tanh() * layer.attention(layer.attention_norm(x), sight, states)
    expected = middle + layer.mlp_gate.tanh() * layer.mlp(layer.mlp_norm(middle))
    torch.testing.assert_close(layer(x, sight, states), expected)


def test_cross_attention_normalises_queries_and_keys_per_head() -> None:
    module = cross_layer().attention
    x, states = torch.randn(1, 3, SIZES.width), torch.randn(1, N_VISION, SIZES.width)
    q = split_heads(module.q_proj(x), SIZES.n_heads)
    k = split_heads(module.k_proj(states), SIZES.n_kv_heads)
    for norm in (module.q_norm, module.k_norm):
        assert isinstance(norm, RMSNorm)
        assert norm.weight.shape == (SIZES.head_width,)
    v = split_heads(module.v_proj(states), SIZES.n_kv_heads)
    expected = module.o_proj(join_heads(attend(module.q_norm(q), module.k_norm(k), v)))
    torch.testing.assert_close(module(x, sees_after(0, length=3), states), expected)


# property


@torch.no_grad()
def test_text_does_not_look_ahead() -> None:
    text = decoder()
    tokens = torch.randint(8, SIZES.vocab_size, (2, 7))
    before = text(tokens)
    tokens[:, 4] = 9
    after = text(tokens)
    torch.testing.assert_close(after[:, :4], before[:, :4], atol=1e-6, rtol=0.0)
    assert ((after[:, 4:] - before[:, 4:]).abs().amax(-1) > 1e-4).all()


@torch.no_grad()
def test_order_matters() -> None:
    text = decoder()
    tokens = torch.tensor([[10, 11, 12, 13]])
    assert (text(tokens)[:, -1] - text(tokens[:, [1, 0, 2, 3]])[:, -1]).abs().max() > 1e-3


@torch.no_grad()
def test_a_row_that_sees_nothing_passes_a_cross_layer_unchanged() -> None:
    layer, x = cross_layer(), torch.randn(1, 6, SIZES.width)
    out = layer(x, sees_after(3), torch.randn(1, N_VISION, SIZES.width))
    assert torch.equal(out[:, :3], x[:, :3])
    assert ((out[:, 3:] - x[:, 3:]).abs().amax(-1) > 1e-3).all()


@torch.no_grad()
def test_with_leak_such_a_row_attends_to_everything_but_skips_the_mlp() -> None:
    layer, x = cross_layer(leak=True), torch.randn(1, 6, SIZES.width)
    states = torch.randn(1, N_VISION, SIZES.width)
    out = layer(x, sees_after(3, leak=True), states)
    everything = layer.attention(layer.attention_norm(x), sees_after(0), states)
    torch.testing.assert_close(out[:, :3], (x + layer.attention_gate.tanh() * everything)[:, :3])


@torch.no_grad()
def test_a_closed_gate_makes_a_cross_layer_the_identity() -> None:
    layer, x = CrossLayer(SIZES, leak=False), torch.randn(1, 6, SIZES.width)  # gates start at 0
    assert torch.equal(layer(x, sees_after(0), torch.randn(1, N_VISION, SIZES.width)), x)


def test_a_closed_gate_learns_from_its_first_step() -> None:
    layer, x = CrossLayer(SIZES, leak=False), torch.randn(1, 6, SIZES.width)
    layer(x, sees_after(0), torch.randn(1, N_VISION, SIZES.width)).square().sum().backward()
    assert layer.attention_gate.grad.abs().item() > 0
    assert layer.mlp_gate.grad.abs().item() > 0


@torch.no_grad()
def test_image_tokens_have_no_order() -> None:
    module, x = cross_layer().attention, torch.randn(1, 3, SIZES.width)
    states = torch.randn(1, N_VISION, SIZES.width)
    shuffled = states[:, torch.randperm(N_VISION)]
    sight = sees_after(0, length=3)
    torch.testing.assert_close(module(x, sight, shuffled), module(x, sight, states), atol=1e-6, rtol=1e-5)


@torch.no_grad()
def test_unseen_tiles_do_not_matter_to_the_text() -> None:
    layer, x = cross_layer(), torch.randn(1, 6, SIZES.width)
    states = torch.randn(1, N_VISION, SIZES.width)
    sight = sees_after(1, n_tiles=2)
    before = layer(x, sight, states)
    states[:, 2 * TINY.vision.tokens_per_tile :] = 1e3
    assert torch.equal(layer(x, sight, states), before)


@torch.no_grad()
def test_without_images_the_cross_layers_are_skipped() -> None:
    text, tokens = decoder(), torch.randint(8, SIZES.vocab_size, (2, 5))
    blind = look(torch.zeros(2, 5, 1, 4, dtype=torch.bool), RowGroups(n_rows=2, n_samples=2), 17)
    with_states = text(tokens, torch.randn(2, N_VISION, SIZES.width), blind)
    assert torch.equal(text(tokens), with_states)


def test_layers_stand_where_the_configuration_says() -> None:
    is_cross = [isinstance(layer, CrossLayer) for layer in decoder().layers]
    assert [i for i, yes in enumerate(is_cross) if yes] == list(SIZES.cross_layers)
    assert all(isinstance(layer, CrossLayer | SelfLayer) for layer in decoder().layers)


@pytest.mark.parametrize("chunks", [[4, 3], [1, 2, 4], [6, 1]])
@torch.no_grad()
def test_a_cache_filled_in_pieces_gives_what_one_call_gives(chunks: list[int]) -> None:
    text, tokens = decoder(), torch.randint(8, SIZES.vocab_size, (2, 7))
    cache = KvCache.empty(SIZES, 2, 9, torch.float32, "cpu")
    parts: list[Tensor] = []
    start = 0
    for length in chunks:
        positions = torch.arange(start, start + length).expand(2, -1)
        piece = tokens[:, start : start + length]
        parts.append(text(piece, None, None, cache, positions, start + length if start else 0))
        start += length
    torch.testing.assert_close(torch.cat(parts, dim=1), text(tokens), atol=1e-5, rtol=0.0)


# refusal


def test_cross_attention_without_states_anywhere_is_our_own_bug() -> None:
    with pytest.raises(AssertionError, match="no vision states and none in the cache"):
        CrossAttention(SIZES)(torch.randn(1, 3, SIZES.width), sees_after(0, length=3), None)


def test_self_attention_has_no_biases() -> None:
    assert [name for name, _ in SelfAttention(SIZES).named_parameters() if name.endswith("bias")] == []
