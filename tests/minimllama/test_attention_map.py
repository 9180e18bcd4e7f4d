"""Attention of chosen tokens: transformers' own weights, the pixels that a patch shows, nothing left behind."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image

from minimllama import PRESETS, ImageBatch, ImageTransform, MiniMllama, generate, load_model, next_token_logits
from minimllama.attention_map import Glance, attention_of, to_page, watch
from minimllama.chat import pad_rows
from minimllama.config import VisionConfig
from minimllama.visibility import RowGroups, Sight
from tests.tools.hf import hf_inputs, hf_model, hf_semantics
from tests.tools.tiny import PAD, TINY, one_sample, pictures, prompt, tiny_model

VISION = VisionConfig(
    width=8, n_heads=2, mlp_width=8, n_local_layers=2, n_global_layers=1, taps=(0,), tile_size=96, patch_size=16
)
SIZES = [(96, 96), (300, 210), (130, 460), (64, 40), (800, 96), (97, 500), (240, 233), (1000, 30), (192, 96)]
TOKENS = [
    prompt(13, 1, image_at=[5]),
    prompt(11, 2, image_at=[1, 6]),
    prompt(15, 3, image_at=[3, 4]),
    prompt(9, 4),
    prompt(16, 5, image_at=[0]),
]
VISION_TOKENS = TINY.vision.max_tiles * TINY.vision.tokens_per_tile
PICTURES = [[(30, 20)], [(90, 20), (20, 20)], [(20, 75), (50, 30)], [], [(12, 12)]]


# equation


def test_weights_are_the_softmax_of_scaled_products_by_hand() -> None:
    """Two query heads share one key head; E = 4 halves the products."""
    q = torch.zeros(1, 2, 3, 4)
    q[0, 0, 1, 0], q[0, 1, 1, 1] = 2.0, 6.0
    k = torch.zeros(1, 1, 2, 4)
    k[0, 0, 1, :2] = 1.0
    groups = RowGroups(n_rows=1, n_samples=1)
    sight = Sight(sees=torch.ones(1, 3, 1, dtype=torch.bool), n_keys=2, mask=None, groups=groups)
    found = Glance(q=q, k=k, sight=sight).weights(0, [1], leak=False)[:, 0]
    wanted = [[1 / (1 + math.exp(x)), 1 / (1 + math.exp(-x))] for x in (1.0, 3.0)]
    torch.testing.assert_close(found, torch.tensor(wanted))


def test_a_page_of_a_scanner_by_hand() -> None:
    """11B, 2200 x 1700 px: a canvas of 896 x 896, the page on the upper 692 rows; the last tile's first patch."""
    vision = PRESETS["11b"].vision
    weights = torch.zeros(4100)
    weights[3 * 1025 + 1] = 1.0
    shown = to_page(weights, (2200, 1700), vision)
    rows, columns = (shown.page.sum(axis).nonzero().flatten() for axis in (1, 0))
    assert (int(columns[0]), int(columns[-1])) == (1100, 1134)  # 448 * 2200 / 896 = 1100; 462 gives 1134.4
    assert (int(rows[0]), int(rows[-1])) == (1100, 1134)  # 448 * 1700 / 692 = 1100.6; 462 gives 1135.0
    even = to_page(torch.full((4100,), 1 / 4100), (2200, 1700), vision)
    assert float(even.class_tokens) == pytest.approx(4 / 4100)
    assert float(even.padding) == pytest.approx((64 - 50) * 64 / 4100)  # 692 / 14 = 49.4 rows of patches show something
    assert float(even.page.sum()) == pytest.approx(50 * 64 / 4100, rel=1e-5)


# parity


@torch.no_grad()
@pytest.mark.parametrize("mode", ["meta", "hf"])
def test_weights_are_those_that_transformers_returns(mode: str, tmp_path) -> None:
    theirs = hf_model(TINY, seed=3)
    theirs.set_attn_implementation("eager")
    theirs.save_pretrained(tmp_path / "m")
    ours, tokens, images = load_model(tmp_path / "m", semantics=mode).eval(), pad_rows(TOKENS, PAD), pictures(PICTURES)
    wanted: dict[int, torch.Tensor] = {}

    def keep(layer: int) -> Callable[..., None]:
        return lambda _module, _inputs, result: wanted.__setitem__(layer, result[1])

    for i in TINY.text.cross_layers:
        theirs.get_submodule(f"model.language_model.layers.{i}.cross_attn").register_forward_hook(keep(i))
    with hf_semantics(mode):
        theirs(**hf_inputs(tokens, images, TINY))
    with watch(ours) as seen:
        ours(tokens, images)
    for row, ids in enumerate(TOKENS):
        found = seen.weights(row, range(len(ids)))  # [L, C, H, V]
        sees = torch.ones(len(ids), dtype=torch.bool)
        if mode == "meta":  # where theirs attend to everything, and drop the result
            sees = seen.calls[1][0].sight.sees[row, : len(ids), 0]
            assert not found[:, ~sees].any()
        for layer, i in enumerate(TINY.text.cross_layers):
            their_row = wanted[i][row].transpose(0, 1)[: len(ids)]  # [T, H, V]
            torch.testing.assert_close(found[layer][sees], their_row[sees], atol=1e-5, rtol=0.0)
    assert not seen.calls[1][0].sight.sees[3].any()  # row 3 has no image


def lit_share(transform: ImageTransform, page: np.ndarray, white: np.ndarray) -> np.ndarray:
    """Brightness of every patch of a page, as a share of what it has when the whole page is white: [K, P - 1]."""
    side = VISION.tile_size // VISION.patch_size

    def patches(image: np.ndarray) -> np.ndarray:
        tiles = transform.split(Image.fromarray(image).convert("RGB"))[0][:, 0].astype(float)
        return tiles.reshape(len(tiles), side, VISION.patch_size, side, VISION.patch_size).mean((2, 4))

    full = patches(white)
    share = patches(page) / np.maximum(full, 1)
    share[full < 64] = 0  # a patch with less than a quarter of page: the filter blurs it
    return share.reshape(len(share), -1)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_the_pixels_of_a_patch_are_those_that_light_it(size: tuple[int, int]) -> None:
    """A probe with all its weight on one patch; the page painted where the map says, through the real transform."""
    transform = ImageTransform(VISION.tile_size, VISION.max_tiles)
    white = np.full((size[1], size[0]), 255, np.uint8)
    possible = lit_share(transform, white, white)
    tested = np.random.default_rng(0).permutation(np.argwhere(possible > 0))[:12]
    for tile, patch in tested:
        weights = torch.zeros(VISION.max_tiles, VISION.tokens_per_tile)
        weights[tile, patch + 1] = 1.0
        shown = to_page(weights.flatten(), size, VISION)
        assert float(shown.page.sum()) == pytest.approx(1.0, abs=1e-5)
        painted = (255 * shown.page / shown.page.max()).numpy().astype(np.uint8)
        lit = lit_share(transform, painted, white)
        assert tuple(np.unravel_index(lit.argmax(), lit.shape)) == (tile, patch)
        assert lit[tile, patch] > 0.6
        others = np.delete(lit.flatten(), tile * lit.shape[1] + patch)
        assert others.max() < 0.6 * lit[tile, patch]


# property


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_page_class_tokens_padding_and_other_images_share_the_whole(size: tuple[int, int]) -> None:
    n_tokens = VISION.max_tiles * VISION.tokens_per_tile
    weights = torch.randn(2, 3, 2 * n_tokens).mul(2).softmax(-1)
    for image in (0, 1):
        shown = to_page(weights, size, VISION, image)
        assert shown.page.shape == (2, 3, size[1], size[0])
        assert float(shown.page.min()) >= 0
        parts = shown.page.sum((-2, -1)) + shown.class_tokens + shown.padding + shown.other_images
        torch.testing.assert_close(parts, torch.ones(2, 3), atol=1e-5, rtol=0.0)
        own = weights[..., image * n_tokens : (image + 1) * n_tokens].sum(-1)
        torch.testing.assert_close(shown.other_images, 1 - own, atol=1e-5, rtol=0.0)


def test_weight_on_unused_tiles_and_below_the_page_is_padding() -> None:
    for tile, patch in ((2, 0), (1, 30)):  # two tiles are used, and 60 of their 96 rows
        weights = torch.zeros(VISION.max_tiles, VISION.tokens_per_tile)
        weights[tile, patch + 1] = 1.0
        shown = to_page(weights.flatten(), (190, 60), VISION)
        assert float(shown.padding) == 1.0
        assert float(shown.page.sum()) == 0.0


@torch.no_grad()
def test_generated_tokens_have_the_weights_with_which_they_were_chosen() -> None:
    model, images = tiny_model(), pictures(PICTURES[:3])
    with watch(model) as seen:
        rows = generate(model, TOKENS[:3], images, max_new_tokens=4)
    assert {len(calls) for calls in seen.calls.values()} == {4}
    for row, (asked, whole) in enumerate(zip(TOKENS, rows, strict=False)):
        own = one_sample(images, row)
        assert own is not None
        n_own = own.pixels.shape[1] * VISION_TOKENS
        wanted = attention_of(model, whole, own, range(len(asked) - 1, len(whole) - 1))
        found = [seen.weights(row, [len(asked) - 1], 0), *(seen.weights(row, [0], call) for call in (1, 2, 3))]
        torch.testing.assert_close(torch.cat(found, 1)[..., :n_own], wanted, atol=1e-5, rtol=0.0)


@torch.no_grad()
def test_every_label_of_every_page_has_its_own_weights() -> None:
    """Suffix rows of two pages; one page has one tile, the other two, so the keys are masked."""
    model, images = tiny_model(), pictures([[(12, 12)], [(24, 12)]])
    asked, suffixes = [prompt(7, 1, [2]), prompt(9, 2, [1])], [torch.tensor([20, 21, 22]), torch.tensor([30])]
    with watch(model) as seen:
        next_token_logits(model, asked, suffixes, [5], images)
    for page in (0, 1):
        own = one_sample(images, page)
        assert own is not None
        for label, suffix in enumerate(suffixes):
            whole = torch.cat([asked[page], suffix])
            wanted = attention_of(model, whole, own, [len(whole) - 1])
            found = seen.weights(2 * page + label, [len(suffix) - 1])
            torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0.0)
            assert float(found.sum(-1).min()) == pytest.approx(1.0, abs=1e-5)


@torch.no_grad()
def test_rows_in_any_order_look_at_their_own_sample() -> None:
    model, images = tiny_model(), pictures([[(30, 20)], [(20, 30)]])
    questions = torch.stack([prompt(8, seed, [3]) for seed in range(3)])
    with watch(model) as seen:
        model(questions, images, sample_of_row=[1, 0, 1])
    for row, sample in enumerate((1, 0, 1)):
        own: ImageBatch | None = one_sample(images, sample)
        assert own is not None
        wanted = attention_of(model, questions[row], own, [2, 4])
        torch.testing.assert_close(seen.weights(row, [2, 4]), wanted, atol=1e-5, rtol=0.0)
        assert float(wanted[:, 0].abs().max()) == 0.0  # before the image token
        assert wanted[:, 1].sum(-1).allclose(torch.ones(2, 6))


@torch.no_grad()
def test_watching_changes_no_bit_and_leaves_nothing_behind() -> None:
    model, images = tiny_model(), pictures([[(30, 20)]])
    tokens = TOKENS[0][None]

    def hooks() -> int:
        return sum(len(module._forward_hooks) for module in model.modules())

    plain = model(tokens, images)
    with watch(model) as seen:
        assert hooks() == 3 * len(TINY.text.cross_layers)
        assert torch.equal(model(tokens, images), plain)
    assert hooks() == 0
    model(tokens, images)
    assert all(len(calls) == 1 for calls in seen.calls.values())
    with pytest.raises(ValueError, match="must be \\[rows, positions\\]"), watch(model):
        model(tokens[0], images)
    assert hooks() == 0


def test_gates_say_what_a_layer_adds() -> None:
    model: MiniMllama = tiny_model()
    with torch.no_grad():
        model.text.layers[4].attention_gate.zero_()  # type: ignore[union-attr]
    with watch(model) as seen:
        pass
    first = float(model.text.layers[1].attention_gate.detach().tanh())  # type: ignore[union-attr]
    assert seen.gates.tolist() == pytest.approx([first, 0.0])
    assert first != 0.0


# refusal


def test_what_was_not_looked_at_is_refused() -> None:
    model = tiny_model()
    with watch(model) as seen:
        model(TOKENS[3][None])
    with pytest.raises(ValueError, match="call -1 of 0: the cross-attention layers run only for dialogs with images"):
        seen.weights(0, [0])
    with watch(model) as seen:
        model(TOKENS[0][None], pictures([[(30, 20)]]))
    for row, positions in ((1, [0]), (0, [13]), (0, [-1])):
        with pytest.raises(ValueError, match="the call has 1 rows of 13 tokens"):
            seen.weights(row, positions)


def test_weights_of_parts_of_an_image_are_refused() -> None:
    n_tokens = VISION.max_tiles * VISION.tokens_per_tile
    for n, image in ((n_tokens - 1, 0), (n_tokens, 1)):
        with pytest.raises(ValueError, match=f"image {image} of {n} vision tokens, {n_tokens} per image"):
            to_page(torch.zeros(n), (96, 96), VISION, image)
