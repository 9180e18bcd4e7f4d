"""Padding computed once: the same features and gradients as one by one, and fewer tokens."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from lora import TuneConfig, apply_tuning
from minimllama import load_model, save_model
from minimllama.config import VisionConfig, aspect_ratios
from minimllama.init import initialise
from minimllama.model import MiniMllama
from minimllama.padding import KeyWeights, drop_unused_tiles, fold, unfold
from minimllama.vision import VisionEncoder
from tests.tools.tiny import TINY, one_sample, pictures, prompt

SIZES = TINY.vision
SIDE = SIZES.tile_size


def published(model: MiniMllama) -> MiniMllama:
    """Zeros where published tables have them: the positions of tile slots that a grid does not use."""
    vision = model.config.vision
    with torch.no_grad():
        for module in (model.vision.pre_tile, model.vision.positions, model.vision.post_tile):
            slots = module.table.unflatten(-1, (vision.max_tiles, -1))
            slots[0] = 0
            for i, (rows, columns) in enumerate(aspect_ratios(vision.max_tiles), start=1):
                slots[i, rows * columns :] = 0
    return model


def model_like_published(semantics: str = "meta") -> MiniMllama:
    return published(initialise(MiniMllama(TINY, semantics), torch.Generator().manual_seed(1)))


def pages(n_tiles: list[int]) -> tuple[Tensor, Tensor]:
    """Pixels with zeros in unused slots, and the id of a grid with that number of tiles."""
    grids = [rows * columns for rows, columns in aspect_ratios(SIZES.max_tiles)]
    pixels = torch.randn(len(n_tiles), SIZES.max_tiles, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(2))
    for row, n in zip(pixels, n_tiles, strict=True):
        row[n:] = 0
    return pixels, torch.tensor([grids.index(n) + 1 for n in n_tiles])


def lengths(tower: VisionEncoder, pixels: Tensor, ids: Tensor, n_tiles: list[int]) -> tuple[int, int]:
    """Tokens that a local and a global layer see."""
    seen = []
    hooks = [
        layer.register_forward_hook(lambda module, inputs, output: seen.append(output.shape[1]))
        for layer in (tower.local_layers[0], tower.global_layers[0])
    ]
    tower(pixels, ids, n_tiles)
    for hook in hooks:
        hook.remove()
    return seen[0], seen[1]


# equation


def test_a_key_that_counts_three_times_is_three_keys() -> None:
    q, k, v = (torch.randn(1, 2, n, 6) for n in (4, 3, 3))
    weights = KeyWeights.of([(2, 1), (1, 3)], head_width=6, like=q)
    more_q, _, _ = KeyWeights.of([(4, 1)], head_width=6, like=q).beside(q, q, q)
    _, more_k, more_v = weights.beside(k, k, v)
    scores = more_q @ more_k.transpose(-1, -2) / 6**0.5
    thrice = [0, 1, 2, 2, 2]
    plain = (q @ k[:, :, thrice].transpose(-1, -2) / 6**0.5).softmax(-1) @ v[:, :, thrice]
    torch.testing.assert_close((scores.softmax(-1) @ more_v)[..., :6], plain)


def test_in_bfloat16_a_count_is_as_exact_as_two_numbers_make_it() -> None:
    weights = KeyWeights.of([(1, 3)], head_width=80, like=torch.zeros((), dtype=torch.bfloat16))
    log = (weights.k.double() @ weights.q.double()).item() / 80**0.5
    assert log == pytest.approx(1.0986123, rel=2**-15)  # one number alone: 2^-9


def test_folding_takes_one_and_unfolding_repeats_it() -> None:
    x = torch.arange(8.0).view(1, 4, 2)
    x[:, 2:] = x[:, 1:2]
    folded = fold(x, 2)
    assert folded.tolist() == [[[0, 1], [2, 3]]]
    assert torch.equal(unfold(folded, 4), x)


@pytest.mark.parametrize(
    ("n_tiles", "local_tokens", "global_tokens"), [(1, 2051, 2052), (2, 3076, 3078), (3, 4128, 4128), (4, 4128, 4128)]
)
def test_the_published_448_pixel_tower_computes_this_many_tokens(
    n_tiles: int, local_tokens: int, global_tokens: int
) -> None:
    sizes = VisionConfig(width=8, n_heads=1, mlp_width=8, n_local_layers=1, n_global_layers=1, taps=(0,))
    model = published(initialise(MiniMllama(replace(TINY, vision=sizes)), torch.Generator().manual_seed(1)))
    pixels = torch.zeros(1, 4, 3, 448, 448)
    ids = torch.tensor([{1: 1, 2: 2, 3: 3, 4: 6}[n_tiles]])
    with torch.no_grad():
        assert lengths(model.vision, pixels, ids, [n_tiles]) == (local_tokens, global_tokens)


# parity with one by one


@pytest.mark.parametrize("tap", ["input", "output"])
@pytest.mark.parametrize("n_tiles", [[1], [2], [1, 2], [2, 1, 2], [1, 3], [4, 1]])
def test_features_and_all_gradients_equal_those_of_one_by_one(n_tiles: list[int], tap: str) -> None:
    tower = model_like_published().vision
    tower.tap = tap
    pixels, ids = pages(n_tiles)
    pixels.requires_grad_()

    def run() -> list[Tensor]:
        out = tower(pixels, ids, n_tiles)
        weight = torch.randn(out.shape, generator=torch.Generator().manual_seed(3))
        for row, n in zip(weight, n_tiles, strict=True):
            row[n:] = row[-1]  # what follows, attention without positions, cannot tell copies apart either
        return [out, *torch.autograd.grad((out * weight).sum(), [pixels, *tower.parameters()])]

    shared = run()
    tower.share_padding = False
    for ours, theirs in zip(shared, run(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4 * theirs.abs().max().item() + 1e-6, rtol=0.0)


def test_every_copy_gets_its_own_gradient() -> None:
    tower = model_like_published().vision
    pixels, ids = pages([1])
    real = tower(pixels, ids, [1])[:, 0]  # copies act through attention only
    (gradient,) = torch.autograd.grad(real.square().sum(), [tower.positions.table])
    slots = gradient.unflatten(-1, (SIZES.max_tiles, -1))[1]
    assert slots[1].abs().max() > 0
    assert torch.equal(slots[2], slots[1])
    assert torch.equal(slots[3], slots[1])


@pytest.mark.parametrize("semantics", ["meta", "hf", "hf445"])
def test_logits_and_adapter_gradients_of_a_ragged_batch_are_the_same(semantics: str) -> None:
    model = model_like_published(semantics)
    apply_tuning(model, TuneConfig(r=3, alpha=6, dropout=0.0))
    trained = [p for p in model.parameters() if p.requires_grad]
    for p in trained:
        torch.nn.init.normal_(p, std=0.1)
    images = pictures([[(SIDE, SIDE)], [(2 * SIDE, SIDE)], []])
    assert images.n_tiles == [[1], [2], []]
    tokens = torch.stack([prompt(9, 1, image_at=[2]), prompt(9, 2, image_at=[1]), prompt(9, 3)])

    def run() -> list[Tensor]:
        logits = model(tokens, images)
        return [logits, *torch.autograd.grad(logits.square().sum(), trained)]

    shared = run()
    model.vision.share_padding = False
    for ours, theirs in zip(shared, run(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4 * theirs.abs().max().item() + 1e-6, rtol=0.0)


# property: what is not alike is not shared


def test_fewer_tokens_are_computed_only_if_the_padding_is_alike() -> None:
    model = model_like_published()
    pixels, ids = pages([1])
    full = SIZES.max_tiles * (SIZES.tokens_per_tile + SIZES.padding_per_tile)
    assert lengths(model.vision, pixels, ids, [1])[0] == 2 * SIZES.tokens_per_tile + 1
    model.vision.share_padding = False
    assert lengths(model.vision, pixels, ids, [1]) == (full, full)
    model.vision.share_padding = True
    pixels[:, 3] = 0.5  # something in an unused slot
    assert lengths(model.vision, pixels, ids, [1]) == (full, full)
    pixels[:, 3] = 0
    model.vision.post_tile.table.data[1, -1] = 0.5  # a table that tells unused slots apart
    assert lengths(model.vision, pixels, ids, [1]) == (full, full)


def test_the_image_with_most_tiles_decides_for_its_batch() -> None:
    model = model_like_published()
    pixels, ids = pages([2, 1])
    assert lengths(model.vision, pixels, ids, [2, 1])[0] == 3 * SIZES.tokens_per_tile + 1


# unused tile slots that are dropped


def without_unused() -> MiniMllama:
    model = model_like_published()
    drop_unused_tiles(model)
    return model


def of_n_slots(tower: VisionEncoder, n: int) -> VisionEncoder:
    """The same weights with n tile slots: the rows of its grids, and of them the first n slots."""
    rows = [0, *(aspect_ratios(SIZES.max_tiles).index(grid) + 1 for grid in aspect_ratios(n))]
    weights = tower.state_dict()
    for name, value in weights.items():
        if name.endswith("table"):
            weights[name] = value[rows].unflatten(-1, (SIZES.max_tiles, -1))[:, :n].flatten(1)
    small = VisionEncoder(replace(SIZES, max_tiles=n))
    small.load_state_dict(weights)
    return small


@pytest.mark.parametrize("n", [1, 2, 3])
def test_an_image_of_n_tiles_is_then_what_a_tower_of_n_slots_computes(n: int) -> None:
    tower = without_unused().vision
    pixels, ids = pages([n])
    grid = aspect_ratios(SIZES.max_tiles)[int(ids) - 1]
    small_id = torch.tensor([aspect_ratios(n).index(grid) + 1])
    expected = of_n_slots(tower, n)(pixels[:, :n], small_id, [n])
    torch.testing.assert_close(tower(pixels, ids, [n])[:, :n], expected, rtol=0, atol=1e-5)
    everything = model_like_published().vision(pixels, ids, [n])
    assert not torch.allclose(everything[:, :n], expected, rtol=0, atol=1e-3)  # the published function is another one


def test_dropping_changes_no_bit_where_all_slots_are_used() -> None:
    pixels, ids = pages([4, 4])
    assert torch.equal(without_unused().vision(pixels, ids, [4, 4]), model_like_published().vision(pixels, ids, [4, 4]))


def test_a_page_does_not_depend_on_how_many_tiles_its_neighbours_have() -> None:
    tower, n_tiles = without_unused().vision, [2, 1, 4, 3]
    pixels, ids = pages(n_tiles)
    together = tower(pixels, ids, n_tiles)
    for i, n in enumerate(n_tiles):
        alone = tower(pixels[i : i + 1], ids[i : i + 1], [n])
        torch.testing.assert_close(together[i, :n], alone[0, :n], rtol=0, atol=1e-5)


def test_what_is_in_an_unused_slot_is_not_seen() -> None:
    tower, n_tiles = without_unused().vision, [1, 3]
    pixels, ids = pages(n_tiles)
    before = tower(pixels, ids, n_tiles)
    pixels[0, 1:] = 7.0
    assert torch.equal(tower(pixels, ids, n_tiles)[0, :1], before[0, :1])


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_a_page_of_n_tiles_costs_the_tokens_of_n_tiles(n: int) -> None:
    pixels, ids = pages([n])
    expected = n * (SIZES.tokens_per_tile + SIZES.padding_per_tile)
    assert lengths(without_unused().vision, pixels, ids, [n]) == (expected, expected)


def test_logits_of_a_ragged_batch_are_those_of_each_sample_alone() -> None:
    model = without_unused()
    images = pictures([[(SIDE, SIDE)], [(2 * SIDE, SIDE)], []])
    tokens = torch.stack([prompt(9, 1, image_at=[2]), prompt(9, 2, image_at=[1]), prompt(9, 3)])
    together = model(tokens, images)
    for row in range(3):
        alone = model(tokens[row : row + 1], one_sample(images, row))
        torch.testing.assert_close(together[row], alone[0], rtol=0, atol=1e-4)


def test_the_checkpoint_remembers_that_slots_were_dropped(tmp_path: Path) -> None:
    save_model(without_unused(), tmp_path / "dropped")
    save_model(model_like_published(), tmp_path / "published")
    assert load_model(tmp_path / "dropped").vision.config.drop_unused_tiles
    assert "drop_unused_tiles" not in (tmp_path / "published" / "config.json").read_text()


def test_semantics_that_look_at_unused_slots_are_refused() -> None:
    with pytest.raises(ValueError, match="drop_unused_tiles needs semantics='meta', not 'hf'"):
        drop_unused_tiles(model_like_published("hf"))
    with pytest.raises(ValueError, match="drop_unused_tiles needs semantics='meta', not 'hf445'"):
        MiniMllama(without_unused().config, "hf445")
