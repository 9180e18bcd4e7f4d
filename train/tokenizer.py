"""Train the SentencePiece tokenizer of a small model on the texts of its own questions and answers."""

import io
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import sentencepiece

from minimllama.tokenizer import SPECIAL
from train.ecg import LABEL_SETS, build_example, open_source
from train.ecg.instruct import yes_no_question

# How often each task is asked about a patient: more often if its texts are short, so that every word has its share.
TIMES = {"superclass": 1, "statements": 1, "yes_no": 3, "rhythm": 1, "intervals": 1, "report": 1, "lead": 3, "rate": 1}
TIMES |= {"look": 3}


def question_texts(n: int, seed: int = 11) -> Iterator[str]:
    """Questions and answers of every task about `n` simulated patients, and the name of every label that there is."""
    source, rng = open_source("simulated", n=n, seed=seed), np.random.default_rng(seed)
    for index in range(n):
        record = source[index]
        for task, times in TIMES.items():
            for _ in range(times):
                example = build_example(record, task, rng, "simulated")
                yield example.question
                yield example.answer
    for label_set in LABEL_SETS.values():
        for label in label_set.labels:
            yield from [yes_no_question(label.name), label.name] * 3


def train_tokenizer(texts: Iterable[str], vocabulary: int, path: str | Path) -> None:
    """Write a tokenizer.model with Llama's special tokens as control symbols, digits apart, and bytes as a fallback.

    Args:
        texts: sentences; the same texts give the same file.
        vocabulary: number of pieces, special ones and the 256 bytes included.
        path: of the file.

    Raises:
        FileExistsError: if there is one already.
        ValueError: of SentencePiece, if the texts do not fill the vocabulary, or it is too small for their characters.
    """
    path = Path(path)
    if path.exists():
        raise FileExistsError(f"{path} exists; a model that was trained with it would no longer fit")
    model = io.BytesIO()
    try:
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
    except RuntimeError as error:
        raise ValueError(f"vocabulary={vocabulary}: {error}") from error
    path.write_bytes(model.getvalue())
