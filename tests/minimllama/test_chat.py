"""Dialogs as ids, and which of them carry loss."""

from pathlib import Path

import pytest
import torch

from minimllama import Message, Tokenizer, encode_dialog, load_tokenizer
from minimllama.chat import NO_LABEL, pad_rows
from tests.tools.tiny import BOS, END_HEADER, EOT, IMAGE, START_HEADER

QUESTION = Message(role="user", text="What is shown in this ECG?", n_images=1)
ANSWER = Message(role="assistant", text="Sinus rhythm.")
SECOND = Message(role="user", text="Is there ST elevation?")


# equation


def test_the_golden_ids_of_the_instruct_prompt(shared: Path) -> None:
    path = shared / "data" / "llama3_tokenizer.model"
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    ids = encode_dialog([QUESTION], load_tokenizer(path)).tokens.tolist()
    question = [3923, 374, 6982, 304, 420, 469, 8974, 30]
    head = [128000, 128006, 882, 128007, 271, 128256]
    assert ids == [*head, *question, 128009, 128006, 78191, 128007, 271]


def test_a_dialog_is_headers_texts_and_ends_in_this_order(tokenizer: Tokenizer) -> None:
    text = tokenizer.encode
    head = [[START_HEADER, *text(role), END_HEADER, *text("\n\n")] for role in ("user", "assistant")]
    expected = [BOS, *head[0], IMAGE, *text(QUESTION.text), EOT, *head[1], *text(ANSWER.text), EOT]
    assert encode_dialog([QUESTION, ANSWER], tokenizer).tokens.tolist() == expected


def test_loss_is_on_answers_and_the_token_that_ends_each(tokenizer: Tokenizer) -> None:
    dialog = encode_dialog([QUESTION, ANSWER, SECOND, ANSWER], tokenizer)
    answer = [*tokenizer.encode(ANSWER.text), EOT]
    assert dialog.tokens[dialog.answers].tolist() == answer * 2
    before_answers = torch.cat([dialog.answers[1:], torch.tensor([False])])
    assert (dialog.labels != NO_LABEL).equal(before_answers)
    assert dialog.labels[before_answers].tolist() == answer * 2  # each position's label is the NEXT token


# property


def test_bos_stands_once_at_the_front(tokenizer: Tokenizer) -> None:
    dialog = encode_dialog([QUESTION, ANSWER, SECOND], tokenizer)
    assert (dialog.tokens == BOS).nonzero().flatten().tolist() == [0]


def test_the_image_token_is_never_a_label(tokenizer: Tokenizer) -> None:
    many = Message(role="user", text="<|image|> look", n_images=3)
    dialog = encode_dialog([many, ANSWER, QUESTION, ANSWER], tokenizer)
    assert int((dialog.tokens == IMAGE).sum()) == 4
    assert (dialog.labels != IMAGE).all()
    assert dialog.labels.max() < tokenizer.vocabulary


def test_a_question_ends_with_the_assistants_header_and_an_answer_does_not(tokenizer: Tokenizer) -> None:
    asked, told = encode_dialog([QUESTION], tokenizer), encode_dialog([QUESTION, ANSWER], tokenizer)
    assert asked.tokens[-2:].tolist() == [END_HEADER, *tokenizer.encode("\n\n")]
    assert told.tokens[-1] == EOT
    assert told.tokens[: len(asked.tokens)].equal(asked.tokens)
    assert not asked.answers.any()
    unasked = encode_dialog([QUESTION], tokenizer, ask=False)
    assert unasked.tokens[-1] == EOT


def test_a_system_message_carries_no_loss(tokenizer: Tokenizer) -> None:
    system = Message(role="system", text="Normal ECG.")
    with_system = encode_dialog([system, QUESTION, ANSWER], tokenizer)
    without = encode_dialog([QUESTION, ANSWER], tokenizer)
    assert with_system.answers.sum() == without.answers.sum()
    assert with_system.tokens.tolist()[-len(without.tokens) + 1 :] == without.tokens.tolist()[1:]


def test_content_that_begins_with_a_newline_is_tokenised_apart_from_the_header(shared: Path) -> None:
    path = shared / "data" / "llama3_tokenizer.model"
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    ids = encode_dialog([Message(role="user", text="\nyes")], load_tokenizer(path)).tokens.tolist()
    assert ids[4:7] == [271, 198, 9891]  # "\n\n", "\n", "yes"; one string would give "\n\n\n" = 1432


def test_rows_are_padded_on_the_right_to_a_multiple() -> None:
    rows = [torch.tensor([1, 2, 3]), torch.tensor([4])]
    assert pad_rows(rows, 9).tolist() == [[1, 2, 3], [4, 9, 9]]
    assert pad_rows(rows, 0, multiple=4).shape == (2, 4)


# refusal


def test_impossible_messages_are_refused() -> None:
    with pytest.raises(ValueError, match="role='doctor' is not one of system, user, assistant"):
        Message(role="doctor", text="hello")
    with pytest.raises(ValueError, match="n_images=1 in a message of role 'assistant': only a user shows images"):
        Message(role="assistant", text="look", n_images=1)
    with pytest.raises(ValueError, match="n_images=-1"):
        Message(role="user", text="look", n_images=-1)


def test_impossible_dialogs_are_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(ValueError, match="a dialog needs at least one message"):
        encode_dialog([], tokenizer)
    with pytest.raises(ValueError, match="the answer is already there"):
        encode_dialog([QUESTION, ANSWER], tokenizer, ask=True)
