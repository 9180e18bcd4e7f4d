"""Fixed-size caches of keys and values."""

import pytest
import torch

from minimllama.config import PRESETS
from minimllama.kv_cache import KvCache, TextCache
from tests.tools.tiny import TINY, tiny_model

SIZES = TINY.text


# equation


def test_each_row_is_written_at_its_own_positions() -> None:
    cache = TextCache(torch.zeros(2, 1, 4, 1), torch.zeros(2, 1, 4, 1))
    k = torch.tensor([[1.0, 2.0], [3.0, 4.0]]).view(2, 1, 2, 1)
    cache.write(torch.tensor([[0, 1], [2, 3]]), k, -k)
    assert cache.k.flatten(1).tolist() == [[1, 2, 0, 0], [0, 0, 3, 4]]
    assert cache.v.flatten(1).tolist() == [[-1, -2, 0, 0], [0, 0, -3, -4]]


def test_a_token_of_the_11b_takes_131072_bytes_in_bfloat16() -> None:
    cache = KvCache.empty(PRESETS["11b"].text, n_rows=1, n_slots=1, dtype=torch.bfloat16, device="meta")
    assert sum(x.nbytes for layer in cache.text.values() for x in (layer.k, layer.v)) == 131_072
    assert len(cache.text) == 32
    assert len(cache.image) == 8


# property


@torch.no_grad()
def test_rows_of_different_lengths_decode_as_they_would_alone() -> None:
    text = tiny_model().text
    rows = [torch.randint(8, SIZES.vocab_size, (1, n)) for n in (6, 3)]
    cache = KvCache.empty(SIZES, 2, 8, torch.float32, "cpu")
    padded = torch.full((2, 5), SIZES.pad_id)
    padded[0], padded[1, :2] = rows[0][0, :5], rows[1][0, :2]
    text(padded, cache=cache)
    last = torch.stack([rows[0][0, 5:], rows[1][0, 2:]])
    out = text(last, None, None, cache, torch.tensor([[5], [2]]), 6)
    for row, alone in enumerate(rows):
        torch.testing.assert_close(out[row, 0], text(alone)[0, -1], atol=1e-5, rtol=0.0)


@torch.no_grad()
def test_a_branch_repeats_rows_and_leaves_the_original_alone() -> None:
    cache = KvCache.empty(SIZES, 2, 5, torch.float32, "cpu")
    for layer in cache.text.values():
        layer.k.normal_()
        layer.v.normal_()
    branch = cache.branch(n_branches=3, n_used=4, n_slots=9)
    first, copy = cache.text[0], branch.text[0]
    assert copy.k.shape == (6, SIZES.n_kv_heads, 9, SIZES.head_width)
    assert torch.equal(copy.k[:, :, :4], first.k[[0, 0, 0, 1, 1, 1], :, :4])
    assert not copy.k[:, :, 4:].any()
    kept = first.k.clone()
    copy.k.zero_()
    assert torch.equal(first.k, kept)
    assert branch.image is cache.image  # the images' keys are shared, not copied


# refusal


def test_writing_past_the_end_is_an_error() -> None:
    cache = TextCache(torch.zeros(1, 1, 3, 1), torch.zeros(1, 1, 3, 1))
    with pytest.raises(IndexError, match="out of bounds"):
        cache.write(torch.tensor([[3]]), torch.ones(1, 1, 1, 1), torch.ones(1, 1, 1, 1))
