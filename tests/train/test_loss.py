"""Cross entropy over answer tokens: by hand, in pieces, and however the step is cut."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from train.loss import answer_loss

ROWS, LENGTH, WIDTH, WORDS = 5, 9, 6, 13


def some_batch(dtype: torch.dtype = torch.float32) -> tuple[nn.Linear, Tensor, Tensor]:
    """A head, hidden states, and labels of answers with 9, 1, 4, 0 and 7 tokens."""
    head = nn.Linear(WIDTH, WORDS, bias=False, dtype=dtype)
    hidden = torch.randn(ROWS, LENGTH, WIDTH, dtype=dtype, requires_grad=True)
    labels = torch.randint(WORDS, (ROWS, LENGTH))
    for row, count in enumerate((9, 1, 4, 0, 7)):
        labels[row, : LENGTH - count] = -100
    return head, hidden, labels


# equation


def test_equal_logits_cost_the_logarithm_of_the_vocabulary() -> None:
    head, hidden, labels = some_batch()
    nn.init.zeros_(head.weight)
    assert answer_loss(head, hidden, labels, 21).item() == pytest.approx(math.log(WORDS), rel=1e-6)


def test_two_tokens_by_hand() -> None:
    head = nn.Linear(2, 2, bias=False)
    head.weight.data = torch.eye(2)
    hidden = torch.tensor([[[1.0, 0.0], [0.0, 3.0], [9.0, 9.0]]])
    loss = answer_loss(head, hidden, torch.tensor([[0, 0, -100]]), 4)
    assert loss.item() == pytest.approx((math.log(1 + math.exp(-1)) + math.log(1 + math.exp(3))) / 4, rel=1e-6)


# parity


@pytest.mark.parametrize("piece", [1, 4, 20, 21, 1024])
def test_pieces_give_the_value_and_the_gradients_of_the_whole(piece: int) -> None:
    head, hidden, labels = some_batch(torch.float64)
    whole = F.cross_entropy(head(hidden).flatten(0, 1), labels.flatten(), ignore_index=-100, reduction="sum") / 21
    wanted = torch.autograd.grad(whole, [hidden, head.weight])
    loss = answer_loss(head, hidden, labels, 21, piece)
    assert loss.item() == pytest.approx(whole.item(), rel=1e-6)  # the logits become float32 in the loss
    for ours, theirs in zip(torch.autograd.grad(loss, [hidden, head.weight]), wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-7)


# property


@pytest.mark.parametrize("cuts", [[5], [1, 1, 1, 1, 1], [2, 3], [4, 1]])
def test_cutting_a_step_into_other_batches_changes_nothing(cuts: list[int]) -> None:
    head, hidden, labels = some_batch()
    parts = zip(hidden.split(cuts), labels.split(cuts), strict=True)
    loss = sum(answer_loss(head, states, targets, 21) for states, targets in parts)
    gradient = torch.autograd.grad(loss, head.weight)[0]
    whole = answer_loss(head, hidden, labels, 21)
    reference = torch.autograd.grad(whole, head.weight)[0]
    assert abs(loss.item() - whole.item()) < 1e-6 * whole.item()
    assert (gradient - reference).norm() < 1e-6 * reference.norm()


def test_the_head_never_sees_more_positions_than_a_piece_nor_any_without_a_label() -> None:
    head, hidden, labels = some_batch()
    seen: list[int] = []
    head.register_forward_hook(lambda _module, inputs, _output: seen.append(len(inputs[0])))
    answer_loss(head, hidden, labels, 21, piece=8)
    assert seen == [8, 8, 5]


def test_a_batch_without_answers_adds_nothing_to_a_step_that_has_some() -> None:
    head, hidden, labels = some_batch()
    loss = answer_loss(head, hidden, torch.full_like(labels, -100), 21)
    assert loss.item() == 0.0
    loss.backward()
    assert not hidden.grad.any()


def test_positions_without_a_label_get_no_gradient() -> None:
    head, hidden, labels = some_batch()
    answer_loss(head, hidden, labels, 21).backward()
    assert torch.equal(hidden.grad.any(-1), labels != -100)


def test_bfloat16_logits_are_summed_in_float32() -> None:
    head = nn.Linear(WIDTH, WORDS, bias=False, dtype=torch.bfloat16)
    nn.init.zeros_(head.weight)
    hidden = torch.randn(300, 2, WIDTH, dtype=torch.bfloat16)
    loss = answer_loss(head, hidden, torch.zeros(300, 2, dtype=torch.int64), 1)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(600 * math.log(WORDS), rel=1e-5)  # bfloat16 would stop near 512 * log


# refusal


def test_a_step_without_answer_tokens_is_refused() -> None:
    head, hidden, labels = some_batch()
    with pytest.raises(ValueError, match="a step without answer tokens has no loss"):
        answer_loss(head, hidden, labels, 0)
