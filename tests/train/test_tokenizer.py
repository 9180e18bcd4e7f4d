"""The tokenizer of a small model: Llama's special tokens, digits apart, any text and back."""

from pathlib import Path

import pytest

from minimllama import load_tokenizer
from minimllama.tokenizer import IMAGE, SPECIAL
from train.tokenizer import train_tokenizer

TEXTS = ["Sinus rhythm at 72 per minute, PR 160 ms, QRS 92 ms.", "Is there ST elevation in V2?", "Yes.", "No."] * 3


@pytest.fixture
def path(tmp_path: Path) -> Path:
    train_tokenizer(TEXTS, 310, tmp_path / "tokenizer.model")
    return tmp_path / "tokenizer.model"


def test_it_has_the_asked_size_and_llamas_special_tokens(path: Path) -> None:
    tokenizer = load_tokenizer(path)
    assert tokenizer.vocabulary == 310
    assert set(tokenizer.special) == {*SPECIAL, IMAGE}
    assert tokenizer.special[IMAGE] == 310


@pytest.mark.parametrize(
    "text",
    [
        "Sinus rhythm at 58 per minute.",
        " leading and  double spaces ",
        "Umlaut \u00e4, \u4e2d, \U0001f600",
        "a\nb\n\nc",
        "",
    ],
)
def test_any_text_comes_back(path: Path, text: str) -> None:
    tokenizer = load_tokenizer(path)
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_digits_stand_alone(path: Path) -> None:
    tokenizer = load_tokenizer(path)
    assert [tokenizer.decode([i]) for i in tokenizer.encode("160")] == ["1", "6", "0"]


def test_special_tokens_in_a_text_stay_text(path: Path) -> None:
    tokenizer = load_tokenizer(path)
    assert not set(tokenizer.encode("<|eot_id|>")) & set(tokenizer.special.values())


def test_the_same_texts_give_the_same_file(path: Path, tmp_path: Path) -> None:
    train_tokenizer(TEXTS, 310, tmp_path / "again.model")
    assert (tmp_path / "again.model").read_bytes() == path.read_bytes()


def test_a_tokenizer_is_not_overwritten(path: Path) -> None:
    before = path.read_bytes()
    with pytest.raises(FileExistsError, match="a model that was trained with it would no longer fit"):
        train_tokenizer(TEXTS, 310, path)
    assert path.read_bytes() == before


@pytest.mark.parametrize(("vocabulary", "message"), [(100, "too small|smaller than"), (90_000, "too high")])
def test_a_vocabulary_that_the_texts_do_not_fit_is_refused(tmp_path: Path, vocabulary: int, message: str) -> None:
    with pytest.raises(ValueError, match=rf"vocabulary={vocabulary}: .*({message})"):
        train_tokenizer(TEXTS, vocabulary, tmp_path / "x.model")
