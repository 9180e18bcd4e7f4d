"""Two kinds of tokenizer.model behind one interface."""

import base64
from pathlib import Path

import pytest

from minimllama import Tokenizer, load_tokenizer
from minimllama.tokenizer import SPECIAL, SentencePieceTokenizer, TiktokenTokenizer, copy_tokenizer, stop_ids
from tests.tools.tiny import EOM, EOS, EOT, IMAGE, TINY

TEXTS = [
    "Sinus rhythm at 72 per minute.",
    "  two spaces before, and after  ",
    "line one\n\nline two\ttab",
    "ümläuts, 心電図 and a heart: \u2665",
    "",
    "<|eot_id|> is only text here",
]


@pytest.fixture(scope="module")
def llama(shared: Path) -> Tokenizer:
    """Meta's own file."""
    path = shared / "data" / "llama3_tokenizer.model"
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    return load_tokenizer(path)


# equation


def test_special_ids_of_the_tiny_tokenizer(tokenizer: Tokenizer) -> None:
    assert stop_ids(tokenizer) == (EOT, EOM, EOS)
    assert tokenizer.special["<|image|>"] == tokenizer.vocabulary == IMAGE == TINY.text.vocab_size


def test_special_ids_of_llama_3(llama: Tokenizer) -> None:
    assert isinstance(llama, TiktokenTokenizer)
    assert llama.vocabulary == 128256
    assert llama.special == {
        "<|begin_of_text|>": 128000,
        "<|end_of_text|>": 128001,
        "<|finetune_right_pad_id|>": 128004,
        "<|start_header_id|>": 128006,
        "<|end_header_id|>": 128007,
        "<|eom_id|>": 128008,
        "<|eot_id|>": 128009,
        "<|image|>": 128256,
    }
    assert stop_ids(llama) == (128009, 128008, 128001)


def test_golden_ids_of_llama_3(llama: Tokenizer) -> None:
    assert llama.encode("What is shown in this ECG?") == [3923, 374, 6982, 304, 420, 469, 8974, 30]
    assert llama.encode("user") == [882]
    assert llama.encode("assistant") == [78191]
    assert llama.encode("\n\n") == [271]


# property


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("kind", ["tokenizer", "llama"])
def test_decoding_undoes_encoding(kind: str, text: str, request: pytest.FixtureRequest) -> None:
    either: Tokenizer = request.getfixturevalue(kind)
    assert either.decode(either.encode(text)) == text


@pytest.mark.parametrize("kind", ["tokenizer", "llama"])
def test_text_never_becomes_a_special_token(kind: str, request: pytest.FixtureRequest) -> None:
    either: Tokenizer = request.getfixturevalue(kind)
    for name in (*SPECIAL, "<|image|>"):
        ids = either.encode(f"a {name} b")
        assert not set(ids) & set(either.special.values())
        assert len(ids) > 3


@pytest.mark.parametrize("kind", ["tokenizer", "llama"])
def test_special_tokens_are_left_out_of_the_text(kind: str, request: pytest.FixtureRequest) -> None:
    either: Tokenizer = request.getfixturevalue(kind)
    special = either.special
    ids = [special["<|begin_of_text|>"], special["<|image|>"], *either.encode("yes"), special["<|eot_id|>"]]
    assert either.decode(ids) == "yes"


def test_digits_stand_alone_in_the_sentencepiece_model(tokenizer: Tokenizer) -> None:
    assert [tokenizer.decode([i]) for i in tokenizer.encode("1234")] == list("1234")


def test_a_folder_or_its_original_subfolder_is_enough(tokenizer_file: Path, tmp_path: Path) -> None:
    (tmp_path / "original").mkdir()
    copy_tokenizer(tokenizer_file.parent, tmp_path / "original")
    for path in (tokenizer_file, tokenizer_file.parent, tmp_path):
        assert isinstance(load_tokenizer(path), SentencePieceTokenizer)
    copy_tokenizer(tmp_path / "nothing here", tmp_path)  # a source without one is fine
    assert not (tmp_path / "tokenizer.model").exists()


# refusal


def test_a_folder_without_a_tokenizer_says_where_it_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no tokenizer\.model in .* or its original/"):
        load_tokenizer(tmp_path)


def test_files_of_neither_kind_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.model"
    path.write_bytes(b"\x00\x01 nonsense" * 50)
    with pytest.raises(ValueError, match="is not a SentencePiece model"):
        load_tokenizer(path)


def test_damaged_ranks_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.model"
    lines = [base64.b64encode(bytes([i])) + b" " + str(i).encode() for i in range(200)]
    path.write_bytes(b"\n".join(lines))
    with pytest.raises(ValueError, match="holds 200 ranks, not Llama 3's 128000"):
        load_tokenizer(path)
    path.write_bytes(b"\n".join([*lines, b"only-one-word"]))
    with pytest.raises(ValueError, match="line 201: not a token and its rank"):
        load_tokenizer(path)


def test_a_sentencepiece_model_without_the_control_symbols_is_refused(tmp_path: Path) -> None:
    import sentencepiece

    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS[:3] * 9),
        model_prefix=str(tmp_path / "tokenizer"),
        vocab_size=40,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    with pytest.raises(ValueError, match=r"has no pieces named <\|begin_of_text\|>"):
        load_tokenizer(tmp_path)
