"""Pages that were drawn once: the same tiles and records as drawn anew, for one description only."""

from pathlib import Path

import numpy as np
import pytest
import torch

from minimllama import Tokenizer
from tests.train.test_dataset import dataset
from train.ecg import open_source
from train.mixture import Item
from train.page_cache import PageCache

TILES = np.arange(2 * 3 * 4 * 4, dtype=np.uint8).reshape(2, 3, 4, 4)


def test_what_was_written_is_read_back_without_the_signal(tmp_path: Path) -> None:
    record = open_source("simulated", n=1)[0]
    cache = PageCache(tmp_path / "deeper" / "pages.sqlite", {"style": "nano"})
    assert cache.read(7) is None
    cache.write(7, TILES, 3, record)
    found = PageCache(tmp_path / "deeper" / "pages.sqlite", {"style": "nano"}).read(7)
    assert found is not None
    tiles, ratio, back = found
    assert np.array_equal(tiles, TILES)
    assert ratio == 3
    assert back.signal.shape == (12, 0)
    assert (back.record_id, back.labels, back.truth, back.hz) == (record.record_id, record.labels, record.truth, 250.0)


def test_the_first_page_written_stays(tmp_path: Path) -> None:
    cache, record = PageCache(tmp_path / "pages.sqlite", {}), open_source("simulated", n=1)[0]
    cache.write(0, TILES, 1, record)
    cache.write(0, TILES + 1, 2, record)
    found = cache.read(0)
    assert found is not None
    assert np.array_equal(found[0], TILES)


def test_a_cached_sample_is_the_drawn_one(tokenizer: Tokenizer, tmp_path: Path) -> None:
    cached, plain = dataset(tokenizer, cache=str(tmp_path)), dataset(tokenizer)
    item = Item(0, 3, (1, 0, 2))
    first, again, drawn = cached[item], cached[item], plain[item]
    assert first.page is not None
    assert again.page is None
    for sample in (first, again):
        assert np.array_equal(sample.tiles, drawn.tiles)  # this style leaves nothing to chance
        assert sample.aspect_ratio_id == drawn.aspect_ratio_id
        assert sample.examples == drawn.examples
        assert all(torch.equal(a.tokens, b.tokens) for a, b in zip(sample.dialogs, drawn.dialogs, strict=True))


def test_the_next_epoch_has_the_same_page_and_other_questions(tokenizer: Tokenizer, tmp_path: Path) -> None:
    made = dataset(tokenizer, n_questions=6, cache=str(tmp_path))
    one, other = made[Item(0, 3, (1, 0, 2))], made[Item(0, 3, (1, 1, 4))]
    assert np.array_equal(one.tiles, other.tiles)
    assert one.examples != other.examples


def test_pages_of_something_else_are_refused(tokenizer: Tokenizer, tmp_path: Path) -> None:
    dataset(tokenizer, cache=str(tmp_path))
    with pytest.raises(ValueError, match=r"train-0.sqlite holds pages of .*, not of .*; name another file"):
        dataset(tokenizer, "wide", cache=str(tmp_path))
