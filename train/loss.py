"""Cross entropy of the answers; the vocabulary is computed only where a label is, and in pieces.

Shapes: R questions, T tokens, D width, A answer tokens, W vocabulary.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from minimllama.chat import NO_LABEL


def _piece_loss(head: nn.Module, hidden: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(head(hidden).float(), labels, reduction="sum")


def answer_loss(head: nn.Module, hidden: Tensor, labels: Tensor, n_answer_tokens: int, piece: int = 1024) -> Tensor:
    """This micro-batch's share of the step's loss: a sum over its answer tokens, divided by the STEP's number of them.

    So cutting a batch into other micro-batches, or over other ranks, changes nothing.

    Args:
        head: hidden states [A, D] -> logits [A, W].
        hidden: [R, T, D].
        labels: int64 [R, T], already shifted; -100 where nothing is learned.
        n_answer_tokens: of the whole step, over all micro-batches and ranks.
        piece: positions whose logits exist at once; further pieces are recomputed in the backward pass.

    Raises:
        ValueError: if the step has no answer token.
    """
    if n_answer_tokens < 1:
        raise ValueError("a step without answer tokens has no loss")
    chosen = labels != NO_LABEL
    states, targets = hidden[chosen], labels[chosen]  # [A, D]
    if len(targets) <= piece:
        return _piece_loss(head, states, targets) / n_answer_tokens
    total = hidden.new_zeros((), dtype=torch.float32)
    for part, target in zip(states.split(piece), targets.split(piece), strict=True):
        piece_total = checkpoint(_piece_loss, head, part, target, use_reentrant=False)
        assert isinstance(piece_total, Tensor)
        total = total + piece_total
    return total / n_answer_tokens
