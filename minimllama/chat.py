"""Dialogs as token ids, and which of them carry loss.

Source: llama-models, models/llama3/chat_format.py; the instruct template of the 3.2 Vision prompt guide.
Headers, the two newlines and the content are tokenised apart from each other, as Meta does.

Shapes: T tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from minimllama.tokenizer import BOS, END_HEADER, EOT, IMAGE, START_HEADER, Tokenizer

ROLES = ("system", "user", "assistant")
NO_LABEL = -100


@dataclass(frozen=True, kw_only=True)
class Message:
    """One turn.

    Attributes:
        role: of ROLES.
        text: what is said.
        n_images: images that stand before the text; only a user shows images.
    """

    role: str
    text: str
    n_images: int = 0

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            raise ValueError(f"role={self.role!r} is not one of {', '.join(ROLES)}")
        if self.n_images < 0 or (self.n_images and self.role != "user"):
            raise ValueError(f"n_images={self.n_images} in a message of role {self.role!r}: only a user shows images")


@dataclass(frozen=True, kw_only=True)
class EncodedDialog:
    """A dialog as ids.

    Attributes:
        tokens: int64 [T].
        answers: bool [T], tokens of the assistant's answers and the token that ends each.
    """

    tokens: Tensor
    answers: Tensor

    @property
    def labels(self) -> Tensor:
        """int64 [T]: at each position the NEXT token if it belongs to an answer, otherwise -100."""
        target = torch.where(self.answers, self.tokens, NO_LABEL)
        return torch.cat([target[1:], target.new_full((1,), NO_LABEL)])  # [T]


def encode_dialog(messages: Sequence[Message], tokenizer: Tokenizer, *, ask: bool | None = None) -> EncodedDialog:
    """Render a dialog in Llama 3.2's instruct format.

    Args:
        messages: turns in order.
        tokenizer: its special ids are used; the texts are encoded as ordinary text.
        ask: end with the assistant's header, so that the model answers. By default when the last turn is the
            user's.

    Raises:
        ValueError: if there is no turn, or the model is asked right after it has answered.
    """
    if not messages:
        raise ValueError("a dialog needs at least one message")
    ask = messages[-1].role != "assistant" if ask is None else ask
    if ask and messages[-1].role == "assistant":
        raise ValueError("ask=True after an assistant's message: the answer is already there")
    special = tokenizer.special
    newlines = tokenizer.encode("\n\n")

    def header(role: str) -> list[int]:
        return [special[START_HEADER], *tokenizer.encode(role), special[END_HEADER], *newlines]

    ids, answers = [special[BOS]], [False]
    for message in messages:
        head = [*header(message.role), *[special[IMAGE]] * message.n_images]
        body = [*tokenizer.encode(message.text), special[EOT]]
        ids += head + body
        answers += [False] * len(head) + [message.role == "assistant"] * len(body)
    if ask:
        head = header("assistant")
        ids += head
        answers += [False] * len(head)
    return EncodedDialog(tokens=torch.tensor(ids), answers=torch.tensor(answers))


def pad_rows(rows: Sequence[Tensor], pad: int, multiple: int = 1) -> Tensor:
    """Stack 1-D tensors of different lengths, padded on the right to a common length (a multiple of `multiple`)."""
    longest = max(map(len, rows))
    length = -(-longest // multiple) * multiple
    out = rows[0].new_full((len(rows), length), pad)
    for row, values in zip(out, rows, strict=True):
        row[: len(values)] = values
    return out
