"""Answers in words: to the same question about every page, or to each record's own."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from eval.benchmark_files import AskedRecord
from eval.likelihood import letter_logits
from eval.questions import letters_of
from minimllama import ImageBatch, Message, MiniMllama, Tokenizer, encode_dialog, generate
from minimllama.tokenizer import stop_ids


def ask(question: str, tokenizer: Tokenizer) -> Tensor:
    """A question about one image, ready to be answered: int64 [length]."""
    return encode_dialog([Message(role="user", text=question, n_images=1)], tokenizer).tokens


def generate_answers(
    model: MiniMllama,
    tokenizer: Tokenizer,
    prompts: Sequence[Tensor],
    images: ImageBatch,
    limit: int,
    states: Tensor | None = None,
    *,
    compile: bool = False,  # noqa: A002 - the name that users look for
) -> list[dict[str, Any]]:
    """One greedy answer per prompt: text, number of tokens, whether it ended by itself."""
    stops = stop_ids(tokenizer)
    rows = generate(model, prompts, images, max_new_tokens=limit, stop_ids=stops, states=states, compile=compile)
    new = [row[len(prompt) :].tolist() for row, prompt in zip(rows, prompts, strict=True)]
    return [
        {"text": tokenizer.decode(ids), "n_tokens": len(ids), "ended": bool(ids) and ids[-1] in stops} for ids in new
    ]


def answer_own(
    model: MiniMllama,
    tokenizer: Tokenizer,
    records: Sequence[AskedRecord],
    images: ImageBatch,
    limit: int,
    states: Tensor | None = None,
    *,
    compile: bool = False,  # noqa: A002 - the name that users look for
) -> list[dict[str, Any]]:
    """Each record's own question, answered; of several turns each is asked after the model's own earlier answers.

    Returns:
        Per record the last answer; with several turns also `turns`, all of them.

    Raises:
        ValueError: if the records of a batch have different numbers of turns.
    """
    counts = {len(record.questions) for record in records}
    if len(counts) > 1:
        raise ValueError(f"records with {sorted(counts)} turns in one suite, such as {records[0].record_id}")
    said: list[list[dict[str, Any]]] = [[] for _ in records]
    for _ in range(counts.pop()):
        prompts = [_dialog(record, turns, tokenizer) for record, turns in zip(records, said, strict=True)]
        told = generate_answers(model, tokenizer, prompts, images, limit, states, compile=compile)
        for turns, answer in zip(said, told, strict=True):
            turns.append(answer)
    return [turns[0] if len(turns) == 1 else {**turns[-1], "turns": turns} for turns in said]


def _dialog(record: AskedRecord, said: Sequence[dict[str, Any]], tokenizer: Tokenizer) -> Tensor:
    """The dialog up to the question that comes next, with the model's answers in it."""
    messages = [Message(role="system", text=text) for role, text in record.turns if role == "system"]
    for number, question in enumerate(record.questions[: len(said) + 1]):
        messages.append(Message(role="user", text=question, n_images=int(number == 0)))
        if number < len(said):
            messages.append(Message(role="assistant", text=said[number]["text"]))
    return encode_dialog(messages, tokenizer).tokens


def choose_letters(
    model: MiniMllama,
    tokenizer: Tokenizer,
    records: Sequence[AskedRecord],
    images: ImageBatch,
    letters: str,
    states: Tensor | None = None,
) -> list[dict[str, float]]:
    """Logits of the letters that each record's question offers (of `letters` if it shows none)."""
    tokens = [tokenizer.encode(letter)[0] for letter in letters]
    if len(set(tokens)) < len(tokens):
        raise ValueError(f"the tokenizer begins two of the letters {letters} alike, so they cannot be told apart")
    prompts = [_dialog(record, (), tokenizer) for record in records]
    rows = letter_logits(model, prompts, tokens, images, states).tolist()
    offered = [letters_of(record.questions[0]) or letters for record in records]
    return [
        {letter: round(value, 5) for letter, value in zip(letters, row, strict=True) if letter in shown}
        for row, shown in zip(rows, offered, strict=True)
    ]
