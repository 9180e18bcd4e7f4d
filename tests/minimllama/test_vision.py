"""The vision tower: patches, positions, attention without a mask, taps, gated global layers.

Sizes that contradict each other are refused by VisionConfig: test_config.py.
"""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import minimllama.vision
from minimllama.init import initialise
from minimllama.layers import attend
from minimllama.model import MiniMllama
from minimllama.vision import PatchEmbedding, TilePosition, TokenPosition, VisionAttention, VisionEncoder, VisionLayer
from tests.tools.tiny import TINY, tiny_model

SIZES = TINY.vision
TOKENS, SEQUENCE = SIZES.tokens_per_tile, SIZES.max_tiles * (SIZES.tokens_per_tile + SIZES.padding_per_tile)


def randomised(module: nn.Module) -> nn.Module:
    for p in module.parameters():
        nn.init.normal_(p, std=0.5)
    return module


def encoder(tap: str = "input", **changes: object) -> VisionEncoder:
    config = replace(TINY, vision=replace(SIZES, **changes))
    model = initialise(MiniMllama(config), torch.Generator().manual_seed(1))
    model.vision.tap = tap
    return model.vision


def pixels(n: int) -> Tensor:
    return torch.randn(n, SIZES.max_tiles, 3, SIZES.tile_size, SIZES.tile_size)


def masked_attention(q: Tensor, k: Tensor, v: Tensor, n_real: int) -> Tensor:
    """Meta's plain form: a [S, S] mask that hides padding keys from padding queries."""
    is_padding = torch.arange(q.shape[2]) >= n_real
    return attend(q, k, v, mask=~(is_padding[:, None] & is_padding[None, :]))


# equation


def test_patches_are_a_strided_convolution() -> None:
    patches, x = randomised(PatchEmbedding(SIZES)), pixels(2)
    convolved = F.conv2d(x.flatten(0, 1), patches.weight, stride=SIZES.patch_size)
    torch.testing.assert_close(patches(x).flatten(0, 1), convolved.flatten(2).transpose(1, 2))


def test_a_tile_position_is_the_gated_row_of_the_aspect_ratio() -> None:
    module = randomised(TilePosition(SIZES))
    row = module.table[3].view(SIZES.max_tiles, SIZES.width)
    torch.testing.assert_close(module(torch.tensor([3]))[0, :, 0], module.gate.tanh() * row)


def test_a_token_position_mixes_a_common_and_a_tile_part() -> None:
    module = randomised(TokenPosition(SIZES))
    row = module.table[5].view(SIZES.max_tiles, TOKENS, SIZES.width)
    gate = module.gate.tanh()
    torch.testing.assert_close(module(torch.tensor([5]))[0], (1 - gate) * module.embedding + gate * row)


def test_features_are_the_last_state_and_then_taps_feature_by_feature() -> None:
    tower, x = encoder(), pixels(1)
    states: list[Tensor] = []
    for layer in tower.local_layers:
        layer.register_forward_pre_hook(lambda module, inputs: states.append(inputs[0]))
    out = tower(x, torch.tensor([6]), [4])
    n_taps, width = len(SIZES.taps), SIZES.width
    real = SIZES.max_tiles * TOKENS
    for j, layer in enumerate(SIZES.taps):
        columns = out[..., width + j :: n_taps].flatten(1, 2)
        assert torch.equal(columns, states[layer][:, :real])


# parity with the plain form


@pytest.mark.parametrize("n_tiles", [[4], [1], [2, 2], [3, 1, 4], [2, 4, 2]])
def test_two_mask_free_calls_equal_the_masked_form(n_tiles: list[int]) -> None:
    module = randomised(VisionAttention(SIZES))
    x = torch.randn(len(n_tiles), SEQUENCE, SIZES.width, requires_grad=True)
    n_real = [n * TOKENS for n in n_tiles]

    def plain() -> Tensor:
        rows = []
        for one, count in zip(x, n_real, strict=True):
            q, k, v = (
                proj(one[None]).unflatten(-1, (SIZES.n_heads, -1)).transpose(1, 2)
                for proj in (module.q_proj, module.k_proj, module.v_proj)
            )
            rows.append(masked_attention(q, k, v, count).transpose(1, 2).flatten(2))
        return module.o_proj(torch.cat(rows))

    ours, theirs, weight = module(x, n_real), plain(), torch.randn(len(n_tiles), SEQUENCE, SIZES.width)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0.0)
    inputs = [x, *module.parameters()]
    gradients = [torch.autograd.grad((out * weight).sum(), inputs, retain_graph=True) for out in (ours, theirs)]
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5 * other.abs().max().item() + 1e-6, rtol=0.0)


def test_the_whole_tower_equals_itself_with_masks(monkeypatch: pytest.MonkeyPatch) -> None:
    tower, x, ids, n_tiles = encoder(), pixels(3), torch.tensor([1, 5, 8]), [1, 2, 4]

    def run() -> tuple[Tensor, list[Tensor]]:
        out = tower(x, ids, n_tiles)
        weight = torch.randn(out.shape, generator=torch.Generator().manual_seed(2))
        return out, list(torch.autograd.grad((out * weight).sum(), list(tower.parameters())))

    ours, our_gradients = run()
    monkeypatch.setattr(minimllama.vision, "attend_around_padding", masked_attention)
    theirs, their_gradients = run()
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0.0)
    for one, other in zip(our_gradients, their_gradients, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4 * other.abs().max().item() + 1e-6, rtol=0.0)


# property


def test_the_tower_never_hands_a_mask_to_the_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    real, masks = F.scaled_dot_product_attention, []

    def watch(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, **how: object) -> Tensor:
        masks.append(mask)
        return real(q, k, v, mask, **how)

    monkeypatch.setattr(F, "scaled_dot_product_attention", watch)
    encoder()(pixels(2), torch.tensor([2, 6]), [2, 4])
    n_layers = SIZES.n_local_layers + SIZES.n_global_layers
    assert masks == [None] * (4 * n_layers)  # real and padding queries, for each of two numbers of tiles


def test_real_tokens_see_padding_tiles() -> None:
    """Meta hides padding from padding only, so what stands in an unused tile slot changes the image's features."""
    tower, x, ids = encoder(), pixels(1), torch.tensor([1])
    before = tower(x, ids, [1])[:, 0]
    x[:, 3].mul_(-1)
    assert (tower(x, ids, [1])[:, 0] - before).abs().max() > 1e-3


def test_padding_does_not_see_padding() -> None:
    module = randomised(VisionAttention(SIZES))
    x, n_real = torch.randn(1, SEQUENCE, SIZES.width), 2 * TOKENS
    before = module(x, [n_real])
    x[:, -1] += 1  # a padding token
    after = module(x, [n_real])
    assert torch.equal(before[:, n_real:-1], after[:, n_real:-1])
    assert (before[:, :n_real] != after[:, :n_real]).any()


def test_all_tiles_of_an_image_are_one_sequence() -> None:
    tower, x, ids = encoder(), pixels(1), torch.tensor([2])
    before = tower(x, ids, [2])[:, 0]
    x[:, 1].mul_(-1)
    assert (tower(x, ids, [2])[:, 0] - before).abs().max() > 1e-3


def test_images_do_not_see_each_other() -> None:
    tower, x, ids = encoder(), pixels(2), torch.tensor([2, 6])
    alone = torch.cat([tower(x[:1], ids[:1], [2]), tower(x[1:], ids[1:], [4])])
    torch.testing.assert_close(tower(x, ids, [2, 4]), alone, atol=1e-5, rtol=0.0)


def test_a_global_layer_with_closed_gates_is_the_identity() -> None:
    layer = randomised(VisionLayer(SIZES, gated=True))
    layer.attention_gate.data.zero_()
    layer.mlp_gate.data.zero_()
    x = torch.randn(1, SEQUENCE, SIZES.width)
    assert torch.equal(layer(x, [TOKENS]), x)


@pytest.mark.parametrize("tap", ["input", "output"])
def test_a_tap_is_the_state_before_or_after_its_layer(tap: str) -> None:
    tower, seen = encoder(tap, taps=(2,)), {}
    tower.local_layers[2].register_forward_hook(lambda m, inputs, output: seen.update(input=inputs[0], output=output))
    features = tower(pixels(1), torch.tensor([6]), [4])[..., SIZES.width :].flatten(1, 2)
    assert torch.equal(features, seen[tap][:, : SIZES.max_tiles * TOKENS])


def test_every_parameter_of_the_tower_learns() -> None:
    model = tiny_model()
    model.vision(pixels(2), torch.tensor([3, 6]), [3, 4]).square().sum().backward()
    silent = [name for name, p in model.vision.named_parameters() if p.grad is None or not p.grad.any()]
    assert not silent
