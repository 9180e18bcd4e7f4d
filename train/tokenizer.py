"""Train the SentencePiece tokenizer of a small model on the texts of its own questions and answers."""

import io
from collections.abc import Iterable
from pathlib import Path

import sentencepiece

from minimllama.tokenizer import SPECIAL


def train_tokenizer(texts: Iterable[str], vocabulary: int, path: str | Path) -> None:
    """Write a tokenizer.model with Llama's special tokens as control symbols, digits apart, and bytes as a fallback.

    Args:
        texts: sentences; the same texts give the same file.
        vocabulary: number of pieces, special ones and the 256 bytes included.
        path: of the file.

    Raises:
        FileExistsError: if there is one already.
        RuntimeError: of SentencePiece, if the texts do not fill the vocabulary.
    """
    path = Path(path)
    if path.exists():
        raise FileExistsError(f"{path} exists; a model that was trained with it would no longer fit")
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_writer=model,
        vocab_size=vocabulary,
        model_type="bpe",
        control_symbols=list(SPECIAL),
        user_defined_symbols=["\n\n", "user", "assistant", "system"],
        bos_id=-1,
        eos_id=-1,
        pad_id=-1,
        unk_id=0,
        byte_fallback=True,
        split_digits=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        add_dummy_prefix=False,
        num_threads=1,
        minloglevel=2,
    )
    path.write_bytes(model.getvalue())
