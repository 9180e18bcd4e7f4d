"""Which positions see which tiles, and the cheap descriptions of it."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from minimllama import image_visibility
from minimllama.layers import attend
from minimllama.visibility import RowGroups, Sight, image_intervals, look, see
from tests.tools.tiny import IMAGE, PAD, TINY, prompt

I = IMAGE  # noqa: E741 - an image token, in rows written out below


# equation


@pytest.mark.parametrize(
    ("tokens", "intervals"),
    [
        ([1, 5, 6], []),
        ([1, I, 5, 6], [(1, 4)]),
        ([1, I, 5, I, 6, 7], [(1, 3), (3, 6)]),  # an image is not seen after the next one
        ([1, I, I, 5], [(1, 4), (2, 4)]),  # images in a row share the text that follows
        ([I, I, I, 5, I, 6], [(0, 4), (1, 4), (2, 4), (4, 6)]),
        ([5, I], [(1, 2)]),
    ],
)
def test_an_image_is_seen_from_its_token_to_the_next(tokens: list[int], intervals: list[tuple[int, int]]) -> None:
    assert image_intervals(tokens, I) == intervals


def test_only_the_tiles_in_use_are_seen_and_only_from_the_image_token_on() -> None:
    visible = image_visibility(torch.tensor([[1, I, 5], [1, 5, PAD]]), [[3], []], I)
    assert visible.shape == (2, 3, 1, 4)
    assert visible[0, :, 0].int().tolist() == [[0, 0, 0, 0], [1, 1, 1, 0], [1, 1, 1, 0]]
    assert not visible[1].any()


# parity


def test_visibility_equals_the_mask_of_transformers_on_random_rows() -> None:
    from tests.tools.hf import hf_visibility

    generator = torch.Generator().manual_seed(4)
    for _ in range(40):
        tokens = torch.randint(10, 14, (3, 11), generator=generator)
        tokens[torch.rand(3, 11, generator=generator) < 0.35] = I
        tokens[:, 0] = I  # transformers needs an image somewhere
        counts = [torch.randint(1, 5, (int((row == I).sum()),), generator=generator).tolist() for row in tokens]
        assert torch.equal(image_visibility(tokens, counts, I), hf_visibility(tokens, counts, TINY).bool())


def test_visibility_equals_the_stored_masks(shared: Path) -> None:
    cases = json.loads((shared / "parity" / "oracle_seed0" / "xattn_mask_cases.json").read_text())
    assert len(cases) > 20
    for case in cases:
        intervals = image_intervals(case["ids"], case["image_token_id"])
        ends = [end if end >= 0 else case["length"] for _, end in case["intervals"]]  # theirs: -1 is the end
        assert [start for start, _ in intervals] == [start for start, _ in case["intervals"]]
        assert [end for _, end in intervals] == ends
        visible = image_visibility(torch.tensor([case["ids"]]), [case["num_tiles"]], case["image_token_id"])
        dense = torch.zeros(case["dense_shape"], dtype=torch.bool)
        if case["dense_nonzero"]:
            dense[tuple(torch.tensor(case["dense_nonzero"]).T)] = True
        assert torch.equal(visible, dense)


# property


def test_placing_undoes_gathering() -> None:
    for rows in ([0, 1, 2], [0, 0, 1, 1], [1, 0, 1, 1], [2, 2]):
        groups = RowGroups.of(rows, 3 if 2 in rows else 2)
        x = torch.randn(len(rows), 5, 7)
        assert torch.equal(groups.place(groups.gather(x), 5), x)


def test_gathered_rows_belong_to_their_sample() -> None:
    rows = [1, 0, 1]
    gathered = RowGroups.of(rows, 2).gather(torch.tensor([[10.0], [20.0], [11.0]]))
    assert gathered[0, 0] == 20.0
    assert gathered[1].tolist() == [10.0, 11.0]


def mixed(sight: Sight, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention of rows [R, H, T, E] over the keys of their samples, as the cross-attention does it."""
    rows = sight.groups.gather(q.transpose(1, 2).flatten(2)).unflatten(-1, (q.shape[1], -1)).transpose(1, 2)
    out = attend(rows, k[:, :, : sight.n_keys], v[:, :, : sight.n_keys], mask=sight.mask)
    out = sight.groups.place(out.transpose(1, 2).flatten(2), q.shape[2])
    return out * sight.sees


CASES = {
    "all see the same tiles": ([[4], [4]], [[3], [3]], [0, 1], 1),
    "different numbers of tiles": ([[4], [1]], [[3], [3]], [0, 1], 1),
    "a sample without an image": ([[2], []], [[3], []], [0, 1], 1),
    "two images": ([[4, 1], [2]], [[2, 5], [4]], [0, 1], 2),
    "rows in any order": ([[2], [3]], [[1], [2]], [1, 0, 1, 1], 1),
}


@pytest.mark.parametrize("case", CASES)
def test_the_cheap_description_gives_what_the_full_mask_gives(case: str) -> None:
    n_tiles, places, sample_of_row, slots = CASES[case]
    length, per_tile, heads = 8, 5, 2
    tokens = torch.stack([prompt(length, 1, image_at=places[sample]) for sample in sample_of_row])
    visible = image_visibility(tokens, [n_tiles[sample] for sample in sample_of_row], I, 4, slots)
    sight = look(visible, RowGroups.of(sample_of_row, len(n_tiles)), per_tile)
    keys = slots * 4 * per_tile
    q, k, v = torch.randn(len(tokens), heads, length, 6), *torch.randn(2, len(n_tiles), heads, keys, 6)
    written_out = visible.flatten(2).repeat_interleave(per_tile, dim=-1)[:, None]
    per_row = list(sample_of_row)
    full = attend(q, k[per_row], v[per_row], mask=written_out).nan_to_num()
    full = full.transpose(1, 2).flatten(2) * visible.flatten(2).any(-1, keepdim=True)
    torch.testing.assert_close(mixed(sight, q, k, v).nan_to_num(), full)


def test_no_mask_is_made_when_all_samples_have_the_same_number_of_tiles() -> None:
    tokens = torch.stack([prompt(6, seed, image_at=[1 + seed]) for seed in range(3)])
    sight = see(tokens, [[2], [2], [2]], TINY)
    assert sight.mask is None
    assert sight.n_keys == 2 * TINY.vision.tokens_per_tile


def test_one_image_with_different_numbers_of_tiles_needs_a_mask_of_keys_only() -> None:
    tokens = torch.stack([prompt(6, seed, image_at=[1]) for seed in range(2)])
    sight = see(tokens, [[2], [4]], TINY)
    assert sight.mask is not None
    assert sight.mask.shape == (2, 1, 1, 4 * TINY.vision.tokens_per_tile)


# refusal


def test_images_and_image_tokens_must_fit() -> None:
    with pytest.raises(ValueError, match="row 1 has 0 image tokens but its sample has 1 images"):
        image_visibility(torch.tensor([[I, 5], [5, 6]]), [[1], [1]], I)


def test_rows_and_samples_must_fit() -> None:
    with pytest.raises(ValueError, match="2 rows of tokens, but n_tiles has 1 samples"):
        image_visibility(torch.tensor([[I, 5], [5, 6]]), [[1]], I)
    with pytest.raises(ValueError, match="row 1 refers to sample 2, but there are 2"):
        RowGroups.of([0, 2], 2)
    with pytest.raises(ValueError, match="2 rows of tokens but 3 of them have a sample"):
        see(torch.tensor([[I, 5], [I, 6]]), [[1]], TINY, sample_of_row=[0, 0, 0])


def test_a_visibility_of_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match=r"visible is \[1, 2, 1, 3\], not \[R, T, I, K\] = \[1, 2, 1, 4\]"):
        see(torch.tensor([[I, 5]]), [[1]], TINY, visible=torch.ones(1, 2, 1, 3, dtype=torch.bool))
