"""Scores of labels by likelihood, by name.

- yes_no: logit of "Yes" minus logit of "No" after "Does this ECG show ...?". The default.
- label_list: log-likelihood of the label's name as the answer to the question that asks for a list of labels.
- length_normalised: that divided by the number of tokens of the name, so that long names are not unlikely names.

All labels of a page are one batch that shares the image's keys and values and the beginning of the prompt. Scores of
different labels are not on one scale except for yes_no; a label's score ranks pages, which is what an AUC needs.

Shapes: B pages, L labels, T tokens of the longest name, N tokens of all names, D width.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from eval.questions import BY_CODE, TASK_QUESTIONS
from minimllama import ImageBatch, Message, MiniMllama, Tokenizer, encode_dialog, next_token_logits
from minimllama.chat import pad_rows
from minimllama.generate import Prefix, prefill
from minimllama.likelihood import ROOM, parts_that_fit, suffix_states
from minimllama.packed import rows_of
from train.ecg import LabelSet
from train.ecg.instruct import yes_no_question

SCORES = {"yes_no": "log_odds", "label_list": "label_list", "length_normalised": "length_normalised"}  # key in a line
_ROWS = 512  # rows of lm_head's output at once: 128,256 logits each


@dataclass(frozen=True, kw_only=True)
class YesNo:
    """The yes/no questions of a label set, cut into a common beginning and one ending each.

    Attributes:
        prompt: int64 [length], up to where the questions begin to differ.
        suffixes: int64 [length] each, per label.
        yes, no: first token of either answer.
    """

    prompt: Tensor
    suffixes: list[Tensor]
    yes: int
    no: int


def ask_yes_no(label_set: LabelSet, tokenizer: Tokenizer) -> YesNo:
    """Tokenise every whole question, then cut: a word is never tokenised in two halves."""
    rows = []
    for label in label_set.labels:
        message = Message(role="user", text=yes_no_question(label.name), n_images=1)
        rows.append(encode_dialog([message], tokenizer).tokens)
    shared = 0
    while len({int(row[shared]) for row in rows}) == 1 and shared < min(map(len, rows)) - 1:
        shared += 1
    yes, no = tokenizer.encode("Yes.")[0], tokenizer.encode("No.")[0]
    if yes == no:
        raise ValueError("the tokenizer begins Yes and No with the same token, so they cannot be told apart")
    return YesNo(prompt=rows[0][:shared], suffixes=[row[shared:] for row in rows], yes=yes, no=no)


def score_labels(model: MiniMllama, questions: YesNo, images: ImageBatch, states: Tensor | None = None) -> Tensor:
    """Log-odds of every label on every page, float32 [B, L]; `states` are the encoded images, if they are."""
    prompts = [questions.prompt] * len(images)
    candidates = [questions.yes, questions.no]
    logits = next_token_logits(model, prompts, questions.suffixes, candidates, images, states=states)
    return logits[..., 0] - logits[..., 1]  # [B, L]


@dataclass(frozen=True, kw_only=True)
class ListQuestion:
    """A question that asks for a list of labels, and each label as its answer.

    Attributes:
        prompt: int64 [length], up to where the answer begins.
        names: int64 [length] each, per label: as the answers of training write it.
    """

    prompt: Tensor
    names: list[Tensor]


def ask_list(label_set: LabelSet, question: str, tokenizer: Tokenizer, *, by_code: bool) -> ListQuestion:
    """Tokenise a list question and its answers: codes where the answer lists codes, otherwise names."""
    prompt = encode_dialog([Message(role="user", text=question, n_images=1)], tokenizer).tokens
    names = [tokenizer.encode(label.code if by_code else label.name) for label in label_set.labels]
    return ListQuestion(prompt=prompt, names=[torch.tensor(name) for name in names])


def _of_names(model: MiniMllama, prefix: Prefix, last: Tensor, names: Sequence[Tensor]) -> Tensor:
    """`name_likelihoods` of the names of one pass, after a prompt without its `last` token."""
    suffixes = [torch.cat([last, name[:-1]]) for name in names]
    x = suffix_states(model, prefix, suffixes)  # [B, L, T, D]
    targets = pad_rows(names, -1).to(x.device)  # [L, T]
    known = targets >= 0  # [L, T]
    hidden, tokens = x[:, known], targets[known]  # [B, N, D], [N]
    head = model.text.lm_head
    chosen = (hidden.float() * rows_of(head, tokens.tolist()).float()).sum(-1)  # [B, N]
    totals = [head(rows).float().logsumexp(-1) for rows in hidden.flatten(0, 1).split(_ROWS)]
    log_p = chosen - torch.cat(totals).view_as(chosen)  # [B, N]
    owner = known.nonzero()[:, 0].expand_as(log_p)  # [B, N]
    return log_p.new_zeros(len(x), len(names)).scatter_add(1, owner, log_p)  # [B, L]


@torch.no_grad()
def name_likelihoods(
    model: MiniMllama, asked: ListQuestion, images: ImageBatch, states: Tensor | None = None, room: int = ROOM
) -> Tensor:
    """Log-likelihood of every label's name on every page, summed over its tokens: float32 [B, L].

    As many names at once as `room` bytes hold; see `next_token_logits`.
    """
    prefix = prefill(model, [asked.prompt[:-1]] * len(images), images, states=states)
    parts = parts_that_fit(model, prefix, asked.names, room)
    return torch.cat([_of_names(model, prefix, asked.prompt[-1:], asked.names[part]) for part in parts], dim=1)


def letter_logits(
    model: MiniMllama, prompts: list[Tensor], letters: list[int], images: ImageBatch, states: Tensor | None = None
) -> Tensor:
    """Logits of the letters of a multiple choice as the first token of the answer: float32 [B, L]."""
    ends = {int(prompt[-1]) for prompt in prompts}
    assert len(ends) == 1, "prompts that ask end with the assistant's header"
    begun, last = [prompt[:-1] for prompt in prompts], [prompts[0][-1:]]
    return next_token_logits(model, begun, last, letters, images, states=states)[:, 0]  # [B, L]


def score_page(
    model: MiniMllama,
    tokenizer: Tokenizer,
    label_set: LabelSet,
    protocol: str,
    images: ImageBatch,
    kinds: Sequence[str],
    states: Tensor | None = None,
) -> list[tuple[str, Tensor]]:
    """Every kind of score that is asked for, float32 [B, L] each.

    Args:
        model, tokenizer: who is asked.
        label_set: the labels.
        protocol: whose list question is asked, of eval.questions.TASK_QUESTIONS.
        images: of the pages.
        kinds: of SCORES.
        states: what `model.encode(images)` gave, if they have been encoded already.
    """
    found = {}
    if "yes_no" in kinds:
        found["yes_no"] = score_labels(model, ask_yes_no(label_set, tokenizer), images, states)
    if {"label_list", "length_normalised"} & set(kinds):
        by_code = protocol in BY_CODE
        asked = ask_list(label_set, TASK_QUESTIONS[protocol], tokenizer, by_code=by_code)
        found["label_list"] = name_likelihoods(model, asked, images, states)
        sizes = torch.tensor([len(name) for name in asked.names], device=found["label_list"].device)  # [L]
        found["length_normalised"] = found["label_list"] / sizes
    return [(kind, found[kind]) for kind in kinds]
