"""`python -m train show`: the sample that the run will train on, as a person can read it."""

import re
from pathlib import Path

import pytest
from PIL import Image

from minimllama import load_tokenizer
from minimllama.chat import NO_LABEL
from tests.train.conftest import MakeConfig
from train.loop import load_batches, prepare
from train.show import show, token_text


def test_the_text_marks_exactly_the_tokens_that_carry_loss(make_config: MakeConfig, tmp_path: Path) -> None:
    sample, text = show(make_config(), 3, tmp_path / "deeper" / "sample.png")
    questions = text.split("\n\ntask ")[1:]
    assert len(questions) == len(sample.examples) == 3
    for shown, example, dialog in zip(questions, sample.examples, sample.dialogs, strict=True):
        head, _, body = shown.partition("\n")
        n = int((dialog.labels != NO_LABEL).sum())
        assert head == f"{example.task}: {n} tokens carry loss"
        marked = re.findall(r"\[(.*?)\]", body, re.DOTALL)
        assert "".join(marked) == f"{example.answer}<|eot_id|>"
        assert len(marked) == n
        assert "<|image|>" + example.question in re.sub(r"[\[\]]", "", body)


def test_the_picture_is_the_page_of_the_run(make_config: MakeConfig, tmp_path: Path) -> None:
    config = make_config()
    sample, text = show(config, 1, tmp_path / "sample.png")
    assert sample.page is not None
    assert Image.open(tmp_path / "sample.png").tobytes() == sample.page.image.tobytes()
    assert f"record {sample.record_id}: page 512 x 256 px, 2.0 px/mm, 2 tiles" in text
    batch = next(iter(load_batches(prepare(config), 1, 2)))
    assert batch.record_ids == [sample.record_id]
    assert (batch.tiles[0, :2].numpy() == sample.tiles).all()


def test_special_tokens_are_shown_by_name(tokenizer_file: Path) -> None:
    tokenizer = load_tokenizer(tokenizer_file)
    assert token_text(tokenizer.special["<|eot_id|>"], tokenizer) == "<|eot_id|>"
    assert token_text(tokenizer.encode("\n\n")[0], tokenizer) == "\n\n"


def test_a_picture_is_not_overwritten(make_config: MakeConfig, tmp_path: Path) -> None:
    (tmp_path / "sample.png").write_text("precious")
    with pytest.raises(FileExistsError, match=r"sample.png exists"):
        show(make_config(), 0, tmp_path / "sample.png")
    assert (tmp_path / "sample.png").read_text() == "precious"


def test_a_position_before_the_start_is_refused(make_config: MakeConfig, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="position=-1 must not be negative"):
        show(make_config(), -1, tmp_path / "sample.png")
